//! What `preflight` must ask AWS about a region: reads only, calls that grow with pages, never with machines. Calls that
//! don't need each other's answers run at once.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_instance_type_offerings::DescribeInstanceTypeOfferingsOutput;
use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
use aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsOutput;
use aws_sdk_ec2::operation::describe_vpcs::DescribeVpcsOutput;
use aws_sdk_ec2::types::{Image, LocationType, Subnet, SubnetState, Vpc};

use super::super::client::call;
use super::super::error::invalid;
use super::super::ground::image_keys;
use super::super::groups;
use super::super::images::{self, Finder, Key};
use super::super::lookup::{self, Each, any_of, pages};
use super::super::placement;
use super::reach::Network;
use super::report::Report;
use crate::provider::{Ask, Ground, ProviderError, SubnetGround, TypeGround};

/// What is to be asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Instance types.
    pub types: BTreeSet<String>,
    /// Subnets: the file's text, and the id that it was found to mean, or else the text. The empty one stands for those
    /// of the default VPC.
    pub subnets: BTreeMap<String, String>,
    /// Key pairs.
    pub keys: BTreeSet<String>,
    /// Snapshots.
    pub snapshots: BTreeSet<String>,
    /// Placement groups.
    pub placement: BTreeSet<String>,
    /// Security groups by id.
    pub group_ids: BTreeSet<String>,
}

/// A subnet that machines may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its zone.
    pub zone: String,
    /// Addresses that are free.
    pub free: usize,
    /// It can be used.
    pub available: bool,
    /// Machines get public addresses there unless said.
    pub public: bool,
}

/// A VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Net {
    /// The region's default one.
    pub default: bool,
    /// Its networks.
    pub networks: Vec<Network>,
}

/// The answers of the first round. `None`: that call failed, and the report says so; nothing may be concluded from it.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Types.
    pub types: Option<Each<String, TypeGround>>,
    /// Type and zone of each offer.
    pub offers: Option<BTreeSet<(String, String)>>,
    /// Subnets by the file's text; several for the default VPC.
    pub places: Option<Each<String, Vec<Place>>>,
    /// VPCs by id.
    pub nets: Option<BTreeMap<String, Net>>,
    /// Key pairs that are there.
    pub keys: Option<BTreeSet<String>>,
    /// State of snapshots that are there.
    pub snapshots: Option<BTreeMap<String, String>>,
    /// Placement groups that are there.
    pub placement: Option<BTreeSet<String>>,
    /// Ids of security groups that are there.
    pub group_ids: Option<BTreeSet<String>>,
}

impl Survey {
    /// Subnets that the file's text stands for, as far as they could be found.
    pub fn places_of(&self, text: &str) -> &[Place] {
        let found = self.places.as_ref().and_then(|places| places.get(text));
        found
            .and_then(|found| found.as_ref().ok())
            .map_or(&[], Vec::as_slice)
    }
}

/// The first round: all that can be asked from the file alone.
pub(super) async fn ask(ec2: &Client, questions: &Questions, report: &mut Report) -> Survey {
    let (types, offers, places, nets, keys, snapshots, placement, group_ids) = futures::join!(
        lookup::types(ec2, &questions.types),
        offers(ec2, &questions.types),
        places(ec2, &questions.subnets),
        nets(ec2, !questions.subnets.is_empty()),
        keys(ec2, &questions.keys),
        snapshots(ec2, &questions.snapshots),
        placement::find(ec2, &questions.placement),
        group_ids(ec2, &questions.group_ids),
    );
    let places = report.take("subnets", "ec2:DescribeSubnets", places);
    let nets = report.take("VPCs", "ec2:DescribeVpcs", nets);
    Survey {
        types: report.take("instance types", "ec2:DescribeInstanceTypes", types),
        offers: report.take(
            "where instance types are offered",
            "ec2:DescribeInstanceTypeOfferings",
            offers,
        ),
        places: places.map(|places| in_default_vpc(places, nets.as_ref())),
        nets,
        keys: report.take("key pairs", "ec2:DescribeKeyPairs", keys),
        snapshots: report.take("snapshots", "ec2:DescribeSnapshots", snapshots),
        placement: report.take("placement groups", "ec2:DescribePlacementGroups", placement),
        group_ids: report.take("security groups", "ec2:DescribeSecurityGroups", group_ids),
    }
}

/// Without those default subnets that a fake shows in other VPCs than the default one.
fn in_default_vpc(
    mut places: Each<String, Vec<Place>>,
    nets: Option<&BTreeMap<String, Net>>,
) -> Each<String, Vec<Place>> {
    if let (Some(Ok(default)), Some(nets)) = (places.get_mut(""), nets) {
        default.retain(|place| nets.get(&place.vpc).is_none_or(|net| net.default));
    }
    places
}

async fn offers(
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

async fn places(
    ec2: &Client,
    texts: &BTreeMap<String, String>,
) -> Result<Each<String, Vec<Place>>, ProviderError> {
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
            Some(Ok(subnet)) => Ok(vec![place(subnet)]),
            Some(Err(error)) => Err(invalid(error.message.clone())),
            None => continue,
        };
        found.insert(text.clone(), answer);
    }
    if let Some(default) = default {
        found.insert(String::new(), Ok(default.iter().map(place).collect()));
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

fn place(subnet: &Subnet) -> Place {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let free = subnet.available_ip_address_count();
    Place {
        id: text(subnet.subnet_id()),
        vpc: text(subnet.vpc_id()),
        zone: text(subnet.availability_zone()),
        // An answer without the number claims no shortage.
        free: free.map_or(usize::MAX, |free| usize::try_from(free).unwrap_or(0)),
        available: subnet
            .state()
            .is_none_or(|state| *state == SubnetState::Available),
        public: subnet.map_public_ip_on_launch().unwrap_or(false),
    }
}

async fn nets(ec2: &Client, wanted: bool) -> Result<BTreeMap<String, Net>, ProviderError> {
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

async fn keys(ec2: &Client, names: &BTreeSet<String>) -> Result<BTreeSet<String>, ProviderError> {
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

async fn snapshots(
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

async fn group_ids(
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

/// Answers of the second round, which needs types and VPCs.
#[derive(Default)]
pub(super) struct Second {
    /// Image ids.
    pub images: Option<Each<Key, String>>,
    /// Images that are there, by id.
    pub shown: Option<BTreeMap<String, Image>>,
    /// What is wrong with security groups, and the ids of those that are there, by VPC and name.
    pub groups: Option<(Vec<ProviderError>, BTreeMap<(String, String), String>)>,
}

/// The second round; `ground` is what the first one found.
pub(super) async fn ask_again(
    finder: &Finder<'_>,
    ask: &Ask<'_>,
    ground: &Ground,
    report: &mut Report,
) -> Second {
    let (keys, known) = image_keys(ask, ground);
    let images = async {
        let found = finder.find(&keys, &known).await?;
        let ids = found.values().filter_map(|id| id.as_ref().ok());
        let shown = images::describe(finder.ec2, &ids.cloned().collect()).await?;
        Ok((shown, found))
    };
    let groups = groups::Survey::new(finder.ec2, ask, ground);
    let (images, groups) = futures::join!(images, groups);
    let (shown, images) = report.take("images", "ec2:DescribeImages", images).unzip();
    let groups = report.take("security groups", "ec2:DescribeSecurityGroups", groups);
    Second {
        images,
        shown,
        groups: groups.map(|groups| (groups.problems(), groups.ids())),
    }
}

/// What the first round found, in the form that a launch call takes it from; what was known before stays.
pub(super) fn ground(known: &Ground, survey: &Survey) -> Ground {
    let mut ground = known.clone();
    for (kind, found) in survey.types.iter().flatten() {
        if let Ok(found) = found {
            ground
                .types
                .entry(kind.clone())
                .or_insert_with(|| found.clone());
        }
    }
    for (text, found) in survey.places.iter().flatten() {
        let Some(place) = found.as_ref().ok().and_then(|places| places.first()) else {
            continue;
        };
        // Of the default VPC's subnets EC2 chooses.
        let one = |value: &String| {
            if text.is_empty() {
                String::new()
            } else {
                value.clone()
            }
        };
        let subnet = SubnetGround {
            id: one(&place.id),
            vpc: place.vpc.clone(),
            zone: one(&place.zone),
        };
        ground.subnets.entry(text.clone()).or_insert(subnet);
    }
    ground
}
