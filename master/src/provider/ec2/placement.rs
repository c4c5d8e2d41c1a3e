//! Placement groups: makes those that are missing, tagged in the same call, so that cleanup knows them. Called by
//! `ground`; never changes one that is there.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{PlacementGroupState, PlacementStrategy, ResourceType};

use super::client::call;
use super::groups::our_tags;
use super::lookup::any_of;
use crate::provider::{ClusterRef, ProviderError};

/// What EC2 says of one that another call has just made.
const DUPLICATE: &str = "InvalidPlacementGroup.Duplicate";

/// Those of these names that are there.
pub(super) async fn find(
    client: &Client,
    names: &BTreeSet<String>,
) -> Result<BTreeSet<String>, ProviderError> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let request = client
        .describe_placement_groups()
        .filters(any_of("group-name", names));
    let answer = call("DescribePlacementGroups", request.send()).await?;
    let there = answer.placement_groups().iter().filter(|group| {
        !matches!(
            group.state(),
            Some(PlacementGroupState::Deleted | PlacementGroupState::Deleting)
        )
    });
    let found = there.filter_map(|group| group.group_name());
    Ok(found
        .filter(|name| names.contains(*name))
        .map(str::to_owned)
        .collect())
}

/// Makes those that are not there, of strategy `cluster`: machines near each other.
pub(super) async fn ensure(
    client: &Client,
    cluster: &ClusterRef,
    names: &BTreeSet<String>,
    news: &mut Vec<String>,
) -> Result<(), ProviderError> {
    let there = find(client, names).await?;
    for name in names.difference(&there) {
        let request = client
            .create_placement_group()
            .group_name(name)
            .strategy(PlacementStrategy::Cluster)
            .tag_specifications(our_tags(cluster, ResourceType::PlacementGroup, name));
        match call("CreatePlacementGroup", request.send()).await {
            Err(error) if error.code.as_deref() != Some(DUPLICATE) => return Err(error),
            _ => news.push(format!("placement group {name} was made")),
        }
    }
    Ok(())
}
