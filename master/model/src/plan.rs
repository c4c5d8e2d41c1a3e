//! Wanted minus have = actions. Asked by `plan` (to show) and by `launch` (to do); both see the same answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aot_proto::ids::{InstanceName, PoolName};
use aot_proto::plural;

use super::spec::ClusterSpec;

/// Phase of an instance whose stages have all succeeded.
const READY: &str = "ready";

/// What is known of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Its name.
    pub name: InstanceName,
    /// It has a machine that is not ending.
    pub machine: bool,
    /// aot's phase: `planned requested booting enrolled configured bootstrapping ready failed gone`.
    pub phase: String,
    /// Ledger keys of the stages that succeeded, in order.
    pub stages_done: Vec<String>,
    /// A launch was cut off while this instance was in work.
    pub interrupted: bool,
}

/// What is to be done about one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanAction {
    /// Make its machine and run all stages.
    Create,
    /// It is as the file wants it.
    Keep,
    /// The same, as far as is known here: its machine renders stages again, and runs those of which a file becomes another.
    Check,
    /// Run this stage, which changed or is new, and all after it.
    Rerun {
        /// Index of the first stage to run.
        from: usize,
    },
    /// Continue where it stopped.
    Resume,
    /// The file no longer names it; it is left alone.
    Orphan,
    /// The file no longer names it; its machine is terminated.
    Terminate,
}

impl PlanAction {
    /// As `plan --json` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Keep => "keep",
            Self::Check => "check",
            Self::Rerun { .. } => "rerun",
            Self::Resume => "resume",
            Self::Orphan => "orphan",
            Self::Terminate => "terminate",
        }
    }
}

impl fmt::Display for PlanAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanItem {
    /// The instance.
    pub instance: InstanceName,
    /// Its pool; `None` for a single instance and for what the file no longer names.
    pub pool: Option<PoolName>,
    /// What is to be done.
    pub action: PlanAction,
    /// Why, for a person; empty when there is nothing to say.
    pub detail: String,
}

/// The plan: first what the file wants, in its order, then what it no longer names, by name. `bundles` has the ledger
/// key of every stage of every wanted instance. What has no machine and is not wanted needs no line.
pub fn plan(
    wanted: &ClusterSpec,
    have: &[Have],
    bundles: &BTreeMap<InstanceName, Vec<String>>,
    prune: bool,
) -> Vec<PlanItem> {
    let by_name: BTreeMap<&InstanceName, &Have> =
        have.iter().map(|have| (&have.name, have)).collect();
    let mut named = BTreeSet::new();
    let mut items = Vec::new();
    for (pool, member) in wanted.instances() {
        named.insert(&member.name);
        let keys = bundles.get(&member.name).map_or(&[][..], Vec::as_slice);
        let (action, detail) = decide(by_name.get(&member.name).copied(), keys);
        items.push(PlanItem {
            instance: member.name.clone(),
            pool: pool.name.clone(),
            action,
            detail,
        });
    }
    let strays = by_name
        .values()
        .filter(|have| have.machine && !named.contains(&have.name));
    items.extend(strays.map(|have| PlanItem {
        instance: have.name.clone(),
        pool: None,
        action: if prune {
            PlanAction::Terminate
        } else {
            PlanAction::Orphan
        },
        detail: match prune {
            true => "the file no longer names it".to_owned(),
            false => "the file no longer names it; --prune terminates it".to_owned(),
        },
    }));
    items
}

/// What to do about one wanted instance.
fn decide(have: Option<&Have>, keys: &[String]) -> (PlanAction, String) {
    let Some(have) = have else {
        return (PlanAction::Create, String::new());
    };
    if !have.machine {
        let detail = if have.stages_done.is_empty() {
            ""
        } else {
            "its machine is gone; a new one is created"
        };
        return (PlanAction::Create, detail.to_owned());
    }
    let done = &have.stages_done;
    let same = done
        .iter()
        .zip(keys)
        .take_while(|(done, key)| done == key)
        .count();
    let settled = have.phase == READY && !have.interrupted;
    if same < done.len().min(keys.len()) {
        return (
            PlanAction::Rerun { from: same },
            format!("stage {same} changed"),
        );
    }
    if same < keys.len() {
        return match settled {
            true => (
                PlanAction::Rerun { from: same },
                format!("stage {same} is new"),
            ),
            false => (
                PlanAction::Resume,
                format!("{same} of {} done", plural::count(keys.len(), "stage")),
            ),
        };
    }
    match settled {
        true if done.len() > keys.len() => (
            PlanAction::Keep,
            format!(
                "{} that ran {} no longer in the file",
                plural::count(done.len() - keys.len(), "stage"),
                plural::is_are(done.len() - keys.len())
            ),
        ),
        true => (PlanAction::Keep, String::new()),
        false => (PlanAction::Resume, format!("it is {}", have.phase)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::spec::ProviderKind;
    use proptest::prelude::*;

    fn name(text: &str) -> InstanceName {
        text.parse().expect("a good name")
    }

    fn cluster(size: usize) -> ClusterSpec {
        let pools = vec![samples::pool("web", size)];
        samples::file("c", ProviderKind::Local, pools)
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    fn bundles(spec: &ClusterSpec, each: &[&str]) -> BTreeMap<InstanceName, Vec<String>> {
        spec.instances()
            .map(|(_, member)| (member.name.clone(), keys(each)))
            .collect()
    }

    fn ready(text: &str, done: &[&str]) -> Have {
        Have {
            name: name(text),
            machine: true,
            phase: READY.to_owned(),
            stages_done: keys(done),
            interrupted: false,
        }
    }

    #[test]
    fn one_instance_by_what_it_has() {
        let none = Have {
            machine: false,
            ..ready("web1", &["a", "b"])
        };
        let cut = Have {
            interrupted: true,
            ..ready("web1", &["a", "b"])
        };
        let failed = Have {
            phase: "failed".to_owned(),
            ..ready("web1", &["a"])
        };
        let failed_changed = Have {
            phase: "failed".to_owned(),
            ..ready("web1", &["x"])
        };
        let booting = Have {
            phase: "booting".to_owned(),
            ..ready("web1", &[])
        };
        let cases = [
            ("nothing", None, PlanAction::Create),
            ("its machine is gone", Some(none), PlanAction::Create),
            (
                "all done",
                Some(ready("web1", &["a", "b"])),
                PlanAction::Keep,
            ),
            ("cut off", Some(cut), PlanAction::Resume),
            ("a stage failed", Some(failed), PlanAction::Resume),
            (
                "a stage that succeeded changed after a failure",
                Some(failed_changed),
                PlanAction::Rerun { from: 0 },
            ),
            ("still booting", Some(booting), PlanAction::Resume),
            (
                "the second changed",
                Some(ready("web1", &["a", "x"])),
                PlanAction::Rerun { from: 1 },
            ),
            (
                "the first changed",
                Some(ready("web1", &["x", "b"])),
                PlanAction::Rerun { from: 0 },
            ),
            (
                "the second is new",
                Some(ready("web1", &["a"])),
                PlanAction::Rerun { from: 1 },
            ),
            (
                "a stage was taken out",
                Some(ready("web1", &["a", "b", "c"])),
                PlanAction::Keep,
            ),
        ];
        for (case, have, action) in cases {
            assert_eq!(
                decide(have.as_ref(), &keys(&["a", "b"])).0,
                action,
                "{case}"
            );
        }
    }

    #[test]
    fn growing_makes_only_the_new_ones() {
        let have: Vec<Have> = (1..=3)
            .map(|id| ready(&format!("web{id}"), &["a"]))
            .collect();
        let wanted = cluster(4);
        let items = plan(&wanted, &have, &bundles(&wanted, &["a"]), true);
        let created: Vec<&str> = items
            .iter()
            .filter(|item| item.action == PlanAction::Create)
            .map(|item| item.instance.as_str())
            .collect();
        assert_eq!(created, ["web4"]);
        assert_eq!(
            items
                .iter()
                .filter(|item| item.action == PlanAction::Keep)
                .count(),
            3
        );
    }

    #[test]
    fn what_is_gone_and_not_wanted_needs_no_line() {
        let gone = Have {
            machine: false,
            ..ready("web9", &["a"])
        };
        assert_eq!(plan(&cluster(0), &[gone], &BTreeMap::new(), true), []);
    }

    proptest! {
        #[test]
        fn planning_what_is_there_already_keeps_everything(size in 0usize..40, stages in 0usize..5, prune: bool) {
            let wanted = cluster(size);
            let all = ["a", "b", "c", "d"];
            let keys = &all[..stages.min(4)];
            let have: Vec<Have> = wanted.instances().map(|(_, m)| ready(m.name.as_str(), keys)).collect();
            let items = plan(&wanted, &have, &bundles(&wanted, keys), prune);
            prop_assert_eq!(items.len(), size);
            prop_assert!(items.iter().all(|item| item.action == PlanAction::Keep));
        }

        #[test]
        fn shrinking_touches_only_what_is_no_longer_named(from in 0usize..30, to in 0usize..30, prune: bool) {
            let have: Vec<Have> = (1..=from).map(|id| ready(&format!("web{id}"), &["a"])).collect();
            let wanted = cluster(to);
            let items = plan(&wanted, &have, &bundles(&wanted, &["a"]), prune);
            let count = |action: PlanAction| items.iter().filter(|item| item.action == action).count();
            let left = if prune { PlanAction::Terminate } else { PlanAction::Orphan };
            let never = if prune { PlanAction::Orphan } else { PlanAction::Terminate };
            prop_assert_eq!(count(left), from.saturating_sub(to));
            prop_assert_eq!(count(never), 0);
            prop_assert_eq!(count(PlanAction::Create), to.saturating_sub(from));
            prop_assert_eq!(count(PlanAction::Keep), from.min(to));
        }
    }
}
