//! One job: followed or looked back at, cancelled, run again.

use std::collections::{BTreeMap, BTreeSet};

use aot_host::chain::Chain;
use aot_model::job::{Job, JobKind};
use aot_model::outcome::{Outcome, Verdict};
use aot_model::run::Run;
use aot_model::task::Task;
use aot_model::world::{Answer, ExecAsk, Input, OpError, TargetState};
use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1::{self, job_event};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::follow::{
    EVENTS, Follow, JobEvents, JobSender, ended, event, pass_on, started, summary,
};
use super::lacks::{Lack, Lacks, ReadOutput};
use super::paced::paced;
use super::select::natural;
use super::{Asker, OperatorApi, refused, unanswered};
use crate::run::{JobUpdate, updates_queue};

type Targets = Vec<(InstanceName, TargetState)>;

impl OperatorApi {
    /// What a job has come to, and, when asked, all that comes until its end.
    pub(super) async fn do_follow(&self, request: v1::FollowRequest) -> Result<JobEvents, Status> {
        let id = job_id(&request.job_id)?;
        let mut known = self.job(id).await?;
        let (listener, updates) = mpsc::channel(updates_queue(known.targets.len()));
        let input = Input::Follow {
            cluster: known.cluster.clone(),
            job: id,
        };
        let answer = match request.live {
            true => self.engine.follow(input, listener).await,
            false => self.engine.ask(input).await,
        };
        let targets = match answer.map_err(unanswered)? {
            Answer::Exec { targets, .. } => targets,
            Answer::Error(OpError::NoJob(_)) => {
                // It may have ended and been forgotten after its record was read: the store has the ends by now.
                known = self.job(id).await?;
                of_record(&known)
            }
            _ => return Err(Status::internal("unexpected reply from the engine")),
        };
        // What instances sent is an archive: nothing to look at.
        let output = request.output && !matches!(known.task.as_deref(), Some(Task::CopyOut(_)));
        Ok(self.show(known, targets, output, request.live.then_some(updates)))
    }

    pub(super) async fn do_cancel(
        &self,
        request: v1::CancelJobRequest,
        operator: String,
    ) -> Result<JobEvents, Status> {
        let id = job_id(&request.job_id)?;
        let known = self.job(id).await?;
        let (listener, updates) = mpsc::channel(updates_queue(known.targets.len()));
        let input = Input::Cancel {
            cluster: known.cluster.clone(),
            job: id,
            grace_ms: request.grace_ms,
            operator,
        };
        let targets = match self
            .engine
            .follow(input, listener)
            .await
            .map_err(unanswered)?
        {
            Answer::Exec { targets, .. } => targets,
            Answer::Error(OpError::NoJob(_)) => {
                return Err(Status::failed_precondition(format!(
                    "{id} has ended; see `aot-master jobs show {id}`"
                )));
            }
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("unexpected reply from the engine")),
        };
        Ok(self.show(known, targets, false, Some(updates)))
    }

    pub(super) async fn do_retry(
        &self,
        request: v1::RetryJobRequest,
        asker: Asker,
    ) -> Result<JobEvents, Status> {
        let id = job_id(&request.job_id)?;
        let old = self.job(id).await?;
        let Some(task) = &old.task else {
            return Err(Status::failed_precondition(cannot_retry(&old)));
        };
        self.can_copy_again(task)?;
        let again = |verdict: &Option<Verdict>| {
            !request.failed
                || verdict
                    .as_ref()
                    .is_some_and(|verdict| verdict.outcome != Outcome::Succeeded)
        };
        let chosen = old.targets.iter().filter(|(_, verdict)| again(verdict));
        let mut instances: Vec<InstanceName> = chosen.map(|(name, _)| name.clone()).collect();
        instances.sort_by_key(|name| natural(name.as_str()));
        if instances.is_empty() {
            return Err(Status::not_found(format!(
                "no target of {id} has failed: nothing to run again"
            )));
        }
        let ask = ExecAsk {
            cluster: old.cluster.clone(),
            instances,
            kind: old.kind,
            task: task.as_ref().clone(),
            pace: old.pace.clone(),
            queue_ms: old.queued_until_ms.saturating_sub(old.started_ms),
            what: old.what.clone(),
            operator: asker.operator,
            request: asker.request,
        };
        self.start_and_follow(ask, request.detach).await
    }

    /// A job's record, by its id as somebody says it.
    pub(super) async fn job_of(&self, id: &str) -> Result<Job, Status> {
        self.job(job_id(id)?).await
    }

    /// The cluster of a job, where there is one with this id.
    pub(super) async fn cluster_of_job(
        &self,
        id: Option<JobId>,
    ) -> Result<Option<ClusterName>, Status> {
        let Some(id) = id else { return Ok(None) };
        let found = self.store.job(id).await;
        let found = found.map_err(|error| Status::unavailable(Chain(&error).to_string()))?;
        Ok(found.map(|job| job.cluster))
    }

    /// A job's record.
    async fn job(&self, id: JobId) -> Result<Job, Status> {
        let found = self.store.job(id).await;
        found
            .map_err(|error| Status::internal(Chain(&error).to_string()))?
            .ok_or_else(|| {
                Status::not_found(format!(
                    "no job {id}; `aot-master jobs` lists those that are kept"
                ))
            })
    }

    fn show(
        &self,
        job: Job,
        targets: Targets,
        output: bool,
        updates: Option<mpsc::Receiver<JobUpdate>>,
    ) -> JobEvents {
        let (sender, stream) = mpsc::channel(EVENTS);
        let show = Show {
            api: self.clone(),
            job,
            sender,
            output,
        };
        self.tasks.spawn(show.run(targets, updates));
        paced(ReceiverStream::new(stream)).boxed()
    }
}

fn job_id(text: &str) -> Result<JobId, Status> {
    text.parse().map_err(|_| {
        Status::invalid_argument(format!(
            "{text:?} is not a job id; `aot-master jobs` lists them"
        ))
    })
}

fn cannot_retry(job: &Job) -> String {
    let way = match job.kind {
        JobKind::Launch => "launch the file again: it continues where it stopped",
        JobKind::Apply => "use `aot-master apply --failed`",
        JobKind::Shell => "open another with `aot-master shell`",
        JobKind::Forward => "begin another with `aot-master forward`",
        JobKind::Start
        | JobKind::Stop
        | JobKind::Reboot
        | JobKind::Terminate
        | JobKind::Cleanup
        | JobKind::Orphans
        | JobKind::Update => "use the command itself again",
        JobKind::Exec | JobKind::Copy => "ask the agents again with `aot-master exec`",
    };
    format!("{} ({}) cannot be run again; {way}", job.id, job.what)
}

/// The targets of a job that is no longer followed: what has no end got none.
fn of_record(job: &Job) -> Targets {
    let state = |verdict: &Option<Verdict>| match verdict {
        Some(verdict) => TargetState::Ended(verdict.clone()),
        None => TargetState::Waiting,
    };
    let targets = job.targets.iter();
    targets
        .map(|(name, verdict)| (name.clone(), state(verdict)))
        .collect()
}

/// Tells what a job has come to, then hands over to whoever follows it.
struct Show {
    api: OperatorApi,
    job: Job,
    sender: JobSender,
    output: bool,
}

impl Show {
    async fn run(self, mut targets: Targets, updates: Option<mpsc::Receiver<JobUpdate>>) {
        targets.sort_by_key(|(name, _)| natural(name.as_str()));
        let names: Vec<InstanceName> = targets.iter().map(|(name, _)| name.clone()).collect();
        let first = started(&self.job, &names);
        if !self.send(job_event::Body::Started(first)).await {
            return;
        }
        let runs = self.runs().await;
        let (mut open, mut outcomes) = (BTreeSet::new(), BTreeMap::new());
        let mut lacks = Lacks::default();
        for (name, state) in targets {
            let TargetState::Ended(verdict) = state else {
                // One that is followed prints from its start when its updates come.
                if updates.is_none() {
                    let lack = self.print(&runs, &name).await;
                    lack.into_iter()
                        .for_each(|it| lacks.add(name.to_string(), it));
                }
                if self.sender.is_closed() {
                    return;
                }
                open.insert(name);
                continue;
            };
            let mut end = ended(&name, &verdict, verdict.ms as f64 / 1000.0, String::new());
            if let Some(lack) = self.print(&runs, &name).await {
                lack.mark(&mut end);
                lacks.add(name.to_string(), lack);
            }
            if !self.send(job_event::Body::Ended(end)).await {
                return;
            }
            outcomes.insert(name, verdict.outcome);
        }
        match updates {
            Some(updates) if !open.is_empty() => {
                let stop = self.api.stop.clone();
                let id = self.job.id;
                let follow = Follow::new(id, self.sender, self.output, open, outcomes, lacks);
                follow.run(updates, stop).await;
            }
            _ => {
                let last = summary(self.job.id, outcomes.into_values());
                self.send(job_event::Body::Summary(lacks.mark(last))).await;
            }
        }
    }

    /// Its runs by instance, in the order in which they began; none when no output is wanted.
    async fn runs(&self) -> BTreeMap<InstanceName, Vec<Run>> {
        let mut by_name: BTreeMap<InstanceName, Vec<Run>> = BTreeMap::new();
        if !self.output || self.job.output_dropped {
            return by_name;
        }
        let id = self.job.id;
        let runs = self.api.store.runs_of(id).await.inspect_err(
            |error| tracing::error!(job = %id, error = %Chain(&error), "cannot read its runs"),
        );
        for run in runs.unwrap_or_default() {
            by_name
                .entry(run.at.instance.clone())
                .or_default()
                .push(run);
        }
        by_name
    }

    /// What is on record of a target's output; says what lacks of it.
    async fn print(
        &self,
        runs: &BTreeMap<InstanceName, Vec<Run>>,
        name: &InstanceName,
    ) -> Option<Lack> {
        let mut all: Option<Lack> = None;
        for run in runs.get(name).into_iter().flatten() {
            let read = match self.api.store.small_spool(run.id).await {
                Ok(small) => {
                    let reader = self.api.outputs.read(run, small);
                    pass_on(name.clone(), reader, self.sender.clone()).await.1
                }
                Err(error) => ReadOutput {
                    error: Some(Chain(&error).to_string()),
                    ..ReadOutput::default()
                },
            };
            if self.sender.is_closed() {
                return None; // nobody reads any more
            }
            let lack = self.api.lack(run, &read);
            all = match all {
                Some(first) => Some(first.and(lack)),
                None => lack,
            };
        }
        all
    }

    async fn send(&self, body: job_event::Body) -> bool {
        self.sender.send(event(body)).await.is_ok()
    }
}
