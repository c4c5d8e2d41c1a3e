//! What EC2 shows of the names in a file: types, subnets, the default VPC, security groups. Each lookup is one listing for
//! all names, whatever their number, and answers for each name. Called by `prerequisites` and `preflight`; makes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use aot_provider::{ProviderError, ResolvedSubnet, ResolvedType};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_instance_types::DescribeInstanceTypesOutput;
use aws_sdk_ec2::operation::describe_security_groups::DescribeSecurityGroupsOutput;
use aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsOutput;
use aws_sdk_ec2::types::{EphemeralNvmeSupport, Filter, InstanceTypeInfo, SecurityGroup, Subnet};

use super::MAX_PAGES;
use super::client::call;
use super::error::{cut_off, invalid};

/// Values that one filter takes (EC2 API, Filter).
const FILTER_VALUES: usize = 200;

/// An answer for each name that was asked for.
pub(super) type Each<K, T> = BTreeMap<K, Result<T, ProviderError>>;

/// A filter with many values: any of them matches.
pub(super) fn any_of<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().cloned().collect()))
        .build()
}

/// All pages of a listing.
///
/// # Errors
/// Of the first call that fails, or when the list does not end.
pub(super) async fn pages<P, A>(
    operation: &'static str,
    next: impl Fn(&P) -> Option<&str>,
    ask: impl Fn(Option<String>) -> A,
) -> Result<Vec<P>, ProviderError>
where
    A: Future<Output = Result<P, ProviderError>>,
{
    let mut pages = Vec::new();
    let mut token = None;
    for _ in 0..MAX_PAGES {
        let page = ask(token).await?;
        token = next(&page)
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        pages.push(page);
        if token.is_none() {
            return Ok(pages);
        }
    }
    Err(cut_off(format!("EC2 {operation}: the list does not end")))
}

/// Names in groups that fit one filter.
fn chunks(names: &BTreeSet<String>) -> Vec<Vec<String>> {
    let names: Vec<String> = names.iter().cloned().collect();
    names.chunks(FILTER_VALUES).map(<[_]>::to_vec).collect()
}

/// What the instance types are. A type that EC2 does not show is an error of its own.
pub(super) async fn types(
    client: &Client,
    names: &BTreeSet<String>,
) -> Result<Each<String, ResolvedType>, ProviderError> {
    let mut shown = BTreeMap::new();
    for chunk in chunks(names) {
        let ask = |token| {
            let request = client
                .describe_instance_types()
                .filters(any_of("instance-type", &chunk))
                .max_results(100)
                .set_next_token(token);
            call("DescribeInstanceTypes", request.send())
        };
        let next = DescribeInstanceTypesOutput::next_token;
        for page in pages("DescribeInstanceTypes", next, ask).await? {
            for info in page.instance_types.unwrap_or_default() {
                let name = info.instance_type.as_ref().map(|kind| kind.as_str());
                if let Some(name) = name.map(str::to_owned) {
                    shown.insert(name, info);
                }
            }
        }
    }
    Ok(names
        .iter()
        .map(|name| (name.clone(), resolved_type(name, shown.get(name))))
        .collect())
}

fn resolved_type(
    name: &str,
    info: Option<&InstanceTypeInfo>,
) -> Result<ResolvedType, ProviderError> {
    let info = info.ok_or_else(|| {
        invalid(format!(
            "no instance type {name:?} in this region: see `ec2_size`"
        ))
    })?;
    let archs = info.processor_info().map(|it| it.supported_architectures());
    let arch = archs
        .unwrap_or_default()
        .iter()
        .map(|arch| arch.as_str())
        .find(|arch| matches!(*arch, "x86_64" | "arm64"));
    let arch = arch.ok_or_else(|| {
        invalid(format!(
            "instance type {name} has no architecture that an agent is built for"
        ))
    })?;
    Ok(ResolvedType {
        arch: arch.to_owned(),
        ephemeral_drives: ephemeral_drives(info),
    })
}

/// Instance store drives that need a mapping: those of NVMe are there without one (EC2 User Guide, "Instance store
/// volumes").
fn ephemeral_drives(info: &InstanceTypeInfo) -> u32 {
    let Some(storage) = info.instance_storage_info() else {
        return 0;
    };
    if storage.nvme_support() == Some(&EphemeralNvmeSupport::Required) {
        return 0;
    }
    let counts = storage.disks().iter().filter_map(|disk| disk.count());
    counts.filter_map(|count| u32::try_from(count).ok()).sum()
}

/// Subnets by their ids or Name tags, as EC2 shows them. A Name tag must be the only one of its kind.
pub(super) async fn subnets(
    client: &Client,
    texts: &BTreeSet<String>,
) -> Result<Each<String, Subnet>, ProviderError> {
    let (ids, names): (BTreeSet<_>, BTreeSet<_>) = texts
        .iter()
        .cloned()
        .partition(|text| text.starts_with("subnet-"));
    let mut shown = Vec::new();
    for (filter, values) in [("subnet-id", ids), ("tag:Name", names)] {
        for chunk in chunks(&values) {
            let ask = |token| {
                let request = client
                    .describe_subnets()
                    .filters(any_of(filter, &chunk))
                    .set_next_token(token);
                call("DescribeSubnets", request.send())
            };
            let next = DescribeSubnetsOutput::next_token;
            for page in pages("DescribeSubnets", next, ask).await? {
                shown.extend(page.subnets.unwrap_or_default());
            }
        }
    }
    Ok(texts
        .iter()
        .map(|text| (text.clone(), pick_subnet(text, &shown)))
        .collect())
}

fn pick_subnet(text: &str, shown: &[Subnet]) -> Result<Subnet, ProviderError> {
    let is = |subnet: &&Subnet| {
        subnet.subnet_id() == Some(text)
            || subnet
                .tags()
                .iter()
                .any(|tag| tag.key() == Some("Name") && tag.value() == Some(text))
    };
    let found: Vec<&Subnet> = shown.iter().filter(is).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(invalid(format!("no subnet {text:?} in this region"))),
        _ => Err(invalid(format!(
            "{} subnets have the Name tag {text:?}: name one by its id",
            found.len()
        ))),
    }
}

/// The part of a subnet that is kept.
///
/// # Errors
/// When the answer is not whole.
pub(super) fn resolved_subnet(subnet: &Subnet) -> Result<ResolvedSubnet, ProviderError> {
    let whole = |text: Option<&str>| {
        text.filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| cut_off("EC2 DescribeSubnets: the answer is cut off"))
    };
    Ok(ResolvedSubnet {
        id: whole(subnet.subnet_id())?,
        vpc: whole(subnet.vpc_id())?,
        zone: whole(subnet.availability_zone())?,
    })
}

/// Id of the default VPC, when there is one.
pub(super) async fn default_vpc(client: &Client) -> Result<Option<String>, ProviderError> {
    let request = client
        .describe_vpcs()
        .filters(any_of("is-default", &["true".to_owned()]));
    let answer = call("DescribeVpcs", request.send()).await?;
    Ok(answer.vpcs().first().and_then(|vpc| vpc.vpc_id.clone()))
}

/// Security groups in these places, each a VPC and a name, by place as asked for. What is not there is not in it. To EC2
/// a name in other letters, capital or small, is the same name (EC2 API, CreateSecurityGroup), but not to its filter.
pub(super) async fn groups(
    client: &Client,
    places: &BTreeSet<(String, String)>,
) -> Result<BTreeMap<(String, String), SecurityGroup>, ProviderError> {
    let (vpcs, names): (BTreeSet<String>, BTreeSet<String>) = places.iter().cloned().unzip();
    let mut found = BTreeMap::new();
    for chunk in chunks(&names) {
        let filters = [any_of("group-name", &chunk), any_of("vpc-id", &vpcs)];
        for (vpc, name, group) in groups_by(client, &filters).await? {
            // A filter takes `*` as a wildcard, which a name may hold.
            if names.contains(&name) {
                found.insert((vpc, name), group);
            }
        }
    }
    let missing: Vec<(String, String)> = places
        .iter()
        .filter(|place| !found.contains_key(*place))
        .cloned()
        .collect();
    if !missing.is_empty() {
        for (vpc, name, group) in groups_by(client, &[any_of("vpc-id", &vpcs)]).await? {
            let same = |place: &&(String, String)| {
                place.0 == vpc && place.1.to_lowercase() == name.to_lowercase()
            };
            if let Some(place) = missing.iter().find(same) {
                found.insert(place.clone(), group);
            }
        }
    }
    Ok(found)
}

/// Groups that fit these filters, with their VPCs and names.
async fn groups_by(
    client: &Client,
    filters: &[Filter],
) -> Result<Vec<(String, String, SecurityGroup)>, ProviderError> {
    let ask = |token| {
        let request = client
            .describe_security_groups()
            .set_filters(Some(filters.to_vec()))
            .max_results(1000)
            .set_next_token(token);
        call("DescribeSecurityGroups", request.send())
    };
    let next = DescribeSecurityGroupsOutput::next_token;
    let mut found = Vec::new();
    for page in pages("DescribeSecurityGroups", next, ask).await? {
        for group in page.security_groups.unwrap_or_default() {
            let (Some(vpc), Some(name), Some(_)) =
                (group.vpc_id(), group.group_name(), group.group_id())
            else {
                return Err(cut_off("EC2 DescribeSecurityGroups: the answer is cut off"));
            };
            found.push((vpc.to_owned(), name.to_owned(), group));
        }
    }
    Ok(found)
}

/// All values, or one error that says what is wrong with every name.
///
/// # Errors
/// The only one as it is; several in one message.
pub(super) fn all<K: Ord, T>(each: Each<K, T>) -> Result<BTreeMap<K, T>, ProviderError> {
    let (mut good, mut bad) = (BTreeMap::new(), Vec::new());
    for (key, result) in each {
        match result {
            Ok(value) => drop(good.insert(key, value)),
            Err(error) => bad.push(error),
        }
    }
    if bad.len() > 1 {
        let messages: Vec<String> = bad.into_iter().map(|error| error.message).collect();
        return Err(invalid(messages.join("; ")));
    }
    bad.pop().map_or(Ok(good), Err)
}
