//! Stages with templates in a plan. What their files become is known on their machines alone, so that such a stage which is done
//! may run again: the plan says that, and not that it is done.

use std::collections::{BTreeMap, HashMap};

use aot_model::plan::{PlanAction, PlanItem};
use aot_model::spec::ClusterSpec;
use aot_model::stage::StagePlan;
use aot_proto::ids::InstanceName;

use super::OperatorApi;
use super::handed::PoolStages;

/// Names of the stages that are rendered again, by instance.
pub(super) type RenderedAgain = BTreeMap<InstanceName, Vec<String>>;

impl OperatorApi {
    /// Says of each instance which of its stages are rendered again by this launch, or by an apply.
    pub(super) fn rendered(
        &self,
        spec: &ClusterSpec,
        stages: &PoolStages,
        items: &mut [PlanItem],
        is_launch: bool,
    ) -> RenderedAgain {
        let due = self.engine.read(&spec.name, |world| {
            let moves = is_launch && (moves(items) || !world.stopped(&spec.name).is_empty());
            world.rendered_again(&spec.name, &spec.vars, moves)
        });
        let pools = spec.instances();
        let pools: HashMap<&InstanceName, &str> = pools
            .map(|(pool, member)| (&member.name, pool.label()))
            .collect();
        let mut all = RenderedAgain::new();
        for item in items {
            let plans = pools.get(&item.instance).and_then(|it| stages.get(*it));
            let (Some(plans), Some(due)) = (plans, due.get(&item.instance)) else {
                continue;
            };
            let names = mark_checked(item, plans, due);
            if !names.is_empty() {
                all.insert(item.instance.clone(), names);
            }
        }
        all
    }
}

/// Whether machines come or go, so that the cluster facts will be others.
fn moves(items: &[PlanItem]) -> bool {
    let moves = |it: &PlanItem| matches!(it.action, PlanAction::Create | PlanAction::Terminate);
    items.iter().any(moves)
}

/// Says it in the line of an instance; the names of these stages, but for what runs anyway.
fn mark_checked(item: &mut PlanItem, plans: &[StagePlan], due: &[usize]) -> Vec<String> {
    let before = match item.action {
        PlanAction::Keep | PlanAction::Resume => plans.len(),
        PlanAction::Rerun { from } => from,
        PlanAction::Check | PlanAction::Create | PlanAction::Orphan | PlanAction::Terminate => {
            return Vec::new();
        }
    };
    let due = due.iter().filter(|index| **index < before);
    let due = due.filter_map(|index| plans.get(*index));
    let names: Vec<String> = due.map(|plan| plan.name.clone()).collect();
    let text = match &names[..] {
        [] => return names,
        [one] => format!("stage {one} is rendered again"),
        many => format!("stages {} are rendered again", many.join(", ")),
    };
    if item.action == PlanAction::Keep {
        item.action = PlanAction::Check;
    }
    let gap = if item.detail.is_empty() { "" } else { "; " };
    let decided =
        "whether a file becomes another, and it runs with all after it, is decided on the machine";
    item.detail.push_str(&format!("{gap}{text}: {decided}"));
    names
}

#[cfg(test)]
mod tests {
    use aot_model::samples;

    use super::*;

    fn item(action: PlanAction, detail: &str) -> PlanItem {
        PlanItem {
            instance: "web1".parse().expect("a name"),
            pool: None,
            action,
            detail: detail.to_owned(),
        }
    }

    fn plans() -> Vec<StagePlan> {
        ["base", "site", "last"].map(samples::stage_plan).to_vec()
    }

    #[test]
    fn what_is_done_and_rendered_again_is_decided_on_the_machine() {
        let cases: [(PlanAction, &[usize], PlanAction, &[&str]); 7] = [
            (PlanAction::Keep, &[], PlanAction::Keep, &[]),
            (PlanAction::Keep, &[1], PlanAction::Check, &["site"]),
            (
                PlanAction::Keep,
                &[0, 1, 7],
                PlanAction::Check,
                &["base", "site"],
            ),
            (PlanAction::Resume, &[0], PlanAction::Resume, &["base"]),
            // What runs again anyway is no question.
            (
                PlanAction::Rerun { from: 1 },
                &[1, 2],
                PlanAction::Rerun { from: 1 },
                &[],
            ),
            (
                PlanAction::Rerun { from: 2 },
                &[1, 2],
                PlanAction::Rerun { from: 2 },
                &["site"],
            ),
            (PlanAction::Create, &[0], PlanAction::Create, &[]),
        ];
        for (before, due, after, named) in cases {
            let mut told = item(before, "");
            assert_eq!(
                mark_checked(&mut told, &plans(), due),
                named,
                "{before:?} {due:?}"
            );
            assert_eq!(told.action, after);
            assert_eq!(
                told.detail.contains("decided on the machine"),
                !named.is_empty()
            );
        }
        let mut told = item(PlanAction::Rerun { from: 2 }, "stage 2 changed");
        mark_checked(&mut told, &plans(), &[0, 1]);
        let begin = "stage 2 changed; stages base, site are rendered again: ";
        assert!(told.detail.starts_with(begin), "{}", told.detail);
    }

    #[test]
    fn machines_that_come_or_go_change_the_facts() {
        assert!(!moves(&[
            item(PlanAction::Keep, ""),
            item(PlanAction::Orphan, "")
        ]));
        assert!(moves(&[item(PlanAction::Create, "")]));
        assert!(moves(&[item(PlanAction::Terminate, "")]));
    }
}
