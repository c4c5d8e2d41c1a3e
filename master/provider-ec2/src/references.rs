//! Rules of a cluster's security groups that name other groups of it: they keep those from being deleted, and two groups
//! that name each other would both stay for ever. Called by `cleanup`.

use std::collections::BTreeSet;

use aot_host::chain::Chain;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{IpPermission, SecurityGroup, UserIdGroupPair};

use super::client::call;

/// Takes those rules away. What fails shows again when the named group is to be deleted.
pub(super) async fn revoke(client: &Client, groups: &[SecurityGroup]) {
    let ids: BTreeSet<&str> = groups.iter().filter_map(|group| group.group_id()).collect();
    for group in groups {
        let Some(id) = group.group_id() else {
            continue;
        };
        let inbound = naming(group.ip_permissions(), id, &ids);
        if !inbound.is_empty() {
            let request = client
                .revoke_security_group_ingress()
                .group_id(id)
                .set_ip_permissions(Some(inbound));
            if let Err(error) = call("RevokeSecurityGroupIngress", request.send()).await {
                tracing::warn!(group = id, error = %Chain(&error), "rules are kept for now");
            }
        }
        let outbound = naming(group.ip_permissions_egress(), id, &ids);
        if !outbound.is_empty() {
            let request = client
                .revoke_security_group_egress()
                .group_id(id)
                .set_ip_permissions(Some(outbound));
            if let Err(error) = call("RevokeSecurityGroupEgress", request.send()).await {
                tracing::warn!(group = id, error = %Chain(&error), "rules are kept for now");
            }
        }
    }
}

/// The parts of a group's rules that name others of `ids`. A group may name itself and still be deleted.
fn naming(rules: &[IpPermission], own: &str, ids: &BTreeSet<&str>) -> Vec<IpPermission> {
    let part = |rule: &IpPermission| {
        let pairs: Vec<UserIdGroupPair> = rule
            .user_id_group_pairs()
            .iter()
            .filter_map(|pair| pair.group_id())
            .filter(|id| *id != own && ids.contains(id))
            .map(|id| UserIdGroupPair::builder().group_id(id).build())
            .collect();
        (!pairs.is_empty()).then(|| {
            IpPermission::builder()
                .set_ip_protocol(rule.ip_protocol().map(str::to_owned))
                .set_from_port(rule.from_port())
                .set_to_port(rule.to_port())
                .set_user_id_group_pairs(Some(pairs))
                .build()
        })
    };
    rules.iter().filter_map(part).collect()
}
