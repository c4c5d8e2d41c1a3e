//! Placement groups: makes those that are missing, tagged in the same call, so that cleanup knows them. Called by
//! `prerequisites`; never changes one that is there.

use std::collections::BTreeSet;
use std::time::Duration;

use aot_provider::{ClusterRef, Prerequisites, ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    PlacementGroup, PlacementGroupState, PlacementStrategy, ResourceType, Tag,
};
use tokio::time::Instant;

use super::client::call;
use super::fresh;
use super::groups::our_tags;
use super::lookup::any_of;

/// What EC2 says of one that another call has just made.
const DUPLICATE: &str = "InvalidPlacementGroup.Duplicate";

/// Between two looks at a new group.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Names of groups.
pub(super) fn names_of(groups: &[PlacementGroup]) -> BTreeSet<String> {
    let names = groups.iter().filter_map(|group| group.group_name());
    names.map(str::to_owned).collect()
}

/// The groups with these names that are there.
pub(super) async fn find(
    client: &Client,
    names: &BTreeSet<String>,
) -> Result<Vec<PlacementGroup>, ProviderError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let shown = shown(client, names).await?;
    let there = shown.iter().filter(|group| {
        !matches!(
            group.state(),
            Some(PlacementGroupState::Deleted | PlacementGroupState::Deleting)
        )
    });
    Ok(there.cloned().collect())
}

/// Those of these names that EC2 shows, in whatever state.
async fn shown(
    client: &Client,
    names: &BTreeSet<String>,
) -> Result<Vec<PlacementGroup>, ProviderError> {
    let request = client
        .describe_placement_groups()
        .filters(any_of("group-name", names));
    let answer = call("DescribePlacementGroups", request.send()).await?;
    let mut shown = answer.placement_groups.unwrap_or_default();
    // A filter takes `*` as a wildcard, which a name may hold.
    shown.retain(|group| group.group_name().is_some_and(|name| names.contains(name)));
    Ok(shown)
}

/// Makes those that are not there, of strategy `cluster`: machines near each other.
pub(super) async fn ensure(
    client: &Client,
    cluster: &ClusterRef,
    names: &BTreeSet<String>,
    prerequisites: &mut Prerequisites,
) -> Result<(), ProviderError> {
    let there = find(client, names).await?;
    for group in &there {
        let tag = |tag: &&Tag| tag.key() == Some(tags::CLUSTER_UUID);
        let uuid = group.tags().iter().find(tag).and_then(Tag::value);
        // Perhaps made just now all the same, by a call whose answer was lost.
        if uuid == Some(&cluster.uuid) {
            fresh::made(prerequisites, group.group_name().unwrap_or_default());
        }
    }
    let there: BTreeSet<String> = names_of(&there);
    let mut made = BTreeSet::new();
    for name in names.difference(&there) {
        let request = client
            .create_placement_group()
            .group_name(name)
            .strategy(PlacementStrategy::Cluster)
            .tag_specifications(our_tags(cluster, ResourceType::PlacementGroup, name));
        match call("CreatePlacementGroup", request.send()).await {
            Err(error) if error.code.as_deref() != Some(DUPLICATE) => return Err(error),
            _ => {
                prerequisites
                    .notices
                    .push(format!("placement group {name} was made"));
                fresh::made(prerequisites, name);
                made.insert(name.clone());
            }
        }
    }
    wait_for(client, &made).await;
    Ok(())
}

/// Waits until EC2 shows these as ready for machines, but no longer than it takes a new thing to be known everywhere:
/// then the launch itself says what is wrong.
async fn wait_for(client: &Client, names: &BTreeSet<String>) {
    let deadline = Instant::now() + fresh::LIMIT;
    let mut pause = FIRST_PAUSE;
    while !names.is_empty() && Instant::now() < deadline {
        let shown = shown(client, names).await.unwrap_or_default();
        let ready =
            |group: &&PlacementGroup| group.state() == Some(&PlacementGroupState::Available);
        let ready = shown.iter().filter(ready).filter_map(|it| it.group_name());
        if ready.collect::<BTreeSet<_>>().len() == names.len() {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
