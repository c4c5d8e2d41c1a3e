//! Following a job: what it prints as it comes, one end per target, a summary. Used by everything that begins a job.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use aot_host::chain::Chain;
use aot_model::job::Job;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::wire;
use aot_proto::ids::{InstanceName, JobId};
use aot_proto::v1::{self, frame::Body, job_event};
use aot_store::spool::SpoolReader;
use futures::Stream;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::lacks::{Lacks, ReadOutput, stopped};
use super::stopping;
use crate::run::JobUpdate;

/// Events that may wait for one operator. When full, reading of output waits; nothing is lost.
pub(super) const EVENTS: usize = 64;

/// What a job sends to an operator.
pub(super) type JobEvents = Pin<Box<dyn Stream<Item = Result<v1::JobEvent, Status>> + Send>>;
pub(super) type JobSender = mpsc::Sender<Result<v1::JobEvent, Status>>;

pub(super) fn event(body: job_event::Body) -> Result<v1::JobEvent, Status> {
    Ok(v1::JobEvent { body: Some(body) })
}

/// The first event of a job.
pub(super) fn started(job: &Job, instances: &[InstanceName]) -> v1::JobStarted {
    v1::JobStarted {
        job_id: job.id.to_string(),
        instances: instances.iter().map(ToString::to_string).collect(),
        kind: v1::JobKind::from(job.kind).into(),
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
) -> v1::JobEnded {
    v1::JobEnded {
        instance: instance.to_string(),
        outcome: v1::Outcome::from(verdict.outcome).into(),
        exit_code: verdict.exit_code,
        seconds,
        detail: verdict.detail.clone(),
        json,
        truncated: verdict.truncated,
        cut_bytes: verdict.cut_bytes,
    }
}

/// The last event of a job.
pub(super) fn summary(job: JobId, outcomes: impl IntoIterator<Item = Outcome>) -> v1::JobSummary {
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect();
    let all_well = outcomes
        .iter()
        .all(|outcome| *outcome == Outcome::Succeeded);
    v1::JobSummary {
        job_id: job.to_string(),
        exit_code: u32::from(!all_well),
        outcomes: wire::counts(outcomes),
        incomplete: String::new(),
    }
}

/// Follows a job to the end of its last target.
pub(super) struct Follow {
    job: JobId,
    sender: JobSender,
    /// With what it prints.
    output: bool,
    /// Targets without an end.
    open: BTreeSet<InstanceName>,
    /// How the others ended.
    outcomes: BTreeMap<InstanceName, Outcome>,
    /// How many outputs of a target are being read.
    unread: BTreeMap<InstanceName, usize>,
    /// Ends of targets whose output has not been read to its end.
    held: BTreeMap<InstanceName, Verdict>,
    /// How far outputs were read that stopped before their end.
    stopped: BTreeMap<InstanceName, ReadOutput>,
    lacks: Lacks,
}

impl Follow {
    /// `outcomes` are of targets whose end has been sent already, `lacks` what lacked of their outputs.
    pub(super) fn new(
        job: JobId,
        sender: JobSender,
        output: bool,
        open: BTreeSet<InstanceName>,
        outcomes: BTreeMap<InstanceName, Outcome>,
        lacks: Lacks,
    ) -> Self {
        Self {
            job,
            sender,
            output,
            open,
            outcomes,
            unread: BTreeMap::new(),
            held: BTreeMap::new(),
            stopped: BTreeMap::new(),
            lacks,
        }
    }

    /// Until all have ended, nobody reads any more, or the master stops.
    pub(super) async fn run(
        mut self,
        mut updates: mpsc::Receiver<JobUpdate>,
        stop: CancellationToken,
    ) {
        let mut reading = FuturesUnordered::new();
        while !self.open.is_empty() {
            tokio::select! {
                Some((name, read)) = reading.next(), if !reading.is_empty() => self.was_read(name, read).await,
                came = updates.recv() => match came {
                    Some(JobUpdate::Began(name, reader)) if self.output => {
                        *self.unread.entry(name.clone()).or_default() += 1;
                        reading.push(pass_on(name, reader, self.sender.clone()));
                    }
                    Some(JobUpdate::Began(..) | JobUpdate::Answered(_)) => {}
                    Some(JobUpdate::Ended(name, verdict)) => self.has_ended(name, verdict).await,
                    Some(JobUpdate::Note(instance, text)) => self.note(instance, text).await,
                    None => {
                        let behind = Status::resource_exhausted(format!(
                            "too many events to keep up; see aot-master jobs follow {}", self.job
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
        let last = summary(self.job, self.outcomes.into_values());
        let last = self.lacks.mark(last);
        let _ = self
            .sender
            .send(event(job_event::Body::Summary(last)))
            .await; // whoever asked may be gone
    }

    async fn was_read(&mut self, name: InstanceName, read: ReadOutput) {
        if !read.has_end {
            self.stopped.insert(name.clone(), read);
        }
        let left = self.unread.get_mut(&name);
        let more = left.is_some_and(|left| {
            *left -= 1;
            *left > 0
        });
        if !more && let Some(verdict) = self.held.remove(&name) {
            self.send_end(&name, &verdict).await;
        }
    }

    /// An output is read to its end before the end is sent. One that has lost contact is not waited for.
    async fn has_ended(&mut self, name: InstanceName, verdict: Verdict) {
        let reads = self.unread.get(&name).is_some_and(|count| *count > 0);
        if reads && verdict.outcome != Outcome::LostContact {
            self.held.insert(name, verdict);
        } else {
            self.send_end(&name, &verdict).await;
        }
    }

    async fn note(&self, instance: Option<InstanceName>, text: String) {
        let note = v1::JobNotice {
            instance: instance.map(|name| name.to_string()).unwrap_or_default(),
            text,
        };
        let _ = self.sender.send(event(job_event::Body::Notice(note))).await;
    }

    async fn send_end(&mut self, instance: &InstanceName, verdict: &Verdict) {
        self.open.remove(instance);
        self.outcomes.insert(instance.clone(), verdict.outcome);
        let mut end = ended(instance, verdict, verdict.ms as f64 / 1000.0, String::new());
        let read = self.stopped.remove(instance);
        let read = read.filter(|_| verdict.outcome != Outcome::LostContact); // it may still come
        if let Some(lack) = read.and_then(|read| stopped(self.job, verdict, &read)) {
            lack.mark(&mut end);
            self.lacks.add(instance.to_string(), lack);
        }
        let _ = self.sender.send(event(job_event::Body::Ended(end))).await;
    }
}

/// Sends a run's output on until its end; gives the name back, and how far it was read.
pub(super) async fn pass_on(
    name: InstanceName,
    mut reader: SpoolReader,
    sender: JobSender,
) -> (InstanceName, ReadOutput) {
    loop {
        let frames = match reader.next().await {
            Ok(Some(frames)) => frames,
            Ok(None) => return (name, ReadOutput::of(&reader, None)),
            Err(error) => {
                let error = Chain(&error).to_string();
                let notice = job_event::Body::Notice(v1::JobNotice {
                    instance: name.to_string(),
                    text: format!("cannot read the rest of its output: {error}"),
                });
                let _ = sender.send(event(notice)).await; // whoever asked may be gone
                return (name, ReadOutput::of(&reader, Some(error)));
            }
        };
        for frame in frames {
            let (stderr, data) = match frame.body {
                Some(Body::Stdout(data)) => (false, data),
                Some(Body::Stderr(data)) => (true, data),
                _ => continue,
            };
            let output = v1::JobOutput {
                instance: name.to_string(),
                stderr,
                data,
            };
            let body = job_event::Body::Output(output);
            if sender.send(event(body)).await.is_err() {
                return (name, ReadOutput::of(&reader, None));
            }
        }
    }
}
