//! All that carries certain tags, kind by kind, to the last page. Reads only; called by `cleanup`, `tagged`, `address`
//! and `describe`.

use std::collections::BTreeMap;
use std::future::Future;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, Filter, Instance, NetworkInterface, PlacementGroup, SecurityGroup, Tag, Volume,
};

use super::MAX_PAGES;
use super::client::call;
use super::convert;
use super::error::cut_off;
use crate::provider::{Machine, ProviderError, tags};

/// Things of one page; what every paged listing here allows.
const PAGE: i32 = 500;

/// Finds what carries a cluster's uuid.
pub(super) fn of_cluster(uuid: &str) -> Filter {
    Filter::builder()
        .name(format!("tag:{}", tags::CLUSTER_UUID))
        .values(uuid)
        .build()
}

/// Finds what carries any cluster's uuid.
pub(super) fn of_any_cluster() -> Filter {
    Filter::builder()
        .name("tag-key")
        .values(tags::CLUSTER_UUID)
        .build()
}

/// Tags as a map.
pub(super) fn tag_map(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or("").to_owned())))
        .collect()
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
    filter: Filter,
) -> Result<Vec<Machine>, ProviderError> {
    let cut = || cut_off("EC2 DescribeInstances: the answer is cut off");
    let all = instances(client, filter).await?;
    all.iter()
        .map(|instance| convert::machine(instance, region).ok_or_else(cut))
        .collect()
}

/// Instances, terminated ones too.
pub(super) async fn instances(
    client: &Client,
    filter: Filter,
) -> Result<Vec<Instance>, ProviderError> {
    pages("DescribeInstances", |next| {
        let request = client
            .describe_instances()
            .filters(filter.clone())
            .max_results(1000)
            .set_next_token(next);
        async {
            let page = call("DescribeInstances", request.send()).await?;
            let reservations = page.reservations.unwrap_or_default();
            let instances = reservations
                .into_iter()
                .flat_map(|reservation| reservation.instances.unwrap_or_default());
            Ok((instances.collect(), page.next_token))
        }
    })
    .await
}

/// Volumes.
pub(super) async fn volumes(client: &Client, filter: Filter) -> Result<Vec<Volume>, ProviderError> {
    pages("DescribeVolumes", |next| {
        let request = client
            .describe_volumes()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeVolumes", request.send()).await?;
            Ok((page.volumes.unwrap_or_default(), page.next_token))
        }
    })
    .await
}

/// Network interfaces.
pub(super) async fn interfaces(
    client: &Client,
    filter: Filter,
) -> Result<Vec<NetworkInterface>, ProviderError> {
    pages("DescribeNetworkInterfaces", |next| {
        let request = client
            .describe_network_interfaces()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeNetworkInterfaces", request.send()).await?;
            Ok((page.network_interfaces.unwrap_or_default(), page.next_token))
        }
    })
    .await
}

/// Security groups.
pub(super) async fn groups(
    client: &Client,
    filter: Filter,
) -> Result<Vec<SecurityGroup>, ProviderError> {
    pages("DescribeSecurityGroups", |next| {
        let request = client
            .describe_security_groups()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(next);
        async {
            let page = call("DescribeSecurityGroups", request.send()).await?;
            Ok((page.security_groups.unwrap_or_default(), page.next_token))
        }
    })
    .await
}

/// Elastic IPs; EC2 gives them in one page.
pub(super) async fn addresses(
    client: &Client,
    filter: Filter,
) -> Result<Vec<Address>, ProviderError> {
    let request = client.describe_addresses().filters(filter);
    let answer = call("DescribeAddresses", request.send()).await?;
    Ok(answer.addresses.unwrap_or_default())
}

/// Placement groups; EC2 gives them in one page.
pub(super) async fn placement_groups(
    client: &Client,
    filter: Filter,
) -> Result<Vec<PlacementGroup>, ProviderError> {
    let request = client.describe_placement_groups().filters(filter);
    let answer = call("DescribePlacementGroups", request.send()).await?;
    Ok(answer.placement_groups.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ec2::replay::Replay;

    #[tokio::test]
    async fn all_pages_are_read() {
        let fake = Replay::default();
        fake.ok(
            "DescribeVolumes",
            "<volumeSet><item><volumeId>vol-1</volumeId></item></volumeSet><nextToken>more</nextToken>",
        )
        .ok(
            "DescribeVolumes",
            "<volumeSet><item><volumeId>vol-2</volumeId></item></volumeSet><nextToken/>",
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
    async fn an_instance_without_an_id_is_an_answer_cut_off() {
        let fake = Replay::default();
        fake.ok(
            "DescribeInstances",
            "<reservationSet><item><instancesSet><item><amiLaunchIndex>0</amiLaunchIndex></item></instancesSet></item></reservationSet>",
        );
        let client = fake.client().await;
        let error = machines(&client, "r", of_cluster("u")).await.unwrap_err();
        assert_eq!(error.leftovers, crate::provider::Leftovers::Unknown);
    }
}
