//! `logs [TARGET|JOB]`: what stages printed, recorded or live, and what a job did.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;

use aot_proto::ids::JobId;
use aot_proto::v1::{FollowRequest, JobKind, JobOutput, LogLine, LogsRequest};
use futures::StreamExt;
use serde_json::json;
use tonic::{Status, Streaming};

use super::Ctx;
use super::again::{Again, LOST, may_come};
use super::args::{LogsArgs, Narrow};
use super::connect::{Start, connect};
use super::dial::Client;
use super::error::{Error, Exit};
use super::follow_cluster::{ctrl_c, lost};
use super::interrupt::Interrupt;
use super::job_source::JobAsk;
use super::jobs;
use super::output_mode::OutputMode;
use super::shown::ShownOutput;
use super::stages;
use crate::view::{JobLines, JobView, log_json};

/// What stages printed, or what a job did: [`named_job`] tells them apart.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub(crate) async fn logs(ctx: &mut Ctx<'_>, args: LogsArgs) -> Result<Exit, Error> {
    let client = connect(ctx, Start::WithState).await?;
    match named_job(&args) {
        Some(job) => of_job(ctx, client, job, args).await,
        None => of_stages(ctx, client, args).await,
    }
}

/// The job that is meant: by its id, by `last`, or by nothing at all. An instance named `last` is `name:last`.
fn named_job(args: &LogsArgs) -> Option<String> {
    let given = args.target.as_deref().unwrap_or(jobs::LAST);
    let is_job = given == jobs::LAST || given.parse::<JobId>().is_ok();
    is_job.then(|| given.to_owned())
}

/// What a job printed; of a launch or an apply, what the stages of its instances did.
async fn of_job(
    ctx: &mut Ctx<'_>,
    mut client: Client,
    job: String,
    args: LogsArgs,
) -> Result<Exit, Error> {
    let job_id = jobs::resolve(ctx, &mut client, Some(&job)).await?;
    let ask = |live, output| {
        JobAsk::Follow(FollowRequest {
            job_id: job_id.clone(),
            live,
            output,
        })
    };
    let mode = |quiet, so_far| OutputMode {
        quiet,
        so_far,
        ..OutputMode::default()
    };
    let is_quiet = mode(true, true);
    let never = || Interrupt::of_process(false);
    // A look at what it is; nothing of it is shown, to programs neither.
    let json = std::mem::replace(&mut ctx.json, false);
    let seen = jobs::follow(ctx, client.clone(), ask(false, false), never(), is_quiet).await;
    ctx.json = json;
    let started = seen?.started;
    if matches!(started.kind(), JobKind::Launch | JobKind::Apply) {
        let names = (!started.instances.is_empty()).then(|| started.instances.join(","));
        let args = LogsArgs {
            target: Some(names.unwrap_or_else(|| "*".to_owned())),
            ..args
        };
        ctx.cluster = Some(started.cluster).filter(|name| !name.is_empty());
        return of_stages(ctx, client, args).await;
    }
    if args.stage.is_some() || args.narrow != Narrow::default() {
        return Err(Error::usage(
            format!(
                "{job_id} ({}) has no stages, and is shown whole",
                started.what
            ),
            "name the instances: aot-master logs TARGET",
        ));
    }
    let mode = mode(false, !args.follow);
    let shown = jobs::follow(ctx, client, ask(args.follow, true), never(), mode).await?;
    shown.checked(Exit::Well)
}

/// `web1/0 | line`, output to standard output and errors to standard error.
async fn of_stages(ctx: &mut Ctx<'_>, mut client: Client, args: LogsArgs) -> Result<Exit, Error> {
    let stage = stages::number(ctx, &mut client, &args.which(), args.stage.clone()).await?;
    let request = LogsRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.narrow.exclude(),
        limit: args.narrow.limit(),
        target: args.target.unwrap_or_else(|| "*".to_owned()),
        stage,
        follow: args.follow,
    };
    let lines = client.logs(request.clone()).await?.into_inner();
    let mut view = JobLines::new(ctx.style());
    let mut source = LogSource {
        request,
        again: Again::new(ctx, client, Start::WithState),
    };
    let shown = show(ctx, &mut view, &mut source, lines, ctrl_c()).await;
    view.close(ctx.io)?;
    shown
}

/// All of it once more, of the next master.
struct LogSource {
    request: LogsRequest,
    again: Again,
}

impl LogSource {
    /// `None` when there is none in time.
    async fn next(&mut self, ctx: &mut Ctx<'_>, why: &Status) -> Option<Streaming<LogLine>> {
        if !self.again.broke(ctx, Some(why)) {
            return None;
        }
        loop {
            let client = self.again.next(ctx).await?;
            match client.logs(self.request.clone()).await {
                Ok(lines) => return Some(lines.into_inner()),
                Err(status) if self.again.may_pass(&status).await => {}
                Err(_) => return None,
            }
        }
    }
}

/// What was shown: of each attempt's outputs their bytes, and its marks.
#[derive(Default)]
struct ShownLogs {
    output: ShownOutput,
    marks: BTreeSet<(String, u32, u32, String)>,
}

impl ShownLogs {
    /// What of it was not shown before; counted as shown.
    fn rest(&mut self, mut line: LogLine) -> Option<LogLine> {
        let of = (line.instance.clone(), line.stage, line.attempt);
        if !line.note.is_empty() {
            let mark = (of.0, of.1, of.2, line.note.clone());
            return self.marks.insert(mark).then_some(line);
        }
        let output = JobOutput {
            instance: format!("{}/{}/{}", of.0, of.1, of.2),
            stderr: line.stderr,
            data: std::mem::take(&mut line.data).into(),
        };
        line.data = self.output.rest(output)?.data.into();
        Some(line)
    }
}

async fn show(
    ctx: &mut Ctx<'_>,
    view: &mut JobLines,
    source: &mut LogSource,
    lines: Streaming<LogLine>,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Error> {
    let goes_on = || "the stages are still running".to_owned();
    let mut lines = lines;
    let mut shown = ShownLogs::default();
    futures::pin_mut!(interrupt);
    loop {
        let line = tokio::select! {
            () = &mut interrupt => return Ok(Exit::Interrupted),
            line = lines.next() => line,
        };
        match line {
            Some(Ok(line)) if !line.incomplete.is_empty() => {
                if ctx.json {
                    ctx.print(&json!({ "incomplete": line.incomplete }).to_string())?;
                }
                return Err(Error::Incomplete(line.incomplete));
            }
            Some(Ok(line)) => {
                if let Some(line) = shown.rest(line) {
                    source.again.came();
                    one(ctx, view, line)?;
                }
            }
            Some(Err(status)) if may_come(&status) => {
                view.close(ctx.io)?;
                ctx.message(LOST)?;
                let next = tokio::select! {
                    next = source.next(ctx, &status) => next,
                    () = &mut interrupt => return Ok(Exit::Interrupted),
                };
                lines = next.ok_or_else(|| lost(Some(status), goes_on()))?;
                shown.output.begin_again();
            }
            Some(Err(status)) => return Err(status.into()),
            None => return Ok(Exit::Well),
        }
    }
}

fn one(ctx: &mut Ctx<'_>, view: &mut JobLines, line: LogLine) -> Result<(), Error> {
    if ctx.json {
        ctx.print(&log_json(&line).to_string())?;
        // Whoever follows reads it now.
        return Ok(ctx.io.stdout.flush()?);
    }
    let name = match line.name.as_str() {
        "" => format!("{}/{}", line.instance, line.stage),
        stage => format!("{}/{stage}", line.instance),
    };
    view.make_room(&name);
    if !line.note.is_empty() {
        view.close(ctx.io)?;
        let text = ctx.style().dim(&format!("{name} -- {}", line.note));
        return ctx.message(&text);
    }
    view.output(
        &JobOutput {
            instance: name,
            stderr: line.stderr,
            data: line.data.into(),
        },
        ctx.io,
    )?;
    Ok(())
}
