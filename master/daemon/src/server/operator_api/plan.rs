//! What a launch would do and what stands in its way: asked by `plan`, and by `launch` before anything is made.

use std::collections::BTreeMap;
use std::path::Path;

use aot_model::machine::ClusterRef;
use aot_model::machine_rights::{MachineRight, machine_rights};
use aot_model::plan::{self, Have, PlanItem};
use aot_model::prerequisites::Prerequisites;
use aot_model::secret::{self, SecretVersions};
use aot_model::spec::ClusterSpec;
use aot_model::stage::{StagePlan, StageState};
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_provider::{Problem, Thing, ThingAction, ThingKind};
use tonic::Status;

use super::attestation::AttestationSetup;
use super::handed::{FileText, PoolStages};
use super::problems::problems_of;
use super::{Asker, OperatorApi, stopping, unprepared, unseen};
use crate::run::ask::Checks;
use crate::run::prepare::{self, ClusterText};

impl OperatorApi {
    pub(super) async fn read(&self, file: FileText) -> Result<ClusterText, Status> {
        let work = tokio::task::spawn_blocking(move || {
            prepare::read(&file.text, &file.path, &file.variables)
        });
        work.await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))
    }

    /// Packs the file's bundles; gives the stages by pool label.
    pub(super) async fn pack(
        &self,
        spec: &ClusterSpec,
        versions: &SecretVersions,
    ) -> Result<BTreeMap<String, Vec<StagePlan>>, Status> {
        let (spec, bundles) = (spec.clone(), self.bundles.dir().clone());
        let versions = versions.clone();
        let work = tokio::task::spawn_blocking(move || prepare::stages(&spec, &bundles, &versions));
        work.await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))
    }

    pub(super) async fn do_plan(
        &self,
        mut request: v1::PlanRequest,
        asker: Asker,
    ) -> Result<v1::PlanReply, Status> {
        if request.text.is_empty()
            && let Some(apply) = request.apply.take()
        {
            return self.plan_apply(apply, &asker).await;
        }
        let prepared = request.prepared.take();
        let text = FileText::new(&request.path, &request.text, &request.variables);
        let file = self.asked_file(text, prepared, &asker).await?;
        let read = &file.read;
        if let Some(master) = self.owner_elsewhere(&file, &asker).await? {
            return self.plan_elsewhere(request, read, master, &asker).await;
        }
        if let Some(apply) = request.apply.take() {
            return self.plan_apply_file(apply, file, request).await;
        }
        let (mut problems, things) = self.preflight(read, !request.without_things).await?;
        let attestation = self.attestation_of(&read.spec).await?;
        problems.extend(attestation.problems);
        let secrets = self.secrets_of(&read.spec, request.secrets).await?;
        problems.extend(secrets.problems);
        let lines = match read.problems.is_empty() {
            true => {
                let versions = secret::all_versions(&read.spec.secrets, &secrets.sealed);
                let stages = self.stages_of(&file, &versions).await?;
                let mut items = self.items(&read.spec, &stages, request.prune);
                self.explain(&read.spec, &stages, &mut items).await?;
                let rendered = self.rendered(&read.spec, &stages, &mut items, true);
                self.plan_lines(&read.spec, &stages, items, rendered)
            }
            false => Vec::<v1::PlanLine>::new(), // without its bundles nobody knows what would run
        };
        let is_outlined = !request.without_things && read.problems.is_empty();
        let rights = machine_rights(&read.spec).into_iter();
        let rights = rights.filter(|_| is_outlined).map(right);
        let mut notices = self.notes();
        notices.extend(attestation.warning);
        notices.extend(self.other_aws_settings(&read.spec, &request.aws_settings));
        Ok(v1::PlanReply {
            other_file: self.other_file(&read.spec.name, Path::new(&request.path), &lines),
            notices,
            lines,
            things: things.into_iter().chain(rights).map(thing).collect(),
            problems: problems_of(problems, read.problems.len()),
            build: self.info.build.clone(),
            background: self.info.background,
        })
    }

    pub(super) fn items(
        &self,
        spec: &ClusterSpec,
        stages: &PoolStages,
        prune: bool,
    ) -> Vec<PlanItem> {
        let bundles = spec
            .instances()
            .map(|(pool, member)| {
                let plans = stages.get(pool.label()).map_or(&[][..], Vec::as_slice);
                let keys = plans.iter().map(|plan| plan.key.clone()).collect();
                (member.name.clone(), keys)
            })
            .collect();
        plan::plan(spec, &self.have(&spec.name), &bundles, prune)
    }

    /// All that stands in the way of a launch.
    pub(super) async fn problems(&self, read: &ClusterText) -> Result<Vec<Problem>, Status> {
        let mut problems = self.preflight(read, false).await?.0;
        problems.extend(self.attestation_of(&read.spec).await?.problems);
        Ok(problems)
    }

    /// What the machines that a launch of this file makes must prove.
    pub(super) async fn attestation_of(
        &self,
        spec: &ClusterSpec,
    ) -> Result<AttestationSetup, Status> {
        let machines = self.missing(spec).values().sum();
        self.attestation(spec, machines).await
    }

    /// What stands in the way, and, when asked for, what would be made besides machines.
    async fn preflight(
        &self,
        read: &ClusterText,
        outline: bool,
    ) -> Result<(Vec<Problem>, Vec<Thing>), Status> {
        let spec = &read.spec;
        let (cluster, known) = self.known(&spec.name);
        let checks = Checks {
            spec: spec.clone(),
            cluster,
            known,
            missing: self.missing(spec),
            advertise: self.ways.finder.addresses(&self.info.advertise),
            user_parts: read.user_parts.clone(),
            agents: self.agents.current().clone(),
        };
        // What the file itself lacks is enough to make nothing.
        let outline = outline && read.problems.is_empty();
        let (found, things) = self
            .lookups
            .checks(checks, outline)
            .await
            .map_err(|error| unseen(&error))?;
        let mut problems = read.problems.clone();
        problems.extend(found);
        Ok((problems, things))
    }

    fn known(&self, cluster: &ClusterName) -> (Option<ClusterRef>, Prerequisites) {
        self.engine.read(cluster, |world| {
            let found = world.clusters.get(cluster);
            let prerequisites = found.map(|c| c.prerequisites.clone()).unwrap_or_default();
            (found.map(|c| c.reference()), prerequisites)
        })
    }

    /// How many machines each pool of the file lacks; pools that lack none are left out.
    fn missing(&self, spec: &ClusterSpec) -> BTreeMap<String, usize> {
        self.engine.read(&spec.name, |world| {
            let cluster = world.clusters.get(&spec.name);
            let has = |name: &aot_proto::ids::InstanceName| {
                let instance = cluster.and_then(|c| c.instances.get(name));
                instance.is_some_and(|i| i.has_machine())
            };
            let count = |pool: &aot_model::spec::PoolSpec| {
                let missing = pool.members.iter().filter(|member| !has(&member.name));
                (pool.label().to_owned(), missing.count())
            };
            let counts = spec.pools.iter().map(count);
            counts.filter(|(_, count)| *count > 0).collect()
        })
    }

    fn have(&self, cluster: &ClusterName) -> Vec<Have> {
        self.engine.read(cluster, |world| {
            let Some(cluster) = world.clusters.get(cluster) else {
                return Vec::new();
            };
            let have = |i: &aot_model::instance::Instance| Have {
                name: i.name.clone(),
                machine: i.has_machine(),
                phase: i.phase.to_string(),
                stages_done: i
                    .stages
                    .iter()
                    .take_while(|stage| stage.state == StageState::Succeeded)
                    .map(|stage| stage.plan.key.clone())
                    .collect(),
                interrupted: !i.phase.is_at_rest(),
            };
            cluster.instances.values().map(have).collect()
        })
    }
}

/// What nobody here can see: whether the role allows it.
fn right(right: MachineRight) -> Thing {
    Thing {
        action: ThingAction::Keep,
        kind: ThingKind::InstanceProfile,
        name: right.profile,
        detail: right.needs,
    }
}

fn thing(thing: Thing) -> v1::PlanThing {
    v1::PlanThing {
        action: thing.action.into(),
        kind: thing.kind.into(),
        name: thing.name,
        detail: thing.detail,
    }
}
