//! A plan as it is told: each instance with the bundle that it has and the one that it will have; and what an apply would do.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aot_model::plan::{PlanAction, PlanItem};
use aot_model::secret;
use aot_model::spec::{ClusterSpec, PoolSpec};
use aot_model::stage::StageState;
use aot_proto::ids::InstanceName;
use aot_proto::v1;
use tonic::Status;

use super::handed::{AskedFile, PoolStages};
use super::others::about;
use super::problems::problems_of;
use super::rendered::RenderedAgain;
use super::{Asker, OperatorApi};

impl OperatorApi {
    /// What this apply would do.
    pub(super) async fn plan_apply(
        &self,
        apply: v1::ApplyRequest,
        asker: &Asker,
    ) -> Result<v1::PlanReply, Status> {
        let cluster = self.cluster(apply.cluster.as_deref())?;
        let elsewhere = match asker.here {
            true => None,
            false => self.ways.elsewhere(&cluster).await?,
        };
        if let Some(master) = elsewhere {
            let operator = self.ways.abroad(&asker.operator);
            let request = v1::PlanRequest {
                apply: Some(apply),
                ..v1::PlanRequest::default()
            };
            let mut other = self.ways.client(master, &operator)?;
            let plan = other.plan(about(&cluster, request)).await?;
            return Ok(plan.into_inner());
        }
        let (spec, stages) = self.recorded(&cluster).await?;
        self.apply_lines(&apply, &spec, &stages).await
    }

    /// What this apply would do after its cluster has taken over a file.
    pub(super) async fn plan_apply_file(
        &self,
        apply: v1::ApplyRequest,
        file: AskedFile,
        request: v1::PlanRequest,
    ) -> Result<v1::PlanReply, Status> {
        let spec = &file.read.spec;
        self.may_take_over(apply.cluster.as_deref(), spec, &request.path)?;
        let mut problems = file.read.problems.clone();
        let of_file = problems.len();
        let secrets = self.secrets_of(spec, request.secrets).await?;
        problems.extend(secrets.problems);
        let plan = match of_file {
            0 => {
                let versions = secret::all_versions(&spec.secrets, &secrets.sealed);
                let stages = self.stages_of(&file, &versions).await?;
                self.apply_lines(&apply, spec, &stages).await?
            }
            _ => v1::PlanReply::default(),
        };
        Ok(v1::PlanReply {
            problems: problems_of(problems, of_file),
            ..plan
        })
    }

    async fn apply_lines(
        &self,
        apply: &v1::ApplyRequest,
        spec: &ClusterSpec,
        stages: &PoolStages,
    ) -> Result<v1::PlanReply, Status> {
        let names = self.targets(&spec.name, apply)?;
        let names: BTreeSet<InstanceName> = names.into_iter().collect();
        let mut items = self.items(spec, stages, false);
        items.retain(|item| names.contains(&item.instance));
        if apply.failed {
            items.retain(|item| item.action == PlanAction::Resume);
        }
        if apply.force || apply.from.is_some() {
            let from = apply.from.unwrap_or(0) as usize;
            items.iter_mut().for_each(|item| run_again(item, from));
        }
        self.explain(spec, stages, &mut items).await?;
        let rendered = self.rendered(spec, stages, &mut items, false);
        Ok(v1::PlanReply {
            lines: self.plan_lines(spec, stages, items, rendered),
            notices: self.notes(),
            build: self.info.build.clone(),
            background: self.info.background,
            ..v1::PlanReply::default()
        })
    }

    pub(super) fn plan_lines(
        &self,
        spec: &ClusterSpec,
        stages: &PoolStages,
        items: Vec<PlanItem>,
        mut rendered: RenderedAgain,
    ) -> Vec<v1::PlanLine> {
        let pools: HashMap<&InstanceName, &PoolSpec> = spec
            .instances()
            .map(|(pool, member)| (&member.name, pool))
            .collect();
        let had = self.had(spec, &items);
        let line = |item: PlanItem| {
            let mut line = v1::PlanLine {
                rendered: rendered.remove(&item.instance).unwrap_or_default(),
                action: v1::PlanAction::from(item.action).into(),
                instance: item.instance.to_string(),
                pool: item.pool.map(|pool| pool.to_string()).unwrap_or_default(),
                detail: item.detail,
                ..v1::PlanLine::default()
            };
            let PlanAction::Rerun { from } = item.action else {
                return line;
            };
            let pool = pools.get(&item.instance);
            let plan = pool.and_then(|pool| stages.get(pool.label())?.get(from));
            if let (Some(pool), Some(plan)) = (pool, plan) {
                line.stage.clone_from(&plan.name);
                line.wants.clone_from(&plan.bundle_sha256);
                line.has = had.get(&item.instance).cloned().unwrap_or_default();
                line.at_once = !pool.update.is_paced();
            }
            line
        };
        items.into_iter().map(line).collect()
    }

    /// The bundle that the first stage to run again has run from, where it has.
    fn had(&self, spec: &ClusterSpec, items: &[PlanItem]) -> BTreeMap<InstanceName, String> {
        self.engine.read(&spec.name, |world| {
            let cluster = world.clusters.get(&spec.name);
            let has = |item: &PlanItem| {
                let PlanAction::Rerun { from } = item.action else {
                    return None;
                };
                let instance = cluster?.instances.get(&item.instance)?;
                let stage = instance.stages.get(from)?;
                let ran = stage.state == StageState::Succeeded;
                ran.then(|| (item.instance.clone(), stage.plan.bundle_sha256.clone()))
            };
            items.iter().filter_map(has).collect()
        })
    }
}

/// Stages run again from there on, though they have succeeded.
fn run_again(item: &mut PlanItem, from: usize) {
    let first = match item.action {
        PlanAction::Keep => from,
        PlanAction::Rerun { from: changed } => changed.min(from),
        _ => return,
    };
    if item.action != (PlanAction::Rerun { from: first }) {
        item.action = PlanAction::Rerun { from: first };
        item.detail = format!("stage {first} is run again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forced_runs_again_from_the_first_that_must() {
        let item = |action| PlanItem {
            instance: "web1".parse().expect("a name"),
            pool: None,
            action,
            detail: "as it was".to_owned(),
        };
        let cases = [
            (PlanAction::Keep, PlanAction::Rerun { from: 1 }),
            (PlanAction::Rerun { from: 0 }, PlanAction::Rerun { from: 0 }),
            (PlanAction::Rerun { from: 2 }, PlanAction::Rerun { from: 1 }),
            (PlanAction::Create, PlanAction::Create),
            (PlanAction::Resume, PlanAction::Resume),
        ];
        for (before, after) in cases {
            let mut found = item(before);
            run_again(&mut found, 1);
            assert_eq!(found.action, after, "{before:?}");
            assert_eq!(found.detail == "as it was", before == after, "{before:?}");
        }
    }
}
