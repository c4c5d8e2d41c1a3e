//! The tags that every machine of ours carries, on both providers. Pure.

use std::collections::BTreeMap;

use super::{ClientToken, LaunchSpec};

/// Tag with the cluster's uuid: finds a cluster's machines, and only those.
pub const CLUSTER_UUID: &str = "aot:cluster-uuid";
/// Tag with the pool's label.
pub const POOL_LABEL: &str = "aot:pool";
/// Tag with the client token of the launch.
pub const TOKEN: &str = "aot:token";
/// Tag with the attempt's number.
pub const ATTEMPT: &str = "aot:attempt";
/// Tag with the value of a challenge, for as long as it is open. The metadata service shows it to the machine: keys with
/// blanks or slashes could not be shown there (EC2 User Guide, "View tags for your EC2 instances using instance metadata").
pub const CHALLENGE: &str = "aot:challenge";
/// Tag of a lasting address with the name of the instance that it was made for.
pub const INSTANCE: &str = "aot:instance";
/// Tag with the cluster's name, for people.
pub const CLUSTER: &str = "Cluster";
/// Tag that people and consoles read as the name.
pub const NAME: &str = "Name";

/// Label of the batch: the pool's name, or its only member's.
pub fn label(spec: &LaunchSpec) -> &str {
    match (&spec.pool, spec.members.first()) {
        (Some(pool), _) => pool.as_str(),
        (None, Some(member)) => member.name.as_str(),
        (None, None) => "",
    }
}

/// All tags of a batch. The user's own come first, so that none of them can hide one of ours.
pub fn for_launch(spec: &LaunchSpec, token: &ClientToken) -> BTreeMap<String, String> {
    let mut tags = spec.machine.tags.clone();
    let mut put = |key: &str, value: &str| tags.insert(key.to_owned(), value.to_owned());
    put(NAME, label(spec));
    put(CLUSTER, spec.cluster.name.as_str());
    if let Some(owner) = &spec.owner {
        put("Owner", owner);
    }
    if let Some(pool) = &spec.pool {
        put("Pool", pool.as_str());
    }
    put(CLUSTER_UUID, &spec.cluster.uuid);
    put(POOL_LABEL, label(spec));
    put(TOKEN, &token.0);
    put(ATTEMPT, &spec.attempt.to_string());
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::sample_spec;

    #[test]
    fn ours_win_over_the_users() {
        let mut spec = sample_spec("c", "uuid-1", 2);
        spec.owner = Some("ann".into());
        spec.machine.tags.insert("env".into(), "prod".into());
        spec.machine
            .tags
            .insert(CLUSTER_UUID.into(), "stolen".into());
        let tags = for_launch(&spec, &ClientToken("t".into()));
        assert_eq!(tags["env"], "prod");
        assert_eq!(tags[CLUSTER_UUID], "uuid-1");
        assert_eq!(tags[TOKEN], "t");
        assert_eq!(tags["Owner"], "ann");
        assert_eq!(tags[NAME], "web");
        spec.pool = None;
        let tags = for_launch(&spec, &ClientToken("t".into()));
        assert_eq!(tags[NAME], "web1");
        assert!(!tags.contains_key("Pool"));
    }
}
