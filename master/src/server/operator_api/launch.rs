//! Plan, launch, apply, terminate, cleanup, wait.

use std::path::PathBuf;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::v1;
use futures::StreamExt;
use tokio_stream::iter;
use tonic::Status;

use super::plan::in_words;
use super::watch::{Goal, Until};
use super::{Events, OperatorApi, refused, stopping, unprepared};
use crate::model::cluster::BootRecord;
use crate::model::world::{Answer, ApplyAsk, Input, LaunchAsk};
use crate::run::prepare;

impl OperatorApi {
    pub(super) async fn do_launch(
        &self,
        request: v1::LaunchRequest,
        operator: String,
    ) -> Result<Events, Status> {
        let read = self.read(&request.path, request.text).await?;
        let problems = match request.checked {
            true => read.problems.clone(),
            false => self.problems(&read).await?,
        };
        if !problems.is_empty() {
            return Err(match read.problems.is_empty() {
                true => Status::failed_precondition(in_words(&problems)),
                false => Status::invalid_argument(in_words(&problems)),
            });
        }
        let stages = self.pack(&read.spec).await?;
        let prepare::Read {
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
                master: self.info.advertise.clone(),
                agent_sha256: self.agents.current().clone(),
                user_parts,
            },
            fresh_uuid: fresh_uuid().ok_or_else(|| Status::internal("no random bytes"))?,
            operator,
        };
        let told = self.engine.watch();
        let answer = self
            .engine
            .ask(Input::Launch(Box::new(ask)))
            .await
            .ok_or_else(stopping)?;
        let mut first: Vec<v1::Event> = notices.into_iter().map(|text| note(&name, text)).collect();
        first.extend(self.snapshot(&name));
        self.answered(name, answer, told, first, request.detach)
    }

    pub(super) async fn do_apply(
        &self,
        request: v1::ApplyRequest,
        operator: String,
    ) -> Result<Events, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let instances = self.targets(&cluster, &request)?;
        let spec = self
            .engine
            .look(|world| world.clusters.get(&cluster).map(|c| c.spec.clone()));
        let (spec, bundles) = (
            spec.ok_or_else(|| Status::not_found("the cluster is gone"))?,
            self.bundles.clone(),
        );
        let work = tokio::task::spawn_blocking(move || prepare::stages(&spec, &bundles));
        let stages = work
            .await
            .map_err(|_| stopping())?
            .map_err(|error| unprepared(&error))?;
        let ask = ApplyAsk {
            cluster: cluster.clone(),
            instances,
            stages,
            from: request.has_from.then_some(request.from as usize),
            force: request.force,
            failed: request.failed,
            what: apply_in_words(&request),
            operator,
        };
        let told = self.engine.watch();
        let answer = self
            .engine
            .ask(Input::Apply(ask))
            .await
            .ok_or_else(stopping)?;
        if matches!(answer, Answer::None) {
            let mut event = note(&cluster, "nothing to do: no stage has failed".to_owned());
            event.event = "launch-ended".to_owned();
            event.last = true;
            return Ok(iter([Ok(event)]).boxed());
        }
        let first = self.snapshot(&cluster);
        self.answered(cluster, answer, told, first, false)
    }

    /// The stream of a job that was started, or why it was not.
    fn answered(
        &self,
        cluster: ClusterName,
        answer: Answer,
        told: tokio::sync::broadcast::Receiver<crate::run::Told>,
        first: Vec<v1::Event>,
        detach: bool,
    ) -> Result<Events, Status> {
        match answer {
            Answer::Started(job) if detach => {
                let mut event = note(&cluster, format!("{job} goes on in the background"));
                event.event = "launch-started".to_owned();
                event.last = true;
                Ok(iter([Ok(event)]).boxed())
            }
            Answer::Started(job) | Answer::Nothing(job) => {
                Ok(self.follow(cluster, Until::Job(job), told, first))
            }
            Answer::Error(error) => Err(refused(&error)),
            _ => Err(Status::internal("an answer to another question")),
        }
    }

    pub(super) async fn do_terminate(
        &self,
        request: &v1::TerminateRequest,
    ) -> Result<Events, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let instances = self.targets(&cluster, request)?;
        let told = self.engine.watch();
        let input = Input::Terminate {
            cluster: cluster.clone(),
            instances: instances.clone(),
        };
        if let Answer::Error(error) = self.engine.ask(input).await.ok_or_else(stopping)? {
            return Err(refused(&error));
        }
        let with_machine = self.engine.look(|world| {
            let cluster = world.clusters.get(&cluster);
            let has = |name: &aot_proto::ids::InstanceName| {
                cluster
                    .and_then(|c| c.instances.get(name))
                    .is_some_and(|i| i.machine.is_some())
            };
            instances.into_iter().filter(has).collect()
        });
        let until = Until::Reached {
            instances: with_machine,
            goal: Goal::State("terminated".to_owned()),
            deadline: None,
        };
        Ok(self.follow(cluster, until, told, Vec::new()))
    }

    pub(super) async fn do_cleanup(&self, request: &v1::CleanupRequest) -> Result<Events, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let told = self.engine.watch();
        let input = Input::Cleanup {
            cluster: cluster.clone(),
        };
        match self.engine.ask(input).await.ok_or_else(stopping)? {
            Answer::Error(error) => Err(refused(&error)),
            _ => Ok(self.follow(cluster, Until::Cleanup, told, Vec::new())),
        }
    }

    pub(super) fn do_wait(&self, request: v1::WaitRequest) -> Result<Events, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let instances = self.targets(&cluster, &request)?;
        if !is_state(&request.state) {
            return Err(Status::invalid_argument(format!(
                "{:?} is neither a state nor a phase",
                request.state
            )));
        }
        let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
        let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let until = Until::Reached {
            instances,
            goal: Goal::State(request.state),
            deadline,
        };
        Ok(self.follow(cluster, until, self.engine.watch(), Vec::new()))
    }
}

/// As it was typed, for the record.
fn apply_in_words(request: &v1::ApplyRequest) -> String {
    let mut words = vec!["apply".to_owned()];
    words.extend(Some(request.target.clone()).filter(|target| !target.is_empty()));
    words.extend(request.has_from.then(|| format!("--from {}", request.from)));
    words.extend(request.force.then(|| "--force".to_owned()));
    words.extend(request.failed.then(|| "--failed".to_owned()));
    words.join(" ")
}

fn is_state(word: &str) -> bool {
    let states = [
        "pending",
        "running",
        "stopping",
        "stopped",
        "shutting-down",
        "terminated",
    ];
    states.contains(&word)
        || crate::model::phase::PHASES
            .iter()
            .any(|phase| phase.as_str() == word)
}

fn note(cluster: &ClusterName, text: String) -> v1::Event {
    v1::Event {
        unix_ms: crate::run::now_ms(),
        cluster: cluster.to_string(),
        event: "notice".to_owned(),
        message: text,
        ..v1::Event::default()
    }
}

/// 128 random bits as hex.
fn fresh_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(crate::model::hash::hex(&bytes))
}
