//! All that carries certain tags, kind by kind, to the last page. Reads only; called by `cleanup`, `tagged`, `address`
//! and `describe`.

use std::future::Future;

use aot_proto::ids::MachineId;
use aot_provider::{Listing, Machine, ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, Filter, Instance, NetworkInterface, PlacementGroup, SecurityGroup, Tag, Volume,
};

use super::MAX_PAGES;
use super::client::call;
use super::convert;
use super::error::cut_off;

/// Things of one page; what every paged listing here allows. Of instances EC2 gives up to 1,000, but such an answer takes some 10 MiB of
/// memory for a moment, text and values, and a launch asks every two seconds; smaller ones would cost more of the account's calls.
const PAGE: i32 = 500;
/// Values that one filter takes (EC2 API, Filter).
const FILTER_VALUES: usize = 200;

/// Whose things are listed.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    filter: Filter,
    /// `None` = any cluster's.
    uuid: Option<String>,
}

impl Owner {
    /// Whether a thing carries the tag that was asked for. EC2's filter is exact; something that merely speaks its
    /// protocol may pass over a filter, and foreign machines must never be taken for ours.
    fn owns(&self, tags: &[Tag]) -> bool {
        let tag = |tag: &&Tag| tag.key() == Some(tags::CLUSTER_UUID);
        match (tags.iter().find(tag), &self.uuid) {
            (Some(tag), Some(uuid)) => tag.value() == Some(uuid),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn own<T>(&self, mut things: Vec<T>, tags: impl Fn(&T) -> &[Tag]) -> Vec<T> {
        let all = things.len();
        things.retain(|thing| self.owns(tags(thing)));
        if things.len() < all {
            let foreign = all - things.len();
            tracing::warn!(
                foreign,
                "EC2 showed things without the tag that was asked for"
            );
        }
        things
    }
}

/// Finds what carries a cluster's uuid.
pub(super) fn of_cluster(uuid: &str) -> Owner {
    let filter = Filter::builder()
        .name(format!("tag:{}", tags::CLUSTER_UUID))
        .values(uuid);
    Owner {
        filter: filter.build(),
        uuid: Some(uuid.to_owned()),
    }
}

/// Finds what carries any cluster's uuid.
pub(super) fn of_any_cluster() -> Owner {
    let filter = Filter::builder().name("tag-key").values(tags::CLUSTER_UUID);
    Owner {
        filter: filter.build(),
        uuid: None,
    }
}

/// Follows a listing to its end. `page` gets the token of the page before, and gives a page and the next token.
async fn pages<T, F>(
    operation: &'static str,
    mut page: impl FnMut(Option<String>) -> F,
) -> Result<Vec<T>, ProviderError>
where
    F: Future<Output = Result<(Vec<T>, Option<String>), ProviderError>>,
{
    let mut all = Vec::new();
    let mut next = None;
    for _ in 0..MAX_PAGES {
        let (some, token) = page(next).await?;
        all.extend(some);
        next = token.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(all);
        }
    }
    Err(cut_off(format!("EC2 {operation}: the list does not end")))
}

/// The cluster's machines, terminated ones too.
pub(super) async fn machines(
    client: &Client,
    region: &str,
    owner: Owner,
) -> Result<Listing, ProviderError> {
    let page = |page| read(owner.own(page, |(_, instance)| instance.tags()), region);
    Ok(listing(filtered(client, &owner.filter, page).await?))
}

/// Those of these machines that are there, whatever their tags, terminated ones too. A filter, unlike a list of ids,
/// is not refused for an id that EC2 does not have (EC2 API, DescribeInstances).
pub(super) async fn by_ids(
    client: &Client,
    region: &str,
    ids: &[MachineId],
) -> Result<Listing, ProviderError> {
    let mut found = Vec::new();
    for some in ids.chunks(FILTER_VALUES) {
        let names = some.iter().map(ToString::to_string).collect();
        let filter = Filter::builder()
            .name("instance-id")
            .set_values(Some(names));
        let shown = filtered(client, &filter.build(), |page| read(page, region)).await?;
        found.extend(shown.into_iter().filter(|it| some.contains(it.id())));
    }
    Ok(listing(found))
}

/// What is kept of an instance.
enum ListedMachine {
    Machine(Box<Machine>),
    Unclear(MachineId),
}

impl ListedMachine {
    fn id(&self) -> &MachineId {
        match self {
            Self::Machine(machine) => &machine.id,
            Self::Unclear(id) => id,
        }
    }
}

fn listing(all: Vec<ListedMachine>) -> Listing {
    let mut listing = Listing::default();
    for shown in all {
        match shown {
            ListedMachine::Machine(machine) => listing.machines.push(*machine),
            ListedMachine::Unclear(id) => listing.unclear.push(id),
        }
    }
    listing
}

/// Instances as machines. One odd instance must not hide the others.
///
/// # Errors
/// When one has no id: then the answer is not whole.
fn read(instances: Vec<Owned>, region: &str) -> Result<Vec<ListedMachine>, ProviderError> {
    let shown = |(account, instance): Owned| {
        let id = instance.instance_id().and_then(|id| id.parse().ok());
        let id: MachineId =
            id.ok_or_else(|| cut_off("EC2 DescribeInstances: the answer is cut off"))?;
        Ok(
            match convert::machine(&instance, region, account.as_deref()) {
                Some(machine) => ListedMachine::Machine(Box::new(machine)),
                None => {
                    tracing::warn!(machine = %id, "EC2 shows it without its state or launch index");
                    ListedMachine::Unclear(id)
                }
            },
        )
    };
    instances.into_iter().map(shown).collect()
}

/// Instances, terminated ones too.
pub(super) async fn instances(
    client: &Client,
    owner: Owner,
) -> Result<Vec<Instance>, ProviderError> {
    filtered(client, &owner.filter, |page| {
        let own = owner.own(page, |(_, instance)| instance.tags());
        Ok(own.into_iter().map(|(_, instance)| instance).collect())
    })
    .await
}

/// An instance, and the account that owns its reservation.
type Owned = (Option<String>, Instance);

/// What `keep` makes of the instances of each page, page by page: EC2's own shape of one takes several times as much memory as what is
/// kept of it, and there may be 20,000.
async fn filtered<T>(
    client: &Client,
    filter: &Filter,
    keep: impl Fn(Vec<Owned>) -> Result<Vec<T>, ProviderError>,
) -> Result<Vec<T>, ProviderError> {
    let keep = &keep;
    pages("DescribeInstances", |next| {
        let request = client
            .describe_instances()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async move {
            let page = call("DescribeInstances", request.send()).await?;
            let reservations = page.reservations.unwrap_or_default();
            let instances = reservations.into_iter().flat_map(|reservation| {
                let owner = reservation.owner_id;
                let instances = reservation.instances.unwrap_or_default().into_iter();
                instances.map(move |instance| (owner.clone(), instance))
            });
            Ok((keep(instances.collect())?, page.next_token))
        }
    })
    .await
}

pub(super) async fn volumes(client: &Client, owner: Owner) -> Result<Vec<Volume>, ProviderError> {
    let all = pages("DescribeVolumes", |next| {
        let request = client
            .describe_volumes()
            .filters(owner.filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeVolumes", request.send()).await?;
            Ok((page.volumes.unwrap_or_default(), page.next_token))
        }
    })
    .await?;
    Ok(owner.own(all, Volume::tags))
}

/// Network interfaces.
pub(super) async fn interfaces(
    client: &Client,
    owner: Owner,
) -> Result<Vec<NetworkInterface>, ProviderError> {
    let all = pages("DescribeNetworkInterfaces", |next| {
        let request = client
            .describe_network_interfaces()
            .filters(owner.filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeNetworkInterfaces", request.send()).await?;
            Ok((page.network_interfaces.unwrap_or_default(), page.next_token))
        }
    })
    .await?;
    Ok(owner.own(all, NetworkInterface::tag_set))
}

/// Security groups.
pub(super) async fn groups(
    client: &Client,
    owner: Owner,
) -> Result<Vec<SecurityGroup>, ProviderError> {
    let all = pages("DescribeSecurityGroups", |next| {
        let request = client
            .describe_security_groups()
            .filters(owner.filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeSecurityGroups", request.send()).await?;
            Ok((page.security_groups.unwrap_or_default(), page.next_token))
        }
    })
    .await?;
    Ok(owner.own(all, SecurityGroup::tags))
}

/// Elastic IPs; EC2 gives them in one page.
pub(super) async fn addresses(
    client: &Client,
    owner: Owner,
) -> Result<Vec<Address>, ProviderError> {
    let request = client.describe_addresses().filters(owner.filter.clone());
    let answer = call("DescribeAddresses", request.send()).await?;
    Ok(owner.own(answer.addresses.unwrap_or_default(), Address::tags))
}

/// Placement groups; EC2 gives them in one page.
pub(super) async fn placement_groups(
    client: &Client,
    owner: Owner,
) -> Result<Vec<PlacementGroup>, ProviderError> {
    let request = client
        .describe_placement_groups()
        .filters(owner.filter.clone());
    let answer = call("DescribePlacementGroups", request.send()).await?;
    Ok(owner.own(
        answer.placement_groups.unwrap_or_default(),
        PlacementGroup::tags,
    ))
}

#[cfg(test)]
mod tests;
