//! A file of a cluster that another master has. Its folders lie on this master's host, so this one reads and packs them, and hands
//! over what came of it: small texts in the request, bundles by the place that masters share for what is long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use aot_model::secret::SecretVersions;
use aot_model::spec::ClusterSpec;
use aot_model::stage::StagePlan;
use aot_proto::headers;
use aot_proto::v1::prepared::{Bundle, Stages};
use aot_proto::v1::{self, Prepared, Variables};
use aot_store::fleet::FleetMaster;
use tonic::{Request, Status};

use super::others::about;
use super::problems::{problem, problems_of};
use super::request::BegunEvents;
use super::{Asker, OperatorApi, stopping, unprepared, unput};
use crate::run::prepare::{self, ClusterText};

/// Longest bundle that is put for another master's plan.
const MAX_COMPARED_BYTES: u64 = 64 << 20;

/// The stages of each pool, by its label.
pub(super) type PoolStages = BTreeMap<String, Vec<StagePlan>>;

/// The text of a file that a plan or a launch is about, and what was given beside it.
pub(super) struct FileText {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) variables: Variables,
}

impl FileText {
    pub(super) fn new(path: &str, text: &str, variables: &Option<Variables>) -> Self {
        Self {
            path: PathBuf::from(path),
            text: text.to_owned(),
            variables: variables.clone().unwrap_or_default(),
        }
    }
}

/// A file that a plan or a launch is about, as it was read.
pub(super) struct AskedFile {
    pub(super) read: ClusterText,
    /// What another master says to have read, which has handed the file over.
    handed: Option<Prepared>,
}

impl AskedFile {
    /// Whether another master has it on its host, with its folders.
    pub(super) fn is_handed(&self) -> bool {
        self.handed.is_some()
    }
}

impl OperatorApi {
    /// Reads a file as a plan or a launch begins, on this host or as another master has. What an operator says to have been read is
    /// not believed.
    pub(super) async fn asked_file(
        &self,
        file: FileText,
        prepared: Option<Prepared>,
        asker: &Asker,
    ) -> Result<AskedFile, Status> {
        let handed = prepared.filter(|_| asker.is_master);
        let read = match &handed {
            Some(handed) => self.read_handed(file, handed).await?,
            None => self.read(file).await?,
        };
        Ok(AskedFile { read, handed })
    }

    /// The master that has the file's cluster, if that is another than this one, and the call was not passed on already.
    pub(super) async fn owner_elsewhere(
        &self,
        file: &AskedFile,
        asker: &Asker,
    ) -> Result<Option<FleetMaster>, Status> {
        match asker.here {
            true => Ok(None),
            false => self.ways.elsewhere(&file.read.spec.name).await,
        }
    }

    /// The file's stages, whose bundles are packed here, or were where it was handed over.
    pub(super) async fn stages_of(
        &self,
        file: &AskedFile,
        versions: &SecretVersions,
    ) -> Result<PoolStages, Status> {
        match &file.handed {
            Some(handed) => stages(&file.read.spec, handed, versions),
            None => self.pack(&file.read.spec, versions).await,
        }
    }

    /// A file's text, as another master has read what it names.
    async fn read_handed(
        &self,
        file: FileText,
        prepared: &Prepared,
    ) -> Result<ClusterText, Status> {
        let work = tokio::task::spawn_blocking(move || {
            prepare::parse(&file.text, &file.path, &file.variables)
        });
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
        master: FleetMaster,
        asker: &Asker,
    ) -> Result<BegunEvents, Status> {
        request.prepared = Some(self.hand_over(read).await?);
        let mut other = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        let request = asked_by(asker, about(&read.spec.name, request));
        Ok(BegunEvents::of(other.launch(request).await?))
    }

    /// Has the master of a cluster apply this file.
    pub(super) async fn apply_elsewhere(
        &self,
        mut request: v1::ApplyFileRequest,
        read: &ClusterText,
        master: FleetMaster,
        asker: &Asker,
    ) -> Result<BegunEvents, Status> {
        request.prepared = Some(self.hand_over(read).await?);
        let mut other = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        let request = asked_by(asker, about(&read.spec.name, request));
        Ok(BegunEvents::of(other.apply_file(request).await?))
    }

    /// Puts the bundles of a file where the master of its cluster finds them.
    async fn hand_over(&self, read: &ClusterText) -> Result<Prepared, Status> {
        let stages = self.pack(&read.spec, &no_versions()).await?;
        self.put_bundles(&stages).await?;
        Ok(prepared(read, &stages))
    }

    /// Has the master of a cluster plan this file. Its bundles are named; those that are short are handed over too, where they can be,
    /// as that master says what of them changed.
    pub(super) async fn plan_elsewhere(
        &self,
        mut request: v1::PlanRequest,
        read: &ClusterText,
        master: FleetMaster,
        asker: &Asker,
    ) -> Result<v1::PlanReply, Status> {
        let stages = match read.problems.is_empty() {
            true => self.pack(&read.spec, &no_versions()).await?,
            false => PoolStages::new(),
        };
        if let Err(status) = self.put_bundles(&short(&stages)).await {
            tracing::debug!(
                error = status.message(),
                "what of bundles changed is not said"
            );
        }
        request.prepared = Some(prepared(read, &stages));
        let mut other = self
            .ways
            .client(master, &self.ways.abroad(&asker.operator))?;
        let plan = other.plan(about(&read.spec.name, request)).await?;
        Ok(plan.into_inner())
    }
}

/// With the id that the job is to have.
fn asked_by<T>(asker: &Asker, mut request: Request<T>) -> Request<T> {
    if let Some(id) = asker.request {
        headers::set(request.metadata_mut(), headers::REQUEST, &id.to_string());
    }
    request
}

/// Of stages whose bundles alone are of interest: their keys are the other master's to make, which seals the secrets.
fn no_versions() -> SecretVersions {
    SecretVersions::new()
}

/// The stages whose bundles are put only to be compared.
fn short(stages: &PoolStages) -> PoolStages {
    let is_short = |plan: &&StagePlan| plan.bundle_bytes <= MAX_COMPARED_BYTES;
    let pool = |(label, plans): (&String, &Vec<StagePlan>)| {
        let short = plans.iter().filter(is_short).cloned();
        (label.clone(), short.collect())
    };
    stages.iter().map(pool).collect()
}

fn prepared(read: &ClusterText, stages: &PoolStages) -> Prepared {
    let bundle = |plan: &StagePlan| Bundle {
        sha256: plan.bundle_sha256.clone(),
        bytes: plan.bundle_bytes,
        templates: plan.templates,
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
fn stages(
    spec: &ClusterSpec,
    prepared: &Prepared,
    versions: &SecretVersions,
) -> Result<PoolStages, Status> {
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
            let sha256 = bundle.sha256.clone();
            prepare::plan(stage, sha256, bundle.bytes, bundle.templates, versions)
        };
        let plans = pool.stages.iter().zip(bundles).map(plan).collect();
        all.insert(pool.label().to_owned(), plans);
    }
    Ok(all)
}
