//! Commands over many instances, and what agents answer by themselves.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1::{self, exec_event, frame::Body};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{OperatorApi, refused, stopping};
use crate::model::cluster::Key;
use crate::model::job::{Exec, Job, JobKind, Outcome, Task, Verdict};
use crate::model::pace::Pace;
use crate::model::world::{Answer, ExecAsk, Input};
use crate::run::{TargetEnded, now_ms};
use crate::session::registry::Command;
use crate::store::spool::Reader;

/// How long a built-in may take unless the operator says otherwise.
const BUILTIN: Duration = Duration::from_secs(10);

/// Events that may wait for one operator. When full, reading of output waits; nothing is lost.
const EVENTS: usize = 64;

/// Largest standard input.
const MAX_STDIN_BYTES: usize = 1 << 20;

pub(super) type ExecEvents = Pin<Box<dyn Stream<Item = Result<v1::ExecEvent, Status>> + Send>>;
type Sender = mpsc::Sender<Result<v1::ExecEvent, Status>>;

fn event(body: exec_event::Body) -> Result<v1::ExecEvent, Status> {
    Ok(v1::ExecEvent { body: Some(body) })
}

impl OperatorApi {
    pub(super) async fn do_exec(
        &self,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let names = self.targets(&cluster, &request.target)?;
        if !request.builtin.is_empty() {
            return self.builtin(cluster, names, request, operator).await;
        }
        if request.argv.is_empty() {
            return Err(Status::invalid_argument("no command was given"));
        }
        if request.stdin.len() > MAX_STDIN_BYTES {
            return Err(Status::invalid_argument(
                "standard input of more than 1 MiB; use `cp` for files",
            ));
        }
        self.command(cluster, names, request, operator).await
    }

    async fn command(
        &self,
        cluster: ClusterName,
        names: Vec<InstanceName>,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        let what = format!("exec {:?} -- {}", request.target, request.argv.join(" "));
        let exec = Exec {
            argv: request.argv,
            env: request.env.into_iter().collect(),
            cwd: request.cwd,
            user: request.user,
            stdin: request.stdin,
            timeout_ms: request.timeout_ms,
            output_cap_bytes: request.output_cap_bytes,
        };
        let pace = Pace::resolve(&request.pace.unwrap_or_default(), names.len())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (ended, endings) = mpsc::channel(2 * names.len() + 1);
        let ask = ExecAsk {
            cluster,
            instances: names.clone(),
            kind: JobKind::Exec,
            task: Task::Command(exec),
            pace,
            queue_ms: request.queue_ms,
            what,
            operator,
        };
        let decided = self
            .engine
            .exec(Input::Exec(ask), ended)
            .await
            .ok_or_else(stopping)?;
        let job = match decided.answer {
            Answer::Exec { job, .. } => job,
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("an answer to another question")),
        };
        let (sender, stream) = mpsc::channel(EVENTS);
        let started = v1::ExecStarted {
            job_id: job.to_string(),
            instances: text(&names),
            ..v1::ExecStarted::default()
        };
        let _ = sender.try_send(event(exec_event::Body::Started(started))); // the channel is empty
        if request.detach {
            return Ok(ReceiverStream::new(stream).boxed());
        }
        let follow = Follow {
            job,
            sender,
            outcomes: BTreeMap::new(),
        };
        self.tasks
            .spawn(follow.run(decided.readers, endings, names.len(), self.stop.clone()));
        Ok(ReceiverStream::new(stream).boxed())
    }

    async fn builtin(
        &self,
        cluster: ClusterName,
        names: Vec<InstanceName>,
        request: v1::ExecRequest,
        operator: String,
    ) -> Result<ExecEvents, Status> {
        let known = ["ping", "facts", "version"];
        if !known.contains(&request.builtin.as_str()) {
            return Err(Status::invalid_argument(format!(
                "no built-in {:?}; there are: {}",
                request.builtin,
                known.join(", ")
            )));
        }
        let wait = if request.timeout_ms > 0 {
            Duration::from_millis(request.timeout_ms)
        } else {
            BUILTIN
        };
        let (sender, stream) = mpsc::channel(EVENTS);
        let call = Builtin {
            api: self.clone(),
            cluster,
            name: request.builtin,
            wait,
            sender,
        };
        self.tasks.spawn(call.run(names, request.target, operator));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

fn text(names: &[InstanceName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn ended(instance: &InstanceName, verdict: &Verdict, seconds: f64, json: String) -> v1::ExecEnded {
    v1::ExecEnded {
        instance: instance.to_string(),
        outcome: verdict.outcome.as_str().to_owned(),
        exit_code: verdict.exit_code.unwrap_or(0),
        has_exit_code: verdict.exit_code.is_some(),
        seconds,
        detail: verdict.detail.clone(),
        json,
        truncated: verdict.truncated,
        cut_bytes: verdict.cut_bytes,
    }
}

fn summary(job: JobId, outcomes: BTreeMap<&'static str, u32>) -> v1::ExecSummary {
    let failed = outcomes
        .keys()
        .any(|outcome| *outcome != Outcome::Succeeded.as_str());
    v1::ExecSummary {
        job_id: job.to_string(),
        exit_code: u32::from(failed),
        outcomes: outcomes
            .into_iter()
            .map(|(word, count)| (word.to_owned(), count))
            .collect(),
    }
}

/// Follows one command: output as it comes, one end a target, a summary.
struct Follow {
    job: JobId,
    sender: Sender,
    outcomes: BTreeMap<&'static str, u32>,
}

impl Follow {
    async fn run(
        mut self,
        readers: Vec<(InstanceName, aot_proto::ids::RunId, Reader)>,
        mut endings: mpsc::Receiver<TargetEnded>,
        mut open: usize,
        stop: tokio_util::sync::CancellationToken,
    ) {
        // Each target's output is read to its end before its end is told. One that has lost contact is not waited for.
        let (lost, _) = watch::channel(std::collections::BTreeSet::<InstanceName>::new());
        let mut reading: FuturesUnordered<_> = readers
            .into_iter()
            .map(|(name, _, reader)| pass_on(name, reader, self.sender.clone(), lost.subscribe()))
            .collect();
        let mut read: std::collections::BTreeSet<InstanceName> = std::collections::BTreeSet::new();
        let mut waiting: BTreeMap<InstanceName, Verdict> = BTreeMap::new();
        let mut unread: usize = reading.len();
        while open > 0 {
            tokio::select! {
                Some(name) = reading.next(), if unread > 0 => {
                    unread -= 1;
                    read.insert(name.clone());
                    if let Some(verdict) = waiting.remove(&name) {
                        open -= 1;
                        self.tell(&name, &verdict).await;
                    }
                }
                Some(TargetEnded { instance, verdict }) = endings.recv() => {
                    let no_output = matches!(verdict.outcome, Outcome::Absent | Outcome::LostContact | Outcome::Rejected);
                    if no_output || read.contains(&instance) {
                        lost.send_modify(|lost| { lost.insert(instance.clone()); });
                        open -= 1;
                        self.tell(&instance, &verdict).await;
                    } else {
                        waiting.insert(instance, verdict);
                    }
                }
                () = self.sender.closed() => return,
                () = stop.cancelled() => {
                    let _ = self.sender.send(Err(stopping())).await;
                    return;
                }
            }
        }
        let last = summary(self.job, std::mem::take(&mut self.outcomes));
        let _ = self
            .sender
            .send(event(exec_event::Body::Summary(last)))
            .await;
    }

    async fn tell(&mut self, instance: &InstanceName, verdict: &Verdict) {
        *self.outcomes.entry(verdict.outcome.as_str()).or_default() += 1;
        let word = ended(instance, verdict, verdict.ms as f64 / 1000.0, String::new());
        let _ = self.sender.send(event(exec_event::Body::Ended(word))).await;
    }
}

/// Sends a run's output on until its end, or until contact is lost; gives the name back.
async fn pass_on(
    name: InstanceName,
    mut reader: Reader,
    sender: Sender,
    mut lost: watch::Receiver<std::collections::BTreeSet<InstanceName>>,
) -> InstanceName {
    loop {
        let frames = tokio::select! {
            frames = reader.next() => frames,
            _ = lost.wait_for(|lost| lost.contains(&name)) => return name,
        };
        let Ok(Some(frames)) = frames else {
            return name;
        };
        for frame in frames {
            let (stderr, data) = match frame.body {
                Some(Body::Stdout(data)) => (false, data),
                Some(Body::Stderr(data)) => (true, data),
                _ => continue,
            };
            let output = v1::ExecOutput {
                instance: name.to_string(),
                stderr,
                data,
            };
            if sender
                .send(event(exec_event::Body::Output(output)))
                .await
                .is_err()
            {
                return name;
            }
        }
    }
}

/// One question that agents answer by themselves.
struct Builtin {
    api: OperatorApi,
    cluster: ClusterName,
    name: String,
    wait: Duration,
    sender: Sender,
}

impl Builtin {
    async fn run(self, names: Vec<InstanceName>, target: String, operator: String) {
        let (started, started_ms) = (Instant::now(), now_ms());
        let mut asked: FuturesUnordered<_> =
            names.iter().map(|name| self.ask(name, started)).collect();
        let mut targets = BTreeMap::new();
        let job = JobId::from_parts(started_ms, rand());
        let first = v1::ExecStarted {
            job_id: job.to_string(),
            instances: text(&names),
            ..v1::ExecStarted::default()
        };
        if self
            .sender
            .send(event(exec_event::Body::Started(first)))
            .await
            .is_err()
        {
            return;
        }
        while let Some((name, verdict, json)) = asked.next().await {
            let seconds = started.elapsed().as_secs_f64();
            let word = ended(&name, &verdict, seconds, json);
            let _ = self.sender.send(event(exec_event::Body::Ended(word))).await; // unread or not, it is recorded
            targets.insert(name, Some(verdict));
        }
        let record = Job {
            ended_ms: Some(now_ms()),
            targets,
            ..Job::new(
                job,
                JobKind::Exec,
                self.cluster.clone(),
                format!("exec {target:?} {}", self.name),
                operator,
                started_ms,
            )
        };
        let last = summary(job, record.outcomes());
        let _ = self
            .sender
            .send(event(exec_event::Body::Summary(last)))
            .await;
        self.api.engine.tell(Input::Record(Box::new(record))).await;
    }

    async fn ask(&self, name: &InstanceName, started: Instant) -> (InstanceName, Verdict, String) {
        let at = Key {
            cluster: self.cluster.clone(),
            instance: name.clone(),
        };
        let (answer, reply) = oneshot::channel();
        let deadline = started + self.wait;
        self.api.wait_for_return(&at, deadline).await;
        let command = Command::Builtin {
            name: self.name.clone(),
            args: Vec::new(),
            answer,
            deadline,
        };
        if !self.api.registry.send_any(&at, command) {
            return (
                name.clone(),
                Verdict::without_run(Outcome::Absent, "its agent is not connected"),
                String::new(),
            );
        }
        let reply = tokio::time::timeout_at(deadline.into(), reply).await;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (verdict, json) = match reply {
            Ok(Ok(answer)) => match answer.result {
                Ok(json) => (
                    Verdict {
                        exit_code: Some(0),
                        ..Verdict::without_run(Outcome::Succeeded, "")
                    },
                    json,
                ),
                Err(error) => (Verdict::without_run(Outcome::Failed, error), String::new()),
            },
            Ok(Err(_)) => (
                Verdict::without_run(Outcome::LostContact, "its session ended before it answered"),
                String::new(),
            ),
            Err(_) => (
                Verdict::without_run(Outcome::TimedOut, "no answer in time"),
                String::new(),
            ),
        };
        (name.clone(), Verdict { ms, ..verdict }, json)
    }
}

impl OperatorApi {
    /// Just after a start of the master, agents that are on their way back are waited for.
    pub(super) async fn wait_for_return(&self, at: &Key, deadline: Instant) {
        let registry = &self.registry;
        let mut arrivals = registry.arrivals();
        let coming = || {
            self.engine.look(|world| {
                let instance = world.instance(at);
                instance.is_some_and(|instance| world.is_coming_back(instance))
            })
        };
        while !registry.has(at) && coming() {
            if tokio::time::timeout_at(deadline.into(), arrivals.changed())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// 80 random bits for an id; when there are none, a fixed number does: the time is in the id as well.
fn rand() -> u128 {
    let mut bytes = [0; 16];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u128::from_be_bytes(bytes) >> 48,
        Err(_) => 0,
    }
}
