//! A file of a cluster that another master has. Its folders lie on this master's host, so this one reads and packs them, and hands
//! over what came of it: small texts in the request, bundles by the place that masters share for what is long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use aot_model::spec::ClusterSpec;
use aot_model::stage::StagePlan;
use aot_proto::v1::prepared::{Bundle, Stages};
use aot_proto::v1::{self, Prepared};
use futures::StreamExt;
use tonic::Status;

use super::others::about;
use super::problems::{problem, problems_of};
use super::{Asker, Events, OperatorApi, stopping, unprepared, unput};
use crate::run::prepare::{self, ClusterText};

/// The stages of each pool, by its label.
pub(super) type PoolStages = BTreeMap<String, Vec<StagePlan>>;

impl OperatorApi {
    /// A file's text, as another master has read what it names.
    pub(super) async fn read_handed(
        &self,
        path: &str,
        text: String,
        prepared: &Prepared,
    ) -> Result<ClusterText, Status> {
        let path = PathBuf::from(path);
        let work = tokio::task::spawn_blocking(move || prepare::parse(&text, &path));
        let read = work.await.map_err(|_| stopping())?;
        let read = read.map_err(|error| unprepared(&error))?;
        Ok(ClusterText {
            user_parts: prepared.user_parts.clone().into_iter().collect(),
            problems: prepared.problems.iter().map(problem).collect(),
            ..read
        })
    }

    /// Brings the bundles of these stages into this master's folder.
    pub(super) async fn bring_bundles(&self, stages: &PoolStages) -> Result<(), Status> {
        let plans = stages.values().flatten();
        let all: BTreeSet<&str> = plans.map(|plan| &*plan.bundle_sha256).collect();
        for sha256 in all {
            let brought = self.bundles.bring(sha256).await;
            if !brought.map_err(|error| unput(&error))? {
                let me = self.ways.finder.me().unwrap_or_default();
                return Err(Status::unavailable(format!(
                    "the cluster is held by the master {me}, which can't be handed the file's bundles: run launch there, or have all masters share a place for what is long (AOT_BLOBS)"
                )));
            }
        }
        Ok(())
    }

    /// Has the master of a cluster launch this file.
    pub(super) async fn launch_elsewhere(
        &self,
        mut request: v1::LaunchRequest,
        read: &ClusterText,
        master: aot_store::fleet::FleetMaster,
        asker: &Asker,
    ) -> Result<Events, Status> {
        let stages = self.pack(&read.spec).await?;
        self.put_bundles(&stages).await?;
        request.prepared = Some(prepared(read, &stages));
        let mut other = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        let events = other.launch(about(&read.spec.name, request)).await?;
        Ok(events.into_inner().boxed())
    }

    /// Has the master of a cluster plan this file. Its bundles are named, not handed over: nothing is run.
    pub(super) async fn plan_elsewhere(
        &self,
        mut request: v1::PlanRequest,
        read: &ClusterText,
        master: aot_store::fleet::FleetMaster,
        asker: &Asker,
    ) -> Result<v1::PlanReply, Status> {
        let stages = match read.problems.is_empty() {
            true => self.pack(&read.spec).await?,
            false => PoolStages::new(),
        };
        request.prepared = Some(prepared(read, &stages));
        let mut other = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        let plan = other.plan(about(&read.spec.name, request)).await?;
        Ok(plan.into_inner())
    }
}

fn prepared(read: &ClusterText, stages: &PoolStages) -> Prepared {
    let bundle = |plan: &StagePlan| Bundle {
        sha256: plan.bundle_sha256.clone(),
        bytes: plan.bundle_bytes,
    };
    let pool = |(label, plans): (&String, &Vec<StagePlan>)| {
        let bundles = plans.iter().map(bundle).collect();
        (label.clone(), Stages { bundles })
    };
    Prepared {
        stages: stages.iter().map(pool).collect(),
        user_parts: read
            .user_parts
            .clone()
            .into_iter()
            .collect::<HashMap<_, _>>(),
        problems: problems_of(read.problems.clone(), read.problems.len()),
    }
}

/// The stages of a file whose bundles another master has packed.
pub(super) fn stages(spec: &ClusterSpec, prepared: &Prepared) -> Result<PoolStages, Status> {
    let mut all = PoolStages::new();
    for pool in &spec.pools {
        let bundles = prepared.stages.get(pool.label());
        let bundles = bundles.map_or(&[][..], |stages| &stages.bundles);
        let are_good = bundles
            .iter()
            .all(|it| aot_host::hash::is_sha256(&it.sha256));
        if bundles.len() != pool.stages.len() || !are_good {
            return Err(Status::invalid_argument(format!(
                "the master that has read this file has not packed the stages of {} as this one reads it: are both of the same version?",
                pool.label()
            )));
        }
        let plan = |(stage, bundle): (_, &Bundle)| {
            prepare::plan(stage, bundle.sha256.clone(), bundle.bytes)
        };
        let plans = pool.stages.iter().zip(bundles).map(plan).collect();
        all.insert(pool.label().to_owned(), plans);
    }
    Ok(all)
}
