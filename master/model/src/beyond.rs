//! What an apply of a file may not change: all that a launch alone does, as it makes, ends or prepares something.

use std::collections::BTreeMap;

use aot_proto::ids::InstanceName;
use aot_proto::plural;

use super::spec::{ClusterSpec, MemberSpec, PoolSpec};

/// The most instances that are named.
const MAX_NAMED: usize = 3;

/// What of a cluster is another thing in a file than stages, their pace and checks, variables, secrets and saved targets: for a
/// person, one entry for each. None = an apply may take the file over.
pub fn beyond_stages(had: &ClusterSpec, wants: &ClusterSpec) -> Vec<String> {
    let keys = [
        ("provider", had.provider != wants.provider),
        ("region", had.region != wants.region),
        ("attestation", had.attestation != wants.attestation),
        (
            "security_groups",
            had.security_groups != wants.security_groups,
        ),
        ("discovery_url", had.discovery_url != wants.discovery_url),
        ("ssh", had.ssh != wants.ssh),
        ("cluster_facts", had.cluster_facts != wants.cluster_facts),
    ];
    let changed = keys.into_iter().filter(|(_, differs)| *differs);
    let mut found: Vec<String> = changed.map(|(key, _)| format!("`{key}` differs")).collect();
    let (before, after) = (members(had), members(wants));
    let lacks = |of: &BTreeMap<&InstanceName, PooledMember<'_>>, other: &BTreeMap<_, _>| {
        let names = of.keys().filter(|name| !other.contains_key(*name));
        names.map(ToString::to_string).collect::<Vec<_>>()
    };
    found.extend(said("would be made", &lacks(&after, &before)));
    found.extend(said("would be left out", &lacks(&before, &after)));
    let differs = |name: &&InstanceName| match (before.get(*name), after.get(*name)) {
        (Some(one), Some(other)) => !is_alike(*one, *other),
        _ => false,
    };
    let names = before.keys().copied().filter(differs);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    found.extend(said(
        "would be of another kind (its machine, its pool, or its names)",
        &names,
    ));
    found
}

/// A member and its pool.
type PooledMember<'a> = (&'a PoolSpec, &'a MemberSpec);

fn members(spec: &ClusterSpec) -> BTreeMap<&InstanceName, PooledMember<'_>> {
    let all = spec.instances();
    all.map(|(pool, member)| (&member.name, (pool, member)))
        .collect()
}

fn is_alike((pool, member): PooledMember<'_>, (other, twin): PooledMember<'_>) -> bool {
    member == twin
        && (&pool.name, &pool.owner, &pool.user, &pool.machine)
            == (&other.name, &other.owner, &other.user, &other.machine)
}

/// `web4, web5, web6 and 2 others would be made`.
fn said(what: &str, names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let shown = names[..names.len().min(MAX_NAMED)].join(", ");
    let more = match names.len() - names.len().min(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {}", plural::count(more, "other")),
    };
    Some(format!("{shown}{more} {what}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pace::{Amount, PacePolicy};
    use crate::samples;
    use crate::spec::SshAccess;

    /// Something that is changed in a file.
    type Change = fn(&mut ClusterSpec);

    #[test]
    fn stages_and_what_belongs_to_them_may_change_and_nothing_else() {
        let had = samples::cluster().spec;
        let told = |change: Change| {
            let mut wants = had.clone();
            change(&mut wants);
            beyond_stages(&had, &wants)
        };
        let free: [Change; 5] = [
            |_| (),
            |it| {
                it.vars.insert("version".to_owned(), 2.into());
            },
            |it| it.pools[0].stages.clear(),
            |it| {
                it.pools[0].update = PacePolicy {
                    concurrency: Some(Amount::Count(1)),
                    ..PacePolicy::default()
                }
            },
            |it| it.launch.timeout = Duration::from_secs(1),
        ];
        for (number, change) in free.into_iter().enumerate() {
            assert_eq!(told(change), Vec::<String>::new(), "{number}");
        }
        assert_eq!(told(|it| it.ssh = SshAccess::None), ["`ssh` differs"]);
        let more = told(|it| {
            let mut member = it.pools[0].members[0].clone();
            for name in ["new1", "new2", "new3", "new4", "new5"] {
                member.name = name.parse().expect("a name");
                it.pools[0].members.push(member.clone());
            }
        });
        assert_eq!(more, ["new1, new2, new3 and 2 others would be made"]);
        let fewer = told(|it| it.pools[0].members.truncate(1));
        assert!(fewer[0].ends_with(" would be left out"), "{fewer:?}");
        let kinds: [Change; 3] = [
            |it| {
                it.pools[0]
                    .machine
                    .tags
                    .insert("a".to_owned(), "b".to_owned());
            },
            |it| it.pools[0].members[0].hostname = "other".to_owned(),
            |it| it.pools[0].user = Some("somebody".to_owned()),
        ];
        for change in kinds {
            let text = told(change);
            assert!(
                text.len() == 1 && text[0].contains("of another kind"),
                "{text:?}"
            );
        }
    }
}
