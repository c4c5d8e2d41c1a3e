//! All that carries certain tags, kind by kind, to the last page. Reads only; called by `cleanup`, `tagged`, `address`
//! and `describe`.

use std::future::Future;

use aot_proto::ids::MachineId;
use aot_provider::{Listing, ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, Filter, Instance, NetworkInterface, PlacementGroup, SecurityGroup, Tag, Volume,
};

use super::MAX_PAGES;
use super::client::call;
use super::convert;
use super::error::cut_off;

/// Things of one page; what every paged listing here allows.
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
    read(&owned(client, owner).await?, region)
}

/// Those of these machines that are there, whatever their tags, terminated ones too. A filter, unlike a list of ids,
/// is not refused for an id that EC2 does not have (EC2 API, DescribeInstances).
pub(super) async fn by_ids(
    client: &Client,
    region: &str,
    ids: &[MachineId],
) -> Result<Listing, ProviderError> {
    let mut found = Listing::default();
    for some in ids.chunks(FILTER_VALUES) {
        let names = some.iter().map(ToString::to_string).collect();
        let filter = Filter::builder()
            .name("instance-id")
            .set_values(Some(names));
        let mut shown = read(&filtered(client, &filter.build()).await?, region)?;
        shown.machines.retain(|machine| some.contains(&machine.id));
        shown.unclear.retain(|id| some.contains(id));
        found.machines.extend(shown.machines);
        found.unclear.extend(shown.unclear);
    }
    Ok(found)
}

/// Instances as machines. One odd instance must not hide the others.
///
/// # Errors
/// When one has no id: then the answer is not whole.
fn read(instances: &[Owned], region: &str) -> Result<Listing, ProviderError> {
    let mut listing = Listing::default();
    for (account, instance) in instances {
        let id = instance.instance_id().and_then(|id| id.parse().ok());
        let id: MachineId =
            id.ok_or_else(|| cut_off("EC2 DescribeInstances: the answer is cut off"))?;
        match convert::machine(instance, region, account.as_deref()) {
            Some(machine) => listing.machines.push(machine),
            None => {
                tracing::warn!(machine = %id, "EC2 shows it without its state or launch index");
                listing.unclear.push(id);
            }
        }
    }
    Ok(listing)
}

/// Instances, terminated ones too.
pub(super) async fn instances(
    client: &Client,
    owner: Owner,
) -> Result<Vec<Instance>, ProviderError> {
    let all = owned(client, owner).await?;
    Ok(all.into_iter().map(|(_, instance)| instance).collect())
}

/// An instance, and the account that owns its reservation.
type Owned = (Option<String>, Instance);

async fn owned(client: &Client, owner: Owner) -> Result<Vec<Owned>, ProviderError> {
    let all = filtered(client, &owner.filter).await?;
    Ok(owner.own(all, |(_, instance)| instance.tags()))
}

async fn filtered(client: &Client, filter: &Filter) -> Result<Vec<Owned>, ProviderError> {
    pages("DescribeInstances", |next| {
        let request = client
            .describe_instances()
            .filters(filter.clone())
            .max_results(1000)
            .set_next_token(next);
        async {
            let page = call("DescribeInstances", request.send()).await?;
            let reservations = page.reservations.unwrap_or_default();
            let instances = reservations.into_iter().flat_map(|reservation| {
                let owner = reservation.owner_id;
                let instances = reservation.instances.unwrap_or_default().into_iter();
                instances.map(move |instance| (owner.clone(), instance))
            });
            Ok((instances.collect(), page.next_token))
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
mod tests {
    use super::*;
    use crate::fake::Replay;

    const TAGS: &str = "<tagSet><item><key>aot:cluster-uuid</key><value>u</value></item></tagSet>";

    #[tokio::test]
    async fn all_pages_are_read() {
        let fake = Replay::default();
        fake.ok(
            "DescribeVolumes",
            &format!("<volumeSet><item><volumeId>vol-1</volumeId>{TAGS}</item></volumeSet><nextToken>more</nextToken>"),
        )
        .ok(
            "DescribeVolumes",
            &format!("<volumeSet><item><volumeId>vol-2</volumeId>{TAGS}</item></volumeSet><nextToken/>"),
        );
        let found = volumes(&fake.client().await, of_cluster("u"))
            .await
            .unwrap();
        let ids: Vec<_> = found
            .iter()
            .filter_map(|volume| volume.volume_id())
            .collect();
        assert_eq!(ids, ["vol-1", "vol-2"]);
        let asked = fake.asked("DescribeVolumes");
        assert_eq!(asked[0].get("NextToken"), None);
        assert_eq!(asked[1]["NextToken"], "more");
        assert_eq!(asked[1]["Filter.1.Name"], "tag:aot:cluster-uuid");
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_left() {
        let endless = |_| async { Ok((vec![1_u8], Some("again".to_owned()))) };
        let error = pages("DescribeX", endless).await.unwrap_err();
        assert!(error.message.contains("DescribeX"), "{error}");
    }

    #[tokio::test]
    async fn what_carries_another_uuid_is_not_ours_whatever_the_filter_said() {
        let tagged = |id: &str, uuid: &str| {
            format!(
                "<item><instanceId>{id}</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState><tagSet><item><key>aot:cluster-uuid</key><value>{uuid}</value></item></tagSet></item>"
            )
        };
        let bare = "<item><instanceId>i-3</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState></item>";
        let all = tagged("i-1", "u") + &tagged("i-2", "other") + bare;
        let fake = Replay::default();
        fake.ok(
            "DescribeInstances",
            &format!(
                "<reservationSet><item><instancesSet>{all}</instancesSet></item></reservationSet>"
            ),
        );
        fake.ok(
            "DescribeVolumes",
            "<volumeSet><item><volumeId>vol-1</volumeId></item></volumeSet>",
        );
        let client = fake.client().await;
        let found = machines(&client, "r", of_cluster("u")).await.unwrap();
        let ids: Vec<&str> = found.machines.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["i-1"]);
        assert!(found.unclear.is_empty());
        let any = instances(&client, of_any_cluster()).await.unwrap();
        assert_eq!(any.len(), 2);
        let volumes = volumes(&client, of_cluster("u")).await.unwrap();
        assert!(volumes.is_empty());
    }

    #[tokio::test]
    async fn an_odd_instance_hides_no_other() {
        let tags = "<tagSet><item><key>aot:cluster-uuid</key><value>u</value></item></tagSet>";
        let odd = format!("<item><instanceId>i-1</instanceId>{tags}</item>");
        let good = format!(
            "<item><instanceId>i-2</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState>{tags}</item>"
        );
        let fake = Replay::default();
        fake.ok(
            "DescribeInstances",
            &format!("<reservationSet><item><instancesSet>{odd}{good}</instancesSet></item></reservationSet>"),
        );
        let found = machines(&fake.client().await, "r", of_cluster("u"))
            .await
            .unwrap();
        assert_eq!(found.machines[0].id.as_str(), "i-2");
        assert_eq!(found.unclear[0].as_str(), "i-1");
    }

    #[tokio::test]
    async fn an_instance_without_an_id_is_an_answer_cut_off() {
        let fake = Replay::default();
        fake.ok(
            "DescribeInstances",
            &format!("<reservationSet><item><instancesSet><item><amiLaunchIndex>0</amiLaunchIndex>{TAGS}</item></instancesSet></item></reservationSet>"),
        );
        let client = fake.client().await;
        let error = machines(&client, "r", of_cluster("u")).await.unwrap_err();
        assert_eq!(error.leftovers, aot_provider::Leftovers::Unknown);
    }
}
