//! One job: followed or looked back at, cancelled, run again.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{InstanceName, JobId};
use aot_proto::v1::{self, exec_event};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::follow::{EVENTS, ExecEvents, Follow, Sender, ended, event, pass_on, started, summary};
use super::select::natural;
use super::{OperatorApi, refused, stopping};
use crate::model::job::{Job, JobKind, Outcome, Run, Task, Verdict};
use crate::model::world::{Answer, ExecAsk, Input, OpError, TargetState};
use crate::run::{JobNews, news_of};

type Targets = Vec<(InstanceName, TargetState)>;

impl OperatorApi {
    /// What a job has come to, and, when asked, all that comes until its end.
    pub(super) async fn do_follow(&self, request: v1::FollowRequest) -> Result<ExecEvents, Status> {
        let id = job_id(&request.job_id)?;
        let known = self.job(id).await?;
        let (told, news) = mpsc::channel(news_of(known.targets.len()));
        let answer = match request.live {
            true => self.engine.follow(Input::Follow { job: id }, told).await,
            false => self.engine.ask(Input::Follow { job: id }).await,
        };
        let targets = match answer.ok_or_else(stopping)? {
            Answer::Exec { targets, .. } => targets,
            Answer::Error(OpError::NoJob(_)) => of_record(&known),
            _ => return Err(Status::internal("an answer to another question")),
        };
        // What instances sent is an archive: nothing to look at.
        let output = request.output && !matches!(known.task.as_deref(), Some(Task::CopyOut(_)));
        Ok(self.show(known, targets, output, request.live.then_some(news)))
    }

    pub(super) async fn do_cancel(
        &self,
        request: v1::CancelJobRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        let id = job_id(&request.job_id)?;
        let known = self.job(id).await?;
        let (told, news) = mpsc::channel(news_of(known.targets.len()));
        let input = Input::Cancel {
            job: id,
            grace_ms: request.grace_ms,
            operator,
        };
        let targets = match self.engine.follow(input, told).await.ok_or_else(stopping)? {
            Answer::Exec { targets, .. } => targets,
            Answer::Error(OpError::NoJob(_)) => {
                return Err(Status::failed_precondition(format!(
                    "{id} is over; see it with `aot-master jobs show {id}`"
                )));
            }
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("an answer to another question")),
        };
        Ok(self.show(known, targets, false, Some(news)))
    }

    pub(super) async fn do_retry(
        &self,
        request: v1::RetryJobRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
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
                "no target of {id} has failed: there is nothing to run again"
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
            operator,
        };
        self.start_and_follow(ask, request.detach).await
    }

    /// A job's record.
    async fn job(&self, id: JobId) -> Result<Job, Status> {
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || store.job(id));
        found
            .await
            .map_err(|_| stopping())?
            .map_err(|error| Status::internal(error.to_string()))?
            .ok_or_else(|| {
                Status::not_found(format!(
                    "there is no job {id}; `aot-master jobs` lists those that are kept"
                ))
            })
    }

    fn show(
        &self,
        job: Job,
        targets: Targets,
        output: bool,
        news: Option<mpsc::Receiver<JobNews>>,
    ) -> ExecEvents {
        let (sender, stream) = mpsc::channel(EVENTS);
        let show = Show {
            api: self.clone(),
            job,
            sender,
            output,
        };
        self.tasks.spawn(show.run(targets, news));
        ReceiverStream::new(stream).boxed()
    }
}

fn job_id(text: &str) -> Result<JobId, Status> {
    text.parse().map_err(|_| {
        Status::invalid_argument(format!(
            "{text:?} is no job id; `aot-master jobs` lists them"
        ))
    })
}

fn cannot_retry(job: &Job) -> String {
    let way = match job.kind {
        JobKind::Launch => "launch the file again: it goes on where it stopped",
        JobKind::Apply => "use `aot-master apply --failed`",
        JobKind::Shell => "open another with `aot-master shell`",
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
    sender: Sender,
    output: bool,
}

impl Show {
    async fn run(self, mut targets: Targets, news: Option<mpsc::Receiver<JobNews>>) {
        targets.sort_by_key(|(name, _)| natural(name.as_str()));
        let names: Vec<InstanceName> = targets.iter().map(|(name, _)| name.clone()).collect();
        let first = started(&self.job, &names);
        if !self.send(exec_event::Body::Started(first)).await {
            return;
        }
        let runs = self.runs().await;
        let (mut open, mut told) = (BTreeSet::new(), BTreeMap::new());
        for (name, state) in targets {
            let TargetState::Ended(verdict) = state else {
                // One that is followed prints from its start when its news come.
                if news.is_none() && !self.print(&runs, &name).await {
                    return;
                }
                open.insert(name);
                continue;
            };
            let word = ended(&name, &verdict, verdict.ms as f64 / 1000.0, String::new());
            let went =
                self.print(&runs, &name).await && self.send(exec_event::Body::Ended(word)).await;
            if !went {
                return;
            }
            told.insert(name, verdict.outcome);
        }
        match news {
            Some(news) if !open.is_empty() => {
                let stop = self.api.stop.clone();
                let follow = Follow::new(self.job.id, self.sender, self.output, open, told);
                follow.run(news, stop).await;
            }
            _ => {
                let last = summary(self.job.id, told.into_values());
                self.send(exec_event::Body::Summary(last)).await;
            }
        }
    }

    /// Its runs by instance, in the order in which they began; none when no output is wanted.
    async fn runs(&self) -> BTreeMap<InstanceName, Vec<Run>> {
        let mut by_name: BTreeMap<InstanceName, Vec<Run>> = BTreeMap::new();
        if !self.output || self.job.output_dropped {
            return by_name;
        }
        let (store, id) = (self.api.store.clone(), self.job.id);
        let runs = tokio::task::spawn_blocking(move || store.runs_of(id)).await;
        let runs = runs.ok().and_then(|read| {
            read.inspect_err(|error| tracing::error!(job = %id, %error, "cannot read its runs"))
                .ok()
        });
        for run in runs.unwrap_or_default() {
            by_name
                .entry(run.at.instance.clone())
                .or_default()
                .push(run);
        }
        by_name
    }

    /// What is on record of a target's output. `false` when nobody reads any more.
    async fn print(&self, runs: &BTreeMap<InstanceName, Vec<Run>>, name: &InstanceName) -> bool {
        for run in runs.get(name).into_iter().flatten() {
            let (store, id) = (self.api.store.clone(), run.id);
            let small = tokio::task::spawn_blocking(move || store.small_spool(id)).await;
            let small = small.ok().and_then(Result::ok).flatten();
            let reader = self.api.spools.read(run.id, small, false);
            pass_on(name.clone(), reader, self.sender.clone()).await;
        }
        !self.sender.is_closed()
    }

    async fn send(&self, body: exec_event::Body) -> bool {
        self.sender.send(event(body)).await.is_ok()
    }
}
