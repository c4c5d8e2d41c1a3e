//! Plan, launch, apply, terminate, cleanup, wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_model::batch::BootRecord;
use aot_model::cluster::Cluster;
use aot_model::job::{Job, JobKind};
use aot_model::pace::PacePolicy;
use aot_model::secret;
use aot_model::spec::ClusterSpec;
use aot_model::stage::StagePlan;
use aot_model::wire;
use aot_model::world::{Answer, Input, LaunchAsk, launch_in_words};
use aot_proto::fault;
use aot_proto::ids::ClusterName;
use aot_proto::v1::{self, wait_request};
use futures::StreamExt;
use tokio_stream::iter;
use tonic::{Code, Status};

use super::attestation;
use super::events::{Goal, Until, continues};
use super::handed::FileText;
use super::notes::note;
use super::problems::problems_of;
use super::request::BegunEvents;
use super::{Asker, Events, OperatorApi, refused, unanswered, unput};
use crate::run::prepare;

impl OperatorApi {
    pub(super) async fn do_launch(
        &self,
        mut request: v1::LaunchRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let prepared = request.prepared.take();
        let text = FileText::new(&request.path, &request.text, &request.variables);
        let file = self.asked_file(text, prepared, &asker).await?;
        let read = &file.read;
        if read.problems.is_empty()
            && let Some(master) = self.owner_elsewhere(&file, &asker).await?
        {
            return self.launch_elsewhere(request, read, master, &asker).await;
        }
        let name = read.spec.name.clone();
        let pace = pace(request.update.as_ref())?;
        let what = launch_in_words(Path::new(&request.path));
        let wanted = asker.wants(JobKind::Launch, &name, &what);
        if let Some(job) = self.begun(asker.request, &wanted).await? {
            self.is_same_file(&job, &read.spec)?;
            return Ok(self.joined(&job, request.detach).await);
        }
        self.has_room()?;
        let problems = match request.checked {
            true => read.problems.clone(),
            false => self.problems(read).await?,
        };
        if !problems.is_empty() {
            let code = match read.problems.is_empty() {
                true => Code::FailedPrecondition,
                false => Code::InvalidArgument,
            };
            let about_file = read.problems.len();
            return Err(fault::problems(code, &problems_of(problems, about_file)));
        }
        let secrets = self.secrets_of(&read.spec, request.secrets).await?;
        if !secrets.problems.is_empty() {
            let problems = problems_of(secrets.problems, 0);
            return Err(fault::problems(Code::FailedPrecondition, &problems));
        }
        let versions = secret::all_versions(&read.spec.secrets, &secrets.sealed);
        let stages = self.stages_of(&file, &versions).await?;
        match file.is_handed() {
            true => self.bring_bundles(&stages).await?,
            false => self.put_bundles(&stages).await?,
        }
        let proofs = self.attestation_of(&read.spec).await?;
        let prepare::ClusterText {
            spec,
            notices,
            user_parts,
            ..
        } = file.read;
        let ask = LaunchAsk {
            spec,
            file: PathBuf::from(request.path),
            stages,
            prune: request.prune,
            timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms)),
            pace,
            secrets: secrets.sealed,
            boot: BootRecord {
                master: self.ways.finder.addresses(&self.info.advertise),
                agent_sha256: self.agents.current().clone(),
                user_parts,
            },
            certificate: proofs.certificate,
            fresh_uuid: fresh_uuid().ok_or_else(|| Status::internal("no random bytes"))?,
            operator: asker.operator.clone(),
            request: asker.request,
        };
        let published = self.engine.subscribe();
        let answer = self
            .engine
            .ask(Input::Launch(Box::new(ask)))
            .await
            .map_err(unanswered)?;
        let mut first: Vec<v1::Event> = notices.into_iter().map(|text| note(&name, text)).collect();
        first.extend(attestation::warning_events(&name, proofs.warning));
        if let Answer::Begun(id) = answer {
            let job = self.begun_already(id, &wanted).await?;
            return Ok(self.joined(&job, request.detach).await);
        }
        first.extend(self.snapshot(&name));
        self.answered(name, answer, published, first, request.detach)
    }

    /// Refuses a file that is not the one that this launch is of.
    fn is_same_file(&self, job: &Job, spec: &ClusterSpec) -> Result<(), Status> {
        let is_another = self.engine.read(&spec.name, |world| {
            let cluster = world.clusters.get(&spec.name);
            let of_job = |cluster: &&Cluster| {
                let launch = cluster.launch.as_ref();
                launch.is_some_and(|launch| launch.job == job.id)
            };
            cluster.filter(of_job).is_some_and(|it| it.spec != *spec)
        });
        match is_another {
            true => Err(Status::already_exists(format!(
                "the id of this request is that of {}, a launch of another text of {}: nothing was begun; ask with a new id",
                job.id, job.what
            ))),
            false => Ok(()),
        }
    }

    /// Before anything names them: another master may have to hand them out.
    pub(super) async fn put_bundles(
        &self,
        stages: &BTreeMap<String, Vec<StagePlan>>,
    ) -> Result<(), Status> {
        let plans = stages.values().flatten();
        let all: BTreeSet<&str> = plans.map(|plan| &*plan.bundle_sha256).collect();
        for sha256 in all {
            self.bundles
                .put(sha256)
                .await
                .map_err(|error| unput(&error))?;
        }
        Ok(())
    }

    /// The stream of a job that was started, or why it was not.
    pub(super) fn answered(
        &self,
        cluster: ClusterName,
        answer: Answer,
        published: tokio::sync::broadcast::Receiver<crate::run::Published>,
        first: Vec<v1::Event>,
        detach: bool,
    ) -> Result<BegunEvents, Status> {
        match answer {
            Answer::Started(job) if detach => Ok(BegunEvents {
                job: Some(job),
                events: iter([Ok(continues(&cluster, job))]).boxed(),
            }),
            Answer::Started(job) | Answer::UpToDate(job) => {
                let events = self.follow(cluster, Until::Job(job), published, first);
                let job = Some(job);
                Ok(BegunEvents { job, events })
            }
            Answer::Error(error) => Err(refused(&error)),
            _ => Err(Status::internal("unexpected reply from the engine")),
        }
    }

    pub(super) fn do_wait(&self, request: v1::WaitRequest) -> Result<Events, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instances = self.targets(&cluster, &request)?;
        let goal = match request.goal {
            Some(wait_request::Goal::State(state)) => wire::machine_state(state).map(Goal::State),
            Some(wait_request::Goal::Phase(phase)) => wire::phase(phase).map(Goal::Phase),
            None => None,
        };
        let goal = goal.ok_or_else(|| {
            Status::invalid_argument("this master knows no such state or phase to wait for")
        })?;
        let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
        let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let until = Until::Reached {
            instances,
            goal,
            deadline,
            job: None,
        };
        Ok(self.follow(cluster, until, self.engine.subscribe(), Vec::new()))
    }
}

/// How instances that are ready are changed, as far as the operator says it.
pub(super) fn pace(wire: Option<&v1::UpdatePace>) -> Result<PacePolicy, Status> {
    let read = wire.map(PacePolicy::read).transpose();
    let read = read.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(read.unwrap_or_default())
}

/// 128 random bits as hex.
fn fresh_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(aot_model::hash::hex(&bytes))
}
