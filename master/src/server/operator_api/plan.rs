//! What a launch would do and what stands in its way: asked by `plan`, and by `launch` before anything is made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::v1;
use tonic::Status;

use super::{OperatorApi, stopping, unprepared};
use crate::model::cluster::{StagePlan, StageState};
use crate::model::file::ClusterSpec;
use crate::model::ground::Ground;
use crate::model::machine::ClusterRef;
use crate::model::plan::{self, Have, PlanItem};
use crate::provider::{Ask, Problem, Provider, Thing};
use crate::run::prepare::{self, Read};

/// How long a provider has for all its checks.
const CHECKS: Duration = Duration::from_secs(120);

impl OperatorApi {
    pub(super) async fn read(&self, path: &str, text: String) -> Result<Read, Status> {
        let path = PathBuf::from(path);
        let work = tokio::task::spawn_blocking(move || prepare::read(&text, &path));
        work.await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))
    }

    /// Packs the file's bundles; gives the stages by pool label.
    pub(super) async fn pack(
        &self,
        spec: &ClusterSpec,
    ) -> Result<BTreeMap<String, Vec<StagePlan>>, Status> {
        let (spec, bundles) = (spec.clone(), self.bundles.clone());
        let work = tokio::task::spawn_blocking(move || prepare::stages(&spec, &bundles));
        work.await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))
    }

    pub(super) async fn do_plan(&self, request: v1::PlanRequest) -> Result<v1::PlanReply, Status> {
        let read = self.read(&request.path, request.text).await?;
        let (problems, things) = self.look(&read, !request.without_things).await?;
        let lines = match read.problems.is_empty() {
            true => self.lines(&read.spec, request.prune).await?,
            false => Vec::new(), // without its bundles nobody knows what would run
        };
        Ok(v1::PlanReply {
            lines,
            things: things.into_iter().map(thing).collect(),
            problems: problems
                .into_iter()
                .enumerate()
                .map(|(at, it)| problem(it, at < read.problems.len()))
                .collect(),
        })
    }

    async fn lines(&self, spec: &ClusterSpec, prune: bool) -> Result<Vec<v1::PlanLine>, Status> {
        let stages = self.pack(spec).await?;
        let bundles = spec
            .instances()
            .map(|(pool, member)| {
                let plans = stages.get(pool.label()).map_or(&[][..], Vec::as_slice);
                let keys = plans.iter().map(|plan| plan.key.clone()).collect();
                (member.name.clone(), keys)
            })
            .collect();
        let items = plan::plan(spec, &self.have(&spec.name), &bundles, prune);
        Ok(items.into_iter().map(line).collect())
    }

    /// All that stands in the way of a launch.
    pub(super) async fn problems(&self, read: &Read) -> Result<Vec<Problem>, Status> {
        Ok(self.look(read, false).await?.0)
    }

    /// What stands in the way, and, when asked for, what would be made besides machines.
    async fn look(&self, read: &Read, outline: bool) -> Result<(Vec<Problem>, Vec<Thing>), Status> {
        let spec = &read.spec;
        let provider = self.providers.get(spec.provider, spec.region.as_deref());
        let provider = provider
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (cluster, known) = self.known(&spec.name);
        let missing = self.missing(spec);
        let ask = Ask {
            spec,
            cluster: cluster.as_ref(),
            known: &known,
            missing: &missing,
            advertise: &self.info.advertise,
            user_parts: &read.user_parts,
        };
        let checks = async {
            let mut problems = read.problems.clone();
            problems.extend(provider.preflight(&ask).await);
            let things = match outline && problems.is_empty() {
                true => outlined(&*provider, &ask, &mut problems).await,
                false => Vec::new(),
            };
            (problems, things)
        };
        let done = tokio::time::timeout(CHECKS, checks).await;
        done.map_err(|_| Status::unavailable("the provider does not answer"))
    }

    fn known(&self, cluster: &ClusterName) -> (Option<ClusterRef>, Ground) {
        self.engine.look(|world| {
            let found = world.clusters.get(cluster);
            let ground = found.map(|c| c.ground.clone()).unwrap_or_default();
            (found.map(|c| c.reference()), ground)
        })
    }

    /// How many machines each pool of the file lacks; pools that lack none are left out.
    fn missing(&self, spec: &ClusterSpec) -> BTreeMap<String, usize> {
        self.engine.look(|world| {
            let cluster = world.clusters.get(&spec.name);
            let has = |name: &aot_proto::ids::InstanceName| {
                let instance = cluster.and_then(|c| c.instances.get(name));
                instance.is_some_and(|i| i.has_machine())
            };
            let count = |pool: &crate::model::file::PoolSpec| {
                let missing = pool.members.iter().filter(|member| !has(&member.name));
                (pool.label().to_owned(), missing.count())
            };
            let counts = spec.pools.iter().map(count);
            counts.filter(|(_, count)| *count > 0).collect()
        })
    }

    fn have(&self, cluster: &ClusterName) -> Vec<Have> {
        self.engine.look(|world| {
            let Some(cluster) = world.clusters.get(cluster) else {
                return Vec::new();
            };
            let have = |i: &crate::model::cluster::Instance| Have {
                name: i.name.clone(),
                machine: i.has_machine(),
                phase: i.phase.to_string(),
                stages_done: i
                    .stages
                    .iter()
                    .take_while(|stage| stage.state == StageState::Succeeded)
                    .map(|stage| stage.plan.key.clone())
                    .collect(),
                interrupted: !i.phase.is_settled(),
            };
            cluster.instances.values().map(have).collect()
        })
    }
}

async fn outlined(
    provider: &dyn Provider,
    ask: &Ask<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Thing> {
    match provider.outline(ask).await {
        Ok(things) => things,
        Err(error) => {
            problems.push(Problem {
                message: format!("cannot see what there is besides machines: {error}"),
                hint: "the same calls are made by launch".to_owned(),
            });
            Vec::new()
        }
    }
}

/// Every problem with its way out, for one message.
pub(super) fn in_words(problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}\n  hint: {}", problem.message, problem.hint);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(item: PlanItem) -> v1::PlanLine {
    v1::PlanLine {
        action: item.action.as_str().to_owned(),
        instance: item.instance.to_string(),
        pool: item.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        detail: item.detail,
    }
}

fn thing(thing: Thing) -> v1::PlanThing {
    v1::PlanThing {
        action: thing.action.to_owned(),
        kind: thing.kind.to_owned(),
        name: thing.name,
        detail: thing.detail,
    }
}

/// `file`: the first ones are about the file and what it names.
fn problem(problem: Problem, file: bool) -> v1::Problem {
    v1::Problem {
        file,
        message: problem.message,
        hint: problem.hint,
    }
}
