//! Following a job: what it prints as it comes, one end a target, a summary. Used by everything that begins a job.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use aot_proto::ids::{InstanceName, JobId};
use aot_proto::v1::{self, exec_event, frame::Body};
use futures::Stream;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::stopping;
use crate::model::job::{Job, Outcome, Verdict};
use crate::run::JobNews;
use crate::store::spool::Reader;

/// Events that may wait for one operator. When full, reading of output waits; nothing is lost.
pub(super) const EVENTS: usize = 64;

/// What a job tells an operator.
pub(super) type ExecEvents = Pin<Box<dyn Stream<Item = Result<v1::ExecEvent, Status>> + Send>>;
pub(super) type Sender = mpsc::Sender<Result<v1::ExecEvent, Status>>;

pub(super) fn event(body: exec_event::Body) -> Result<v1::ExecEvent, Status> {
    Ok(v1::ExecEvent { body: Some(body) })
}

/// The first word about a job.
pub(super) fn started(job: &Job, instances: &[InstanceName]) -> v1::ExecStarted {
    v1::ExecStarted {
        job_id: job.id.to_string(),
        instances: instances.iter().map(ToString::to_string).collect(),
        kind: job.kind.as_str().to_owned(),
        what: job.what.clone(),
        operator: job.operator.clone(),
        cluster: job.cluster.to_string(),
        started_unix_ms: job.started_ms,
        ended_unix_ms: job.ended_ms.unwrap_or(0),
        output_dropped: job.output_dropped,
    }
}

/// The end of a target, in words of the wire.
pub(super) fn ended(
    instance: &InstanceName,
    verdict: &Verdict,
    seconds: f64,
    json: String,
) -> v1::ExecEnded {
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

/// The last word about a job.
pub(super) fn summary(job: JobId, outcomes: impl IntoIterator<Item = Outcome>) -> v1::ExecSummary {
    let mut counts: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
    let mut exit_code = 0;
    for outcome in outcomes {
        *counts.entry(outcome.as_str().to_owned()).or_default() += 1;
        exit_code |= u32::from(outcome != Outcome::Succeeded);
    }
    v1::ExecSummary {
        job_id: job.to_string(),
        exit_code,
        outcomes: counts,
    }
}

/// Follows a job to the end of its last target.
pub(super) struct Follow {
    job: JobId,
    sender: Sender,
    /// With what it prints.
    output: bool,
    /// Targets without an end.
    open: BTreeSet<InstanceName>,
    /// How the others ended.
    told: BTreeMap<InstanceName, Outcome>,
    /// How many outputs of a target are being read.
    unread: BTreeMap<InstanceName, usize>,
    /// Ends of targets whose output has not been read to its end.
    held: BTreeMap<InstanceName, Verdict>,
}

impl Follow {
    /// `told` are targets whose end has been told already.
    pub(super) fn new(
        job: JobId,
        sender: Sender,
        output: bool,
        open: BTreeSet<InstanceName>,
        told: BTreeMap<InstanceName, Outcome>,
    ) -> Self {
        Self {
            job,
            sender,
            output,
            open,
            told,
            unread: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Until all have ended, nobody reads any more, or the master stops.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<JobNews>, stop: CancellationToken) {
        let mut reading = FuturesUnordered::new();
        while !self.open.is_empty() {
            tokio::select! {
                Some(name) = reading.next(), if !reading.is_empty() => self.was_read(name).await,
                came = news.recv() => match came {
                    Some(JobNews::Began(name, reader)) if self.output => {
                        *self.unread.entry(name.clone()).or_default() += 1;
                        reading.push(pass_on(name, reader, self.sender.clone()));
                    }
                    Some(JobNews::Began(..)) => {}
                    Some(JobNews::Ended(name, verdict)) => self.has_ended(name, verdict).await,
                    Some(JobNews::Note(instance, text)) => self.note(instance, text).await,
                    None => {
                        let behind = Status::resource_exhausted(format!(
                            "too much happened meanwhile; see aot-master jobs follow {}", self.job
                        ));
                        let _ = self.sender.send(Err(behind)).await;
                        return;
                    }
                },
                () = self.sender.closed() => return,
                () = stop.cancelled() => {
                    let _ = self.sender.send(Err(stopping())).await;
                    return;
                }
            }
        }
        let last = summary(self.job, self.told.into_values());
        let _ = self
            .sender
            .send(event(exec_event::Body::Summary(last)))
            .await;
    }

    async fn was_read(&mut self, name: InstanceName) {
        let left = self.unread.get_mut(&name);
        let more = left.is_some_and(|left| {
            *left -= 1;
            *left > 0
        });
        if !more && let Some(verdict) = self.held.remove(&name) {
            self.tell(&name, &verdict).await;
        }
    }

    /// An output is read to its end before the end is told. One that has lost contact is not waited for.
    async fn has_ended(&mut self, name: InstanceName, verdict: Verdict) {
        let reads = self.unread.get(&name).is_some_and(|count| *count > 0);
        if reads && verdict.outcome != Outcome::LostContact {
            self.held.insert(name, verdict);
        } else {
            self.tell(&name, &verdict).await;
        }
    }

    async fn note(&self, instance: Option<InstanceName>, text: String) {
        let note = v1::ExecNote {
            instance: instance.map(|name| name.to_string()).unwrap_or_default(),
            text,
        };
        let _ = self.sender.send(event(exec_event::Body::Note(note))).await;
    }

    async fn tell(&mut self, instance: &InstanceName, verdict: &Verdict) {
        self.open.remove(instance);
        self.told.insert(instance.clone(), verdict.outcome);
        let word = ended(instance, verdict, verdict.ms as f64 / 1000.0, String::new());
        let _ = self.sender.send(event(exec_event::Body::Ended(word))).await;
    }
}

/// Sends a run's output on until its end; gives the name back.
pub(super) async fn pass_on(
    name: InstanceName,
    mut reader: Reader,
    sender: Sender,
) -> InstanceName {
    while let Ok(Some(frames)) = reader.next().await {
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
            let body = exec_event::Body::Output(output);
            if sender.send(event(body)).await.is_err() {
                return name;
            }
        }
    }
    name
}
