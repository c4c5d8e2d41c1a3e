//! Follows a job over many instances to its end and shows it: the one loop behind exec, `jobs follow`, `jobs cancel` and
//! `jobs retry`. What is seen is the views'; what Ctrl-C means is [`Interrupt`]'s.

use std::collections::BTreeMap;

use aot_proto::v1::exec_event::Body;
use aot_proto::v1::{ExecEnded, ExecEvent, ExecNote, ExecStarted, ExecSummary};
use futures::{Stream, StreamExt};
use serde_json::json;
use tonic::Status;

use super::Ctx;
use super::connect::Client;
use super::error::{Error, Exit};
use super::follow::broken;
use super::interrupt::Interrupt;
use super::out_dir::OutDir;
use super::shape::Shape;
use crate::view::{ExecView, Tally, builtin_table, exec_summary};

/// What was seen of a job.
#[derive(Debug, Default)]
pub struct Followed {
    /// What it is.
    pub started: ExecStarted,
    /// How targets ended, by name; exactly one end each.
    pub ends: BTreeMap<String, ExecEnded>,
    /// How it ended, unless only its start or a part was asked for.
    pub summary: Option<ExecSummary>,
}

/// Shows a job until its summary, or until it is left alone. `client` is for its cancellation.
///
/// # Errors
/// When the stream breaks or ends before the summary, the operator detaches, or an output can't be written.
pub async fn follow(
    ctx: &mut Ctx<'_>,
    client: Option<Client>,
    events: impl Stream<Item = Result<ExecEvent, Status>>,
    interrupt: Interrupt,
    shape: Shape,
) -> Result<Followed, Error> {
    let mut follower = Follower::new(ctx, client, shape)?;
    let ran = follower.drive(events, interrupt).await;
    let closed = follower.close();
    ran?;
    closed?;
    Ok(follower.seen)
}

struct Follower<'f, 'c> {
    ctx: &'f mut Ctx<'c>,
    client: Option<Client>,
    shape: Shape,
    view: Box<dyn ExecView>,
    out: Option<OutDir>,
    tally: Option<Tally>,
    seen: Followed,
    /// Ends that a later word may replace: shown only once that is out of the question.
    lost: BTreeMap<String, ExecEnded>,
}

impl<'f, 'c> Follower<'f, 'c> {
    fn new(ctx: &'f mut Ctx<'c>, client: Option<Client>, shape: Shape) -> Result<Self, Error> {
        let out = match &shape.output.out {
            Some(dir) => Some(OutDir::create(dir)?),
            None => None,
        };
        let view = shape.view(ctx, 0);
        Ok(Self {
            ctx,
            client,
            shape,
            view,
            out,
            tally: None,
            seen: Followed::default(),
            lost: BTreeMap::new(),
        })
    }

    async fn drive(
        &mut self,
        events: impl Stream<Item = Result<ExecEvent, Status>>,
        mut interrupt: Interrupt,
    ) -> Result<(), Error> {
        futures::pin_mut!(events);
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
                        && self.take(body)?
                    {
                        return Ok(());
                    }
                }
                Some(Err(status)) => return Err(broken(status, self.goes_on())),
                None if self.shape.so_far => return Ok(()),
                None => {
                    return Err(Error::Lost {
                        goes_on: self.goes_on(),
                        source: None,
                    });
                }
            }
        }
    }

    /// Shows one event; whether it was the last that is wanted.
    fn take(&mut self, body: Body) -> Result<bool, Error> {
        match body {
            Body::Started(started) => return self.started(started),
            Body::Output(output) => {
                if let Some(out) = &mut self.out {
                    out.output(&output)?;
                }
                self.view.output(&output, self.ctx.io)?;
            }
            Body::Ended(ended) if ended.outcome == "lost_contact" => {
                self.note(
                    &ended.instance,
                    "contact is lost; its real outcome may still come",
                )?;
                self.lost.insert(ended.instance.clone(), ended);
            }
            Body::Ended(ended) => {
                if self.lost.remove(&ended.instance).is_some() {
                    self.note(&ended.instance, "is back")?;
                }
                self.ended(ended)?;
            }
            Body::Note(note) => self.note(&note.instance, &note.text)?,
            Body::Summary(summary) => {
                self.seen.summary = Some(summary);
                return Ok(true);
            }
            Body::Progress(_) => {}
        }
        Ok(false)
    }

    fn started(&mut self, started: ExecStarted) -> Result<bool, Error> {
        self.seen.started = started;
        if self.shape.detach {
            return Ok(true);
        }
        let started = &self.seen.started;
        if self.shape.heading && !self.ctx.json {
            super::jobs::heading(self.ctx, started)?;
            self.shape.quiet |= super::jobs::is_silent(started);
        }
        // What a copy prints is an archive.
        self.shape.quiet |= started.kind == "copy";
        let total = started.instances.len();
        self.view = self.shape.view(self.ctx, total);
        self.view.started(started, self.ctx.io)?;
        if self.counts(total) {
            let mut tally = Tally::new(total);
            if let Some(verbose) = &self.ctx.verbose {
                verbose.aside.set_live(Some(tally.bars()));
            }
            tally.draw();
            self.tally = Some(tally);
        }
        Ok(false)
    }

    /// Whether someone looks who sees no lines come.
    fn counts(&self, total: usize) -> bool {
        let env = self.ctx.env;
        let silent = self.shape.quiet || self.out.is_some() || self.shape.folds(self.ctx, total);
        env.stderr_terminal && !self.ctx.json && !self.shape.so_far && silent
    }

    fn ended(&mut self, ended: ExecEnded) -> Result<(), Error> {
        self.view.ended(&ended, self.ctx.io)?;
        if let Some(out) = &mut self.out {
            out.ended(&self.seen.started.job_id, &ended)?;
        }
        if let Some(tally) = &mut self.tally {
            tally.ended(ended.outcome == "succeeded");
        }
        self.seen.ends.insert(ended.instance.clone(), ended);
        Ok(())
    }

    fn note(&mut self, instance: &str, text: &str) -> Result<(), Error> {
        let note = ExecNote {
            instance: instance.to_owned(),
            text: text.to_owned(),
        };
        self.hide();
        self.view.note(&note, self.ctx.io)?;
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
        let goes_on = self.goes_on();
        let (client, stderr) = (self.client.as_mut(), &mut self.ctx.io.stderr);
        let told = interrupt.settle(client, &job, goes_on, stderr).await?;
        self.note("", &told)
    }

    fn goes_on(&self) -> String {
        match self.seen.started.job_id.as_str() {
            "" => "it may have been started; see aot-master jobs".to_owned(),
            id => format!("{id} goes on; see aot-master jobs follow {id}"),
        }
    }

    /// Shows what was held back.
    fn close(&mut self) -> Result<(), Error> {
        for (_, ended) in std::mem::take(&mut self.lost) {
            self.ended(ended)?;
        }
        self.hide();
        if let Some(verbose) = &self.ctx.verbose {
            verbose.aside.set_live(None);
        }
        self.view.close(self.ctx.io)?;
        Ok(())
    }
}

/// Says how a job ended: the counts, and what did not succeed and why. The exit code is the master's.
///
/// # Errors
/// When an output can't be written.
pub fn close(
    ctx: &mut Ctx<'_>,
    seen: &Followed,
    shape: &Shape,
    builtin: &str,
) -> Result<Exit, Error> {
    let job = &seen.started.job_id;
    if shape.detach {
        match ctx.json {
            true => ctx.print(&json!({ "job": job }).to_string())?,
            false => ctx.print(job)?,
        }
        return Ok(Exit::Well);
    }
    let summary = seen.summary.clone().unwrap_or_else(|| counted(seen));
    let exit = Exit::from_wire(summary.exit_code);
    if ctx.json {
        let counts: BTreeMap<_, _> = summary.outcomes.iter().collect();
        ctx.print(&json!({"job": summary.job_id, "summary": counts}).to_string())?;
        return Ok(exit);
    }
    if !builtin.is_empty() {
        let table = builtin_table(builtin, seen.ends.values(), ctx.look());
        ctx.print(&table)?;
    }
    let mut text = exec_summary(&summary, seen.ends.values());
    if let Some(dir) = &shape.output.out {
        text.push_str(&format!("; what they printed is in {}", dir.display()));
    }
    if exit != Exit::Well {
        text = ctx.style().bad(&text);
    }
    ctx.say(&text)?;
    Ok(exit)
}

/// The counts so far.
fn counted(seen: &Followed) -> ExecSummary {
    let mut summary = ExecSummary {
        job_id: seen.started.job_id.clone(),
        ..ExecSummary::default()
    };
    for ended in seen.ends.values() {
        *summary.outcomes.entry(ended.outcome.clone()).or_default() += 1;
    }
    summary
}
