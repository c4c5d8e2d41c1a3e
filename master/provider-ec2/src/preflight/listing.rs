//! The listings that only `preflight` needs. Reads only; all pages.

use std::collections::{BTreeMap, BTreeSet};

use aot_provider::ProviderError;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_instance_type_offerings::DescribeInstanceTypeOfferingsOutput;
use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsOutput;
use aws_sdk_ec2::operation::describe_vpcs::DescribeVpcsOutput;
use aws_sdk_ec2::types::{LocationType, Subnet, SubnetState, Vpc};

use super::super::client::call;
use super::super::error::invalid;
use super::super::lookup::{self, Each, any_of, pages};
use super::reach::Network;
use super::region::{Net, SubnetAnswer};

/// Type and zone of each offer of these types.
pub(super) async fn offers(
    ec2: &Client,
    types: &BTreeSet<String>,
) -> Result<BTreeSet<(String, String)>, ProviderError> {
    if types.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ask = |token| {
        let request = ec2
            .describe_instance_type_offerings()
            .location_type(LocationType::AvailabilityZone)
            .filters(any_of("instance-type", types))
            .set_next_token(token);
        call("DescribeInstanceTypeOfferings", request.send())
    };
    let next = DescribeInstanceTypeOfferingsOutput::next_token;
    let listed = pages("DescribeInstanceTypeOfferings", next, ask).await?;
    let offers = listed
        .into_iter()
        .flat_map(|page| page.instance_type_offerings.unwrap_or_default());
    Ok(offers
        .filter_map(|offer| Some((offer.instance_type?.as_str().to_owned(), offer.location?)))
        .collect())
}

/// Subnets by the file's text; see `Questions::subnets`.
pub(super) async fn subnets(
    ec2: &Client,
    texts: &BTreeMap<String, String>,
) -> Result<Each<String, Vec<SubnetAnswer>>, ProviderError> {
    let named = texts
        .values()
        .filter(|text| !text.is_empty())
        .cloned()
        .collect();
    let default = async {
        if texts.contains_key("") {
            default_subnets(ec2).await.map(Some)
        } else {
            Ok(None)
        }
    };
    let (named, default) = futures::try_join!(lookup::subnets(ec2, &named), default)?;
    let mut found = Each::new();
    for (text, asked) in texts.iter().filter(|(text, _)| !text.is_empty()) {
        let answer = match named.get(asked) {
            Some(Ok(subnet)) => Ok(vec![subnet_answer(subnet)]),
            Some(Err(error)) => Err(invalid(error.message.clone())),
            None => continue,
        };
        found.insert(text.clone(), answer);
    }
    if let Some(default) = default {
        found.insert(
            String::new(),
            Ok(default.iter().map(subnet_answer).collect()),
        );
    }
    Ok(found)
}

async fn default_subnets(ec2: &Client) -> Result<Vec<Subnet>, ProviderError> {
    let ask = |token| {
        let request = ec2
            .describe_subnets()
            .filters(any_of("default-for-az", &["true".to_owned()]))
            .set_next_token(token);
        call("DescribeSubnets", request.send())
    };
    let listed = pages("DescribeSubnets", DescribeSubnetsOutput::next_token, ask).await?;
    Ok(listed
        .into_iter()
        .flat_map(|page| page.subnets.unwrap_or_default())
        .collect())
}

fn subnet_answer(subnet: &Subnet) -> SubnetAnswer {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let free = subnet.available_ip_address_count();
    SubnetAnswer {
        id: text(subnet.subnet_id()),
        vpc: text(subnet.vpc_id()),
        zone: text(subnet.availability_zone()),
        // An answer without the number claims no shortage.
        free: free.map_or(usize::MAX, |free| usize::try_from(free).unwrap_or(0)),
        available: subnet
            .state()
            .is_none_or(|state| *state == SubnetState::Available),
        public: subnet.map_public_ip_on_launch().unwrap_or(false),
        ipv6_only: subnet.ipv6_native().unwrap_or(false),
    }
}

/// VPCs of the region by id.
pub(super) async fn nets(
    ec2: &Client,
    wanted: bool,
) -> Result<BTreeMap<String, Net>, ProviderError> {
    if !wanted {
        return Ok(BTreeMap::new());
    }
    let ask = |token| {
        let request = ec2.describe_vpcs().set_next_token(token);
        call("DescribeVpcs", request.send())
    };
    let listed = pages("DescribeVpcs", DescribeVpcsOutput::next_token, ask).await?;
    let vpcs = listed
        .into_iter()
        .flat_map(|page| page.vpcs.unwrap_or_default());
    Ok(vpcs
        .filter_map(|vpc| Some((vpc.vpc_id.clone()?, net(&vpc))))
        .collect())
}

fn net(vpc: &Vpc) -> Net {
    let v4 = vpc
        .cidr_block_association_set()
        .iter()
        .filter_map(|it| it.cidr_block());
    let v6 = vpc
        .ipv6_cidr_block_association_set()
        .iter()
        .filter_map(|it| it.ipv6_cidr_block());
    Net {
        default: vpc.is_default().unwrap_or(false),
        networks: vpc
            .cidr_block()
            .into_iter()
            .chain(v4)
            .chain(v6)
            .filter_map(Network::parse)
            .collect(),
    }
}

/// Those of these key pairs that are there.
pub(super) async fn keys(
    ec2: &Client,
    names: &BTreeSet<String>,
) -> Result<BTreeSet<String>, ProviderError> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let request = ec2.describe_key_pairs().filters(any_of("key-name", names));
    let answer = call("DescribeKeyPairs", request.send()).await?;
    Ok(answer
        .key_pairs()
        .iter()
        .filter_map(|pair| pair.key_name.clone())
        .collect())
}

/// State of those of these snapshots that are there.
pub(super) async fn snapshots(
    ec2: &Client,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, ProviderError> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ask = |token| {
        let request = ec2
            .describe_snapshots()
            .filters(any_of("snapshot-id", ids))
            .set_next_token(token);
        call("DescribeSnapshots", request.send())
    };
    let listed = pages(
        "DescribeSnapshots",
        DescribeSnapshotsOutput::next_token,
        ask,
    )
    .await?;
    let snapshots = listed
        .into_iter()
        .flat_map(|page| page.snapshots.unwrap_or_default());
    Ok(snapshots
        .filter_map(|it| {
            let state = it
                .state
                .as_ref()
                .map_or("completed", |state| state.as_str())
                .to_owned();
            Some((it.snapshot_id?, state))
        })
        .collect())
}

/// Those of these security groups that are there.
pub(super) async fn group_ids(
    ec2: &Client,
    ids: &BTreeSet<String>,
) -> Result<BTreeSet<String>, ProviderError> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ask = |token| {
        let request = ec2
            .describe_security_groups()
            .filters(any_of("group-id", ids))
            .set_next_token(token);
        call("DescribeSecurityGroups", request.send())
    };
    let next = DescribeSecurityGroupsOutput::next_token;
    let listed = pages("DescribeSecurityGroups", next, ask).await?;
    let groups = listed
        .into_iter()
        .flat_map(|page| page.security_groups.unwrap_or_default());
    Ok(groups.filter_map(|group| group.group_id).collect())
}
