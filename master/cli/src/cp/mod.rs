//! `cp`: copies files to or from instances.

mod incoming;
mod operands;
mod receive;
mod remains;
mod upload;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aot_proto::v1::copy_request::Way as Wire;
use aot_proto::v1::job_event::Body;
use aot_proto::v1::{
    CancelJobRequest, CopyIn, CopyOut, CopyRequest, JobEnded, JobEvent, JobOutput, JobStarted,
    JobSummary, Outcome, Pace,
};
use futures::{Stream, StreamExt};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::Ctx;
use super::again::may_come;
use super::args::CpArgs;
use super::connect::{Start, connect};
use super::dial::{Client, OfJob};
use super::error::{Error, Exit};
use super::follow_cluster::{ctrl_c, lost};
use super::interrupt::Interrupt;
use crate::view::{
    CopyView, bytes_text, copy_json, counts_of, job_summary, outcome_counts, took_text,
};
use operands::{CopyFrom, In, Way};
use receive::Receive;

/// How often the bars are brought up.
const REDRAW: Duration = Duration::from_millis(200);
/// Instances that send at a time, unless the operator says otherwise: all is written to one disk.
const SENDERS: &str = "32";
/// What an instance says beside its files is kept up to here; its last words count most.
const MAX_STDERR_BYTES: usize = 64 << 10;

/// `aot-master cp SRC... DST`.
///
/// # Errors
/// When the words are bad, a file here can't be read or written, nothing matches, or the master can't be asked.
pub(crate) async fn cp(ctx: &mut Ctx<'_>, args: CpArgs) -> Result<Exit, Error> {
    let way = operands::read(&args.paths)?;
    let mut client = connect(ctx, Start::WithState).await?;
    let request = CopyRequest {
        cluster: ctx.cluster.clone(),
        what: format!("cp {}", args.paths.join(" ")),
        exclude: args.narrow.exclude(),
        limit: args.narrow.limit(),
        ..CopyRequest::default()
    };
    let pace = |default: Option<&str>| {
        Some(Pace {
            concurrency: args.concurrency.clone().or(default.map(str::to_owned)),
            ..Pace::default()
        })
    };
    match way {
        Way::In(copy) => {
            let request = CopyRequest {
                pace: pace(None),
                ..request
            };
            to_many(ctx, &mut client, request, copy).await
        }
        Way::Out(copy) => {
            let request = CopyRequest {
                pace: pace(Some(SENDERS)),
                ..request
            };
            from_many(ctx, &mut client, request, copy).await
        }
    }
}

async fn to_many(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    request: CopyRequest,
    copy: In,
) -> Result<Exit, Error> {
    let mut view = CopyView::new(ctx.is_live(), false);
    let sent = Arc::new(AtomicU64::new(0));
    let uploaded = {
        let uploading = upload::upload(client, copy.sources, sent.clone(), ctrl_c());
        tokio::pin!(uploading);
        let mut tick = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                uploaded = &mut uploading => break uploaded,
                _ = tick.tick() => view.uploading(sent.load(Ordering::Relaxed)),
            }
        }
    };
    view.uploaded();
    let uploaded = uploaded?;
    for note in &uploaded.notes {
        ctx.message(note)?;
    }
    let request = CopyRequest {
        target: copy.target,
        way: Some(Wire::In(CopyIn {
            sha256: uploaded.reply.sha256,
            bytes: uploaded.reply.bytes,
            path: copy.path,
            into: copy.into,
            names: copy.names,
        })),
        ..request
    };
    let events = client.copy(request).await?.into_inner();
    let job = CopyJob {
        size: uploaded.reply.bytes,
        ..CopyJob::default()
    };
    let interrupt = Interrupt::of_process(ctx.env.interactive);
    let followed = follow(ctx, Some(client.clone()), view, job, events, interrupt);
    followed.await.0
}

async fn from_many(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    request: CopyRequest,
    copy: CopyFrom,
) -> Result<Exit, Error> {
    let request = CopyRequest {
        target: copy.target.clone(),
        way: Some(Wire::Out(CopyOut {
            paths: copy.paths.clone(),
        })),
        ..request
    };
    let events = client.copy(request).await?.into_inner();
    let view = CopyView::new(ctx.is_live(), true);
    let job = CopyJob {
        out: Some(copy),
        ..CopyJob::default()
    };
    // It is nothing without us: there is nothing to ask.
    let interrupt = Interrupt::of_process(false);
    let (ended, job) = follow(ctx, None, view, job, events, interrupt).await;
    // Nobody takes what they send any more.
    if let Err(Error::Interrupted { .. } | Error::Place(_)) = &ended
        && !job.is_empty()
    {
        let cancel = CancelJobRequest {
            job_id: job,
            grace_ms: 0,
        };
        // Whether it worked is to be seen in the jobs; the way out is not held up.
        let _ =
            tokio::time::timeout(Duration::from_secs(5), client.cancel_job(cancel.of_job())).await;
    }
    ended
}

/// What is known of a copy while it is followed.
#[derive(Default)]
pub(super) struct CopyJob {
    id: String,
    /// Of the archive that every instance gets.
    size: u64,
    /// A copy from instances, and where it goes.
    out: Option<CopyFrom>,
    receive: Option<Receive>,
    said: BTreeMap<String, Vec<u8>>,
    ends: BTreeMap<String, JobEnded>,
    /// Of the archives that came to their end.
    carried: u64,
    /// When the targets were known.
    begun: Option<Instant>,
}

/// Shows a copy until its summary, or until it is left alone; also says which job it is. `client` is for its cancellation:
/// without one Ctrl-C leaves at once.
pub(super) async fn follow(
    ctx: &mut Ctx<'_>,
    client: Option<Client>,
    mut view: CopyView,
    mut job: CopyJob,
    events: impl Stream<Item = Result<JobEvent, Status>>,
    interrupt: Interrupt,
) -> (Result<Exit, Error>, String) {
    let driven = drive(ctx, client, &mut view, &mut job, events, interrupt).await;
    view.close();
    // What did not come to its end is removed.
    job.receive = None;
    let exit = driven.and_then(|()| job.close(ctx));
    (exit, job.id)
}

async fn drive(
    ctx: &mut Ctx<'_>,
    mut client: Option<Client>,
    view: &mut CopyView,
    job: &mut CopyJob,
    events: impl Stream<Item = Result<JobEvent, Status>>,
    mut interrupt: Interrupt,
) -> Result<(), Error> {
    futures::pin_mut!(events);
    let mut tick = tokio::time::interval(REDRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = interrupt.pressed() => {
                view.clear();
                job.interrupted(ctx, client.as_mut(), &mut interrupt).await?;
                continue;
            }
            _ = tick.tick() => {
                view.tick();
                continue;
            }
            event = events.next() => event,
        };
        let body = match event {
            Some(Ok(event)) => event.body,
            Some(Err(status)) if may_come(&status) => {
                return Err(lost(Some(status), job.way_out()));
            }
            Some(Err(status)) => return Err(status.into()),
            None => return Err(lost(None, job.way_out())),
        };
        match body {
            Some(Body::Started(started)) => job.started(&started, view)?,
            Some(Body::Output(output)) => job.output(output, view).await,
            Some(Body::Ended(ended)) => job.ended(ctx, ended, view).await?,
            Some(Body::Notice(note)) if !ctx.json => {
                view.above(|| match note.instance.as_str() {
                    "" => ctx.message(&note.text),
                    name => ctx.message(&format!("{name}: {}", note.text)),
                })?;
            }
            Some(Body::Progress(progress)) => view.progress(&progress.instance, progress.bytes),
            Some(Body::Summary(_)) => return Ok(()),
            // A newer master may say more.
            Some(Body::Notice(_)) | None => {}
        }
    }
}

impl CopyJob {
    fn goes_on(&self) -> String {
        match (self.id.as_str(), &self.out) {
            ("", _) => "it may have been started; see aot-master jobs".to_owned(),
            (id, Some(_)) => format!("{id} is cancelled; see aot-master jobs"),
            (id, None) => format!("{id} is still running; see aot-master jobs"),
        }
    }

    /// What to do when the master is lost: what it sends can't be had once more, as that is an archive that was unpacked so far.
    fn way_out(&self) -> String {
        match (self.id.as_str(), &self.out) {
            ("", _) => "it may have been started; see aot-master jobs".to_owned(),
            (id, Some(_)) => format!(
                "what did not come in whole is not kept: copy it again; aot-master jobs cancel {id} ends what is still sent"
            ),
            (id, None) => {
                format!("{id} is still running; see aot-master jobs follow {id}")
            }
        }
    }

    async fn interrupted(
        &self,
        ctx: &mut Ctx<'_>,
        client: Option<&mut Client>,
        interrupt: &mut Interrupt,
    ) -> Result<(), Error> {
        let stderr = &mut ctx.io.stderr;
        let told = interrupt.handle(client, &self.id, self.goes_on(), stderr);
        let told = told.await?;
        ctx.message(&told)
    }

    fn started(&mut self, started: &JobStarted, view: &mut CopyView) -> Result<(), Error> {
        self.id = started.job_id.clone();
        self.begun = Some(Instant::now());
        if let Some(out) = &self.out {
            let folders = !out.is_straight(&started.instances);
            self.receive = Some(Receive::new(&out.to, out.into, folders, out.tops.clone())?);
        }
        view.started(&started.instances, self.size);
        Ok(())
    }

    async fn output(&mut self, output: JobOutput, view: &mut CopyView) {
        if output.stderr {
            let said = self.said.entry(output.instance).or_default();
            said.extend_from_slice(&output.data);
            let surplus = said.len().saturating_sub(MAX_STDERR_BYTES);
            said.drain(..surplus);
        } else if let Some(receive) = &mut self.receive {
            receive.piece(&output.instance, &output.data).await;
            view.progress(&output.instance, receive.bytes(&output.instance));
        }
    }

    /// A target's end, as it is here: what came and is not what was sent is not a success.
    async fn ended(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut ended: JobEnded,
        view: &mut CopyView,
    ) -> Result<(), Error> {
        let name = ended.instance.clone();
        let said = self.said.remove(&name).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let mut lines: Vec<&str> = said.lines().collect();
        let mut bytes = self.size;
        if let Some(receive) = &mut self.receive {
            bytes = receive.bytes(&name);
            if ended.outcome() == Outcome::Succeeded {
                let sha256 = lines.pop().unwrap_or_default();
                if let Err(why) = receive.finish(&name, sha256).await {
                    let why = if ended.truncated {
                        format!("its disk is full: what it sent was cut ({why})")
                    } else {
                        why
                    };
                    ended.set_outcome(Outcome::Failed);
                    ended.detail = why;
                }
            } else if ended.outcome() != Outcome::LostContact {
                receive.drop_of(&name);
            }
        }
        let failed = ended.outcome() != Outcome::Succeeded;
        if failed && ended.detail.is_empty() {
            // The last word is why.
            ended.detail = lines.pop().unwrap_or_default().to_owned();
        }
        if !failed {
            self.carried += bytes;
        }
        view.ended(&name, ended.outcome);
        if ctx.json {
            let bytes = if failed { 0 } else { bytes };
            ctx.print(&copy_json(&self.id, &ended, &lines.join("\n"), bytes).to_string())?;
            ctx.io.stdout.flush()?;
        } else {
            view.above(|| {
                lines
                    .iter()
                    .try_for_each(|line| ctx.message(&format!("{name}: {line}")))
            })?;
        }
        self.ends.insert(name, ended);
        Ok(())
    }

    /// The summary is of the ends as they are here.
    fn close(&self, ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
        let well = |ended: &JobEnded| ended.outcome() == Outcome::Succeeded;
        let summary = JobSummary {
            job_id: self.id.clone(),
            outcomes: counts_of(self.ends.values()),
            exit_code: u32::from(!self.ends.values().all(well)),
            ..JobSummary::default()
        };
        let exit = Exit::from_wire(summary.exit_code);
        if ctx.json {
            let counts = outcome_counts(&summary.outcomes);
            ctx.print(&json!({"job": summary.job_id, "summary": counts}).to_string())?;
            return Ok(exit);
        }
        // Why says more than the number of an exit code.
        let ends: Vec<JobEnded> = self.ends.values().cloned().map(plain).collect();
        let mut text = job_summary(&summary, &ends);
        if let (Some(begun), Exit::Well) = (self.begun, exit) {
            let took = took_text(begun.elapsed().as_secs_f64());
            text.push_str(&format!("; {} in {took}", bytes_text(self.carried)));
        }
        match exit {
            Exit::Well => ctx.note(&text)?,
            _ => ctx.message(&ctx.style().bad(&text))?,
        }
        Ok(exit)
    }
}

fn plain(ended: JobEnded) -> JobEnded {
    JobEnded {
        exit_code: ended.exit_code.filter(|_| ended.detail.is_empty()),
        ..ended
    }
}
