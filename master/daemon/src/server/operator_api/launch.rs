//! Plan, launch, apply, terminate, cleanup, wait.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use aot_model::batch::BootRecord;
use aot_model::stage::StagePlan;
use aot_model::wire;
use aot_model::world::{Answer, ApplyAsk, AskedBy, Input, LaunchAsk};
use aot_proto::fault;
use aot_proto::ids::{ClusterName, JobId};
use aot_proto::v1::{self, wait_request};
use futures::StreamExt;
use tokio_stream::iter;
use tonic::{Code, Status};

use super::attestation;
use super::events::{Goal, Until};
use super::handed;
use super::notes::note;
use super::problems::problems_of;
use super::{Asker, Events, OperatorApi, refused, stopping, unanswered, unprepared, unput};
use crate::run::{Unanswered, prepare};

impl OperatorApi {
    pub(super) async fn do_launch(
        &self,
        mut request: v1::LaunchRequest,
        asker: Asker,
    ) -> Result<Events, Status> {
        self.has_room()?;
        let handed = request.prepared.take().filter(|_| asker.is_master);
        let text = request.text.clone();
        let read = match &handed {
            Some(handed) => self.read_handed(&request.path, text, handed).await?,
            None => self.read(&request.path, text).await?,
        };
        if !asker.here
            && read.problems.is_empty()
            && let Some(master) = self.ways.elsewhere(&read.spec.name).await?
        {
            return self.launch_elsewhere(request, &read, master, &asker).await;
        }
        let problems = match request.checked {
            true => read.problems.clone(),
            false => self.problems(&read).await?,
        };
        if !problems.is_empty() {
            let code = match read.problems.is_empty() {
                true => Code::FailedPrecondition,
                false => Code::InvalidArgument,
            };
            let about_file = read.problems.len();
            return Err(fault::problems(code, &problems_of(problems, about_file)));
        }
        let stages = match &handed {
            Some(handed) => {
                let stages = handed::stages(&read.spec, handed)?;
                self.bring_bundles(&stages).await?;
                stages
            }
            None => {
                let stages = self.pack(&read.spec).await?;
                self.put_bundles(&stages).await?;
                stages
            }
        };
        let proofs = self.attestation_of(&read.spec).await?;
        let prepare::ClusterText {
            spec,
            notices,
            user_parts,
            ..
        } = read;
        let name = spec.name.clone();
        let ask = LaunchAsk {
            spec,
            file: PathBuf::from(request.path),
            stages,
            prune: request.prune,
            timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms)),
            boot: BootRecord {
                master: self.ways.finder.addresses(&self.info.advertise),
                agent_sha256: self.agents.current().clone(),
                user_parts,
            },
            certificate: proofs.certificate,
            fresh_uuid: fresh_uuid().ok_or_else(|| Status::internal("no random bytes"))?,
            operator: asker.operator,
        };
        let published = self.engine.subscribe();
        let answer = self
            .engine
            .ask(Input::Launch(Box::new(ask)))
            .await
            .map_err(unanswered)?;
        let mut first: Vec<v1::Event> = notices.into_iter().map(|text| note(&name, text)).collect();
        first.extend(attestation::warning_events(&name, proofs.warning));
        first.extend(self.snapshot(&name));
        self.answered(name, answer, published, first, request.detach)
    }

    pub(super) async fn do_apply(
        &self,
        request: v1::ApplyRequest,
        operator: String,
    ) -> Result<Events, Status> {
        self.has_room()?;
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instances = self.targets(&cluster, &request)?;
        let spec = self.engine.read(&cluster, |world| {
            world.clusters.get(&cluster).map(|c| c.spec.clone())
        });
        let (spec, bundles) = (
            spec.ok_or_else(|| Status::not_found("the cluster is gone"))?,
            self.bundles.dir().clone(),
        );
        let work = tokio::task::spawn_blocking(move || prepare::stages(&spec, &bundles));
        let stages = work
            .await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))?;
        self.put_bundles(&stages).await?;
        let ask = ApplyAsk {
            cluster: cluster.clone(),
            instances,
            stages,
            from: request.from.map(|from| from as usize),
            force: request.force,
            failed: request.failed,
            what: apply_in_words(&request),
            operator,
        };
        let published = self.engine.subscribe();
        let answer = self
            .engine
            .ask(Input::Apply(ask))
            .await
            .map_err(unanswered)?;
        if matches!(answer, Answer::Ack) {
            let mut event = note(&cluster, "nothing to do: no stage has failed".to_owned());
            event.event = "launch-ended".to_owned();
            event.last = true;
            return Ok(iter([Ok(event)]).boxed());
        }
        let first = self.snapshot(&cluster);
        self.answered(cluster, answer, published, first, false)
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
    fn answered(
        &self,
        cluster: ClusterName,
        answer: Answer,
        published: tokio::sync::broadcast::Receiver<crate::run::Published>,
        first: Vec<v1::Event>,
        detach: bool,
    ) -> Result<Events, Status> {
        match answer {
            Answer::Started(job) if detach => {
                let mut event = note(&cluster, format!("{job} continues in the background"));
                event.event = "launch-started".to_owned();
                event.last = true;
                Ok(iter([Ok(event)]).boxed())
            }
            Answer::Started(job) | Answer::UpToDate(job) => {
                Ok(self.follow(cluster, Until::Job(job), published, first))
            }
            Answer::Error(error) => Err(refused(&error)),
            _ => Err(Status::internal("unexpected reply from the engine")),
        }
    }

    pub(super) async fn do_terminate(
        &self,
        request: &v1::TerminateRequest,
        operator: String,
    ) -> Result<Events, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instances = self.targets(&cluster, request)?;
        let published = self.engine.subscribe();
        let input = Input::Terminate {
            cluster: cluster.clone(),
            instances: instances.clone(),
            by: AskedBy {
                what: format!("terminate {}", request.target),
                operator,
            },
        };
        let job = started(self.engine.ask(input).await)?;
        let with_machine = self.engine.read(&cluster, |world| {
            let cluster = world.clusters.get(&cluster);
            let has = |name: &aot_proto::ids::InstanceName| {
                cluster
                    .and_then(|c| c.instances.get(name))
                    .is_some_and(|i| i.machine.is_some())
            };
            instances.into_iter().filter(has).collect()
        });
        let until = Until::Terminated {
            instances: with_machine,
            job,
        };
        Ok(self.follow(cluster, until, published, Vec::new()))
    }

    pub(super) async fn do_cleanup(
        &self,
        request: &v1::CleanupRequest,
        operator: String,
    ) -> Result<Events, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let published = self.engine.subscribe();
        let input = Input::Cleanup {
            cluster: cluster.clone(),
            by: AskedBy {
                what: format!("cleanup {cluster}"),
                operator,
            },
        };
        let job = started(self.engine.ask(input).await)?;
        Ok(self.follow(cluster, Until::Cleanup(job), published, Vec::new()))
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

/// The job that was begun, or why none was.
pub(super) fn started(answer: Result<Answer, Unanswered>) -> Result<JobId, Status> {
    match answer.map_err(unanswered)? {
        Answer::Started(job) => Ok(job),
        Answer::Error(error) => Err(refused(&error)),
        _ => Err(Status::internal("unexpected reply from the engine")),
    }
}

/// As it was typed, for the record.
fn apply_in_words(request: &v1::ApplyRequest) -> String {
    let mut words = vec!["apply".to_owned()];
    words.extend(request.target.clone());
    words.extend(request.from.map(|from| format!("--from {from}")));
    words.extend(request.force.then(|| "--force".to_owned()));
    words.extend(request.failed.then(|| "--failed".to_owned()));
    words.join(" ")
}

/// 128 random bits as hex.
fn fresh_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(aot_model::hash::hex(&bytes))
}
