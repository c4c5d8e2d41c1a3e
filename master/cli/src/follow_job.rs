//! Follows a job over many instances to its end and shows it: the one loop behind exec, `jobs follow`, `jobs cancel` and
//! `jobs retry`. What is seen is the views'; what Ctrl-C means is [`Interrupt`]'s.

use std::collections::BTreeMap;
use std::io::Write as _;

use aot_proto::v1::job_event::Body;
use aot_proto::v1::{
    BuiltinName, JobEnded, JobEvent, JobKind, JobNotice, JobStarted, JobSummary, Outcome,
};
use futures::{Stream, StreamExt};
use serde_json::json;
use tonic::Status;

use super::Ctx;
use super::again::{LOST, may_come};
use super::error::{Error, Exit};
use super::follow_cluster::{broken, lost};
use super::interrupt::Interrupt;
use super::job_source::{JobEventStream, JobSource};
use super::out_dir::OutDir;
use super::output_mode::OutputMode;
use super::shown::ShownOutput;
use crate::view::{
    JobView, TallyLine, counts_of, job_heading, job_summary, outcome_counts, show_builtin,
};

/// What was seen of a job.
#[derive(Debug, Default)]
pub(crate) struct FollowedJob {
    /// What it is.
    pub started: JobStarted,
    /// How targets ended, by name; exactly one end each.
    pub ends: BTreeMap<String, JobEnded>,
    /// How it ended, unless only its start or a part was asked for.
    pub summary: Option<JobSummary>,
}

impl FollowedJob {
    /// What the command ends with.
    ///
    /// # Errors
    /// When some output was not whole: what was shown must not pass for all of it.
    pub(crate) fn checked(&self, exit: Exit) -> Result<Exit, Error> {
        match self.incomplete() {
            Some(text) => Err(Error::Incomplete(text.to_owned())),
            None => Ok(exit),
        }
    }

    /// What the master says where some output was not shown whole.
    fn incomplete(&self) -> Option<&str> {
        let text = &self.summary.as_ref()?.incomplete;
        (!text.is_empty()).then_some(text)
    }
}

/// Asks for a job's events, and shows them until its summary, or until it is left alone.
///
/// # Errors
/// Why there are none; as [`follow`].
pub(crate) async fn begin_and_follow(
    ctx: &mut Ctx<'_>,
    mut source: JobSource,
    mut interrupt: Interrupt,
    mode: OutputMode,
) -> Result<FollowedJob, Error> {
    let events = source.begin(ctx, &mut interrupt).await?;
    follow(ctx, source, events, interrupt, mode).await
}

/// Shows a job until its summary, or until it is left alone. `source` is for its cancellation, and tells the rest after the end of
/// a master.
///
/// # Errors
/// When no master tells the rest, the operator detaches, or an output can't be written.
pub(crate) async fn follow(
    ctx: &mut Ctx<'_>,
    source: JobSource,
    events: impl Stream<Item = Result<JobEvent, Status>>,
    interrupt: Interrupt,
    mode: OutputMode,
) -> Result<FollowedJob, Error> {
    let mut follower = JobFollower::new(ctx, source, mode)?;
    let ran = follower.drive(events, interrupt).await;
    let closed = follower.close();
    ran?;
    closed?;
    Ok(follower.seen)
}

struct JobFollower<'f, 'c> {
    ctx: &'f mut Ctx<'c>,
    source: JobSource,
    mode: OutputMode,
    view: Box<dyn JobView>,
    out: Option<OutDir>,
    tally: Option<TallyLine>,
    seen: FollowedJob,
    shown: ShownOutput,
    /// Ends that a later word may replace: shown only once that is out of the question.
    held_back: BTreeMap<String, JobEnded>,
}

impl<'f, 'c> JobFollower<'f, 'c> {
    fn new(ctx: &'f mut Ctx<'c>, source: JobSource, mode: OutputMode) -> Result<Self, Error> {
        let out = match &mode.output.out {
            Some(dir) => Some(OutDir::create(dir)?),
            None => None,
        };
        let view = mode.view(ctx, 0);
        Ok(Self {
            ctx,
            source,
            mode,
            view,
            out,
            tally: None,
            seen: FollowedJob::default(),
            shown: ShownOutput::default(),
            held_back: BTreeMap::new(),
        })
    }

    async fn drive(
        &mut self,
        events: impl Stream<Item = Result<JobEvent, Status>>,
        mut interrupt: Interrupt,
    ) -> Result<(), Error> {
        let mut events: JobEventStream<'_> = Box::pin(events);
        loop {
            let event = tokio::select! {
                () = interrupt.pressed() => {
                    self.interrupted(&mut interrupt).await?;
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    if let Some(body) = event.body
                        && self.step(body)?
                    {
                        return Ok(());
                    }
                }
                None if self.mode.so_far => return Ok(()),
                end => {
                    events = self
                        .again(end.and_then(Result::err), &mut interrupt)
                        .await?
                }
            }
        }
    }

    /// The job once more, from the master that has its cluster by then.
    async fn again(
        &mut self,
        why: Option<Status>,
        interrupt: &mut Interrupt,
    ) -> Result<JobEventStream<'static>, Error> {
        let job = self.seen.started.job_id.clone();
        let goes_on = self.source.goes_on(&job);
        let is_lost = why.as_ref().is_none_or(may_come);
        if (job.is_empty() && !is_lost) || !self.source.may_be_repeated(&job) {
            return Err(match why {
                Some(status) => broken(status, goes_on),
                None => lost(None, goes_on),
            });
        }
        match &why {
            Some(status) if !is_lost => {
                self.notice("", &format!("{}: asking again", status.message()))?;
            }
            _ => self.notice("", LOST)?,
        }
        let again = tokio::select! {
            again = self.source.next(self.ctx, &job, why.as_ref()) => again?,
            () = interrupt.pressed() => return Err(Error::Interrupted { goes_on }),
        };
        self.shown.begin_again();
        again.ok_or_else(|| lost(why, goes_on))
    }

    /// Shows one event; whether it was the last that is wanted.
    fn step(&mut self, body: Body) -> Result<bool, Error> {
        match body {
            Body::Started(_) if !self.seen.started.job_id.is_empty() => {} // it comes again
            Body::Started(started) => return self.started(started),
            Body::Output(output) => {
                let Some(output) = self.shown.rest(output) else {
                    return Ok(false);
                };
                self.source.came();
                if let Some(out) = &mut self.out {
                    out.output(&output)?;
                }
                self.view.output(&output, self.ctx.io)?;
            }
            Body::Ended(ended) if self.seen.ends.contains_key(&ended.instance) => {}
            Body::Ended(ended) if ended.outcome() == Outcome::LostContact => {
                self.notice(
                    &ended.instance,
                    "contact lost; its real outcome may still arrive",
                )?;
                self.held_back.insert(ended.instance.clone(), ended);
            }
            Body::Ended(ended) => {
                if self.held_back.remove(&ended.instance).is_some() {
                    self.notice(&ended.instance, "is back")?;
                }
                self.ended(ended)?;
            }
            Body::Notice(notice) => self.notice(&notice.instance, &notice.text)?,
            Body::Summary(summary) => {
                self.seen.summary = Some(summary);
                return Ok(true);
            }
            Body::Progress(_) => {}
        }
        Ok(false)
    }

    fn started(&mut self, started: JobStarted) -> Result<bool, Error> {
        self.seen.started = started;
        if self.mode.detach {
            return Ok(true);
        }
        let started = &self.seen.started;
        if self.mode.heading && !self.ctx.json {
            heading(self.ctx, started)?;
            self.mode.quiet |= is_silent(started);
        }
        // What a copy prints is an archive.
        self.mode.quiet |= started.kind() == JobKind::Copy;
        let total = started.instances.len();
        self.view = self.mode.view(self.ctx, total);
        self.view.started(started, self.ctx.io)?;
        if self.counts(total) {
            let mut tally = TallyLine::new(total);
            if let Some(verbose) = &self.ctx.verbose {
                verbose.stderr.set_live(Some(tally.bars()));
            }
            tally.draw();
            self.tally = Some(tally);
        }
        Ok(false)
    }

    /// Whether someone looks who sees no lines come.
    fn counts(&self, total: usize) -> bool {
        let silent = self.mode.quiet || self.out.is_some() || self.mode.folds(self.ctx, total);
        self.ctx.redraws() && !self.mode.so_far && silent
    }

    fn ended(&mut self, ended: JobEnded) -> Result<(), Error> {
        self.source.came();
        self.view.ended(&ended, self.ctx.io)?;
        if let Some(out) = &mut self.out {
            out.ended(&self.seen.started.job_id, &ended)?;
        }
        if let Some(tally) = &mut self.tally {
            tally.ended(ended.outcome() == Outcome::Succeeded);
        }
        self.seen.ends.insert(ended.instance.clone(), ended);
        Ok(())
    }

    fn notice(&mut self, instance: &str, text: &str) -> Result<(), Error> {
        let notice = JobNotice {
            instance: instance.to_owned(),
            text: text.to_owned(),
        };
        self.hide();
        self.view.notice(&notice, self.ctx.io)?;
        if let Some(tally) = &mut self.tally {
            tally.draw();
        }
        Ok(())
    }

    fn hide(&mut self) {
        if let Some(tally) = &mut self.tally {
            tally.hide();
        }
    }

    async fn interrupted(&mut self, interrupt: &mut Interrupt) -> Result<(), Error> {
        self.hide();
        self.ctx.io.stdout.flush()?;
        let job = self.seen.started.job_id.clone();
        let goes_on = self.source.goes_on(&job);
        let (client, stderr) = (Some(self.source.client()), &mut self.ctx.io.stderr);
        let told = interrupt.handle(client, &job, goes_on, stderr).await?;
        self.notice("", &told)
    }

    /// Shows what was held back.
    fn close(&mut self) -> Result<(), Error> {
        for (_, ended) in std::mem::take(&mut self.held_back) {
            self.ended(ended)?;
        }
        self.hide();
        if let Some(verbose) = &self.ctx.verbose {
            verbose.stderr.set_live(None);
        }
        self.view.close(self.ctx.io)?;
        Ok(())
    }
}

/// Says how a job ended: the counts, and what did not succeed and why. The exit code is the master's.
///
/// # Errors
/// When an output can't be written, or as [`FollowedJob::checked`].
pub(crate) fn close(
    ctx: &mut Ctx<'_>,
    seen: &FollowedJob,
    mode: &OutputMode,
    builtin: BuiltinName,
) -> Result<Exit, Error> {
    let job = &seen.started.job_id;
    if mode.detach {
        match ctx.json {
            true => ctx.print(&json!({ "job": job }).to_string())?,
            false => ctx.print(job)?,
        }
        return Ok(Exit::Well);
    }
    let summary = seen.summary.clone().unwrap_or_else(|| counted(seen));
    let exit = Exit::from_wire(summary.exit_code);
    if ctx.json {
        let counts = outcome_counts(&summary.outcomes);
        let mut last = json!({"job": summary.job_id, "summary": counts});
        if let Some(text) = seen.incomplete() {
            last["incomplete"] = text.into();
        }
        ctx.print(&last.to_string())?;
        return seen.checked(exit);
    }
    if builtin != BuiltinName::Unspecified {
        show_builtin(builtin, seen.ends.values(), ctx.style(), &ctx.io.stdout)?;
    }
    let mut text = job_summary(&summary, seen.ends.values());
    if let Some(dir) = &mode.output.out {
        text.push_str(&format!("; what they printed is in {}", dir.display()));
    }
    match exit {
        Exit::Well => ctx.note(&text)?,
        _ => ctx.message(&ctx.style().bad(&text))?,
    }
    seen.checked(exit)
}

/// The counts so far.
fn counted(seen: &FollowedJob) -> JobSummary {
    JobSummary {
        job_id: seen.started.job_id.clone(),
        outcomes: counts_of(seen.ends.values()),
        ..JobSummary::default()
    }
}

/// Says what a job is.
///
/// # Errors
/// When it can't be written.
pub(crate) fn heading(ctx: &mut Ctx<'_>, started: &JobStarted) -> Result<(), Error> {
    let text = job_heading(
        started,
        aot_host::clock::unix_ms(),
        ctx.env.offset,
        ctx.style(),
    );
    ctx.print(&format!("{text}\n"))
}

/// Whether there is no output to show, so that nothing must be said about it either.
pub(crate) fn is_silent(started: &JobStarted) -> bool {
    started.output_dropped || !matches!(started.kind(), JobKind::Unspecified | JobKind::Exec)
}
