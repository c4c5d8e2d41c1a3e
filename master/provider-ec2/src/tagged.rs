//! Everything in a region that carries a cluster's tag of ours, whoever's. Called for `orphans`; reads only.

use std::collections::BTreeMap;

use aot_provider::{ProviderError, Tagged, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, InstanceStateName, NetworkInterfaceStatus, PlacementGroupState, Tag, VolumeState,
};

use super::convert::tag_map;
use super::listing::{self, of_any_cluster};

/// All kinds, all pages.
pub(super) async fn tagged(client: &Client) -> Result<Vec<Tagged>, ProviderError> {
    let instances = listing::instances(client, of_any_cluster()).await?;
    let volumes = listing::volumes(client, of_any_cluster()).await?;
    let interfaces = listing::interfaces(client, of_any_cluster()).await?;
    let addresses = listing::addresses(client, of_any_cluster()).await?;
    let groups = listing::groups(client, of_any_cluster()).await?;
    let placement = listing::placement_groups(client, of_any_cluster()).await?;
    let mut all: Vec<Option<Tagged>> = Vec::new();
    all.extend(instances.iter().map(|it| {
        let state = it.state().and_then(|state| state.name());
        let state = state.map_or("unknown", InstanceStateName::as_str);
        thing("instance", it.instance_id(), state, it.tags())
    }));
    all.extend(volumes.iter().map(|it| {
        let state = it.state().map_or("unknown", VolumeState::as_str);
        thing("volume", it.volume_id(), state, it.tags())
    }));
    all.extend(interfaces.iter().map(|it| {
        let state = it
            .status()
            .map_or("unknown", NetworkInterfaceStatus::as_str);
        let id = it.network_interface_id();
        thing("network-interface", id, state, it.tag_set())
    }));
    all.extend(addresses.iter().map(|it| {
        let state = location_of(it);
        thing("address", it.allocation_id(), &state, it.tags())
    }));
    all.extend(groups.iter().map(|it| {
        let state = it
            .group_name()
            .map_or_else(String::new, |name| format!("named {name}"));
        thing("security-group", it.group_id(), &state, it.tags())
    }));
    all.extend(placement.iter().map(|it| {
        let state = it.state().map_or("unknown", PlacementGroupState::as_str);
        let id = it.group_id().or(it.group_name());
        thing("placement-group", id, state, it.tags())
    }));
    Ok(all.into_iter().flatten().collect())
}

/// Addresses have no state; where they sit is as good.
fn location_of(address: &Address) -> String {
    let machine = address.instance_id().filter(|id| !id.is_empty());
    let interface = address.network_interface_id().filter(|id| !id.is_empty());
    match machine.or(interface) {
        Some(holder) => format!("on {holder}"),
        None => "free".into(),
    }
}

fn thing(kind: &'static str, id: Option<&str>, state: &str, given: &[Tag]) -> Option<Tagged> {
    let mut given: BTreeMap<String, String> = tag_map(given);
    Some(Tagged {
        kind,
        id: id?.to_owned(),
        state: state.to_owned(),
        gone: matches!(state, "terminated" | "deleted" | "deleting"),
        cluster: given.remove(tags::CLUSTER).unwrap_or_default(),
        uuid: given.remove(tags::CLUSTER_UUID)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Replay;
    use aot_provider::ErrorKind;

    const TAGS: &str = "<tagSet><item><key>aot:cluster-uuid</key><value>u</value></item><item><key>Cluster</key><value>shop</value></item></tagSet>";

    /// All kinds, one of each.
    fn full() -> Replay {
        let fake = Replay::default();
        fake.ok("DescribeInstances", &format!("<reservationSet><item><instancesSet><item><instanceId>i-1</instanceId><instanceState><name>terminated</name></instanceState>{TAGS}</item></instancesSet></item></reservationSet>"))
            .ok("DescribeVolumes", &format!("<volumeSet><item><volumeId>vol-1</volumeId><status>in-use</status>{TAGS}</item><item><volumeId>vol-2</volumeId><status>available</status></item></volumeSet>"))
            .ok("DescribeNetworkInterfaces", &format!("<networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><status>available</status>{TAGS}</item></networkInterfaceSet>"))
            .ok("DescribeAddresses", &format!("<addressesSet><item><allocationId>eipalloc-1</allocationId><instanceId>i-1</instanceId>{TAGS}</item></addressesSet>"))
            .ok("DescribeSecurityGroups", &format!("<securityGroupInfo><item><groupId>sg-1</groupId><groupName>web</groupName>{TAGS}</item></securityGroupInfo>"))
            .ok("DescribePlacementGroups", &format!("<placementGroupSet><item><groupId>pg-1</groupId><groupName>tight</groupName><state>deleting</state>{TAGS}</item></placementGroupSet>"));
        fake
    }

    #[tokio::test]
    async fn all_kinds_are_found_and_what_is_gone_is_said() {
        let fake = full();
        let found = tagged(&fake.client().await).await.unwrap();
        let rows: Vec<_> = found
            .iter()
            .map(|it| (it.kind, it.id.as_str(), it.state.as_str(), it.gone))
            .collect();
        assert_eq!(
            rows,
            [
                ("instance", "i-1", "terminated", true),
                ("volume", "vol-1", "in-use", false),
                ("network-interface", "eni-1", "available", false),
                ("address", "eipalloc-1", "on i-1", false),
                ("security-group", "sg-1", "named web", false),
                ("placement-group", "pg-1", "deleting", true),
            ]
        );
        assert!(
            found
                .iter()
                .all(|it| (it.cluster.as_str(), it.uuid.as_str()) == ("shop", "u"))
        );
        for action in fake.actions() {
            let asked = &fake.asked(&action)[0];
            assert_eq!(asked["Filter.1.Name"], "tag-key", "{action}");
            assert_eq!(asked["Filter.1.Value.1"], tags::CLUSTER_UUID);
        }
    }

    #[tokio::test]
    async fn a_kind_that_can_not_be_listed_is_an_error() {
        let fake = Replay::default();
        fake.refuse("DescribeInstances", 403, "UnauthorizedOperation", "no");
        let error = tagged(&fake.client().await).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }
}
