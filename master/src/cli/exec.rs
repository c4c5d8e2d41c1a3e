//! `exec`: runs a command on many instances, or asks their agents.

use std::future::Future;
use std::io::{self, Read};
use std::path::Path;

use aot_proto::v1::exec_event::Body;
use aot_proto::v1::{ExecEnded, ExecEvent, ExecRequest, ExecSummary};
use futures::{Stream, StreamExt};
use serde_json::json;
use tonic::Status;

use super::Ctx;
use super::connect::{Start, connect};
use super::error::{Error, Exit};
use super::exec_args::{ExecArgs, What};
use super::follow::{broken, ctrl_c};
use super::launch::millis;
use crate::view::{ExecJson, ExecLines, ExecView, builtin_table, exec_summary};

/// Largest input of a command; it goes in one message to every target.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// `aot-master exec TARGET ...`.
///
/// # Errors
/// When the arguments are bad, nothing matches, or the master can't be asked or followed.
pub async fn exec(ctx: &mut Ctx<'_>, args: ExecArgs) -> Result<Exit, Error> {
    let what = args.what()?;
    let stdin = match &args.stdin {
        Some(path) => read_stdin(ctx, path)?,
        None => Vec::new(),
    };
    let (builtin, argv) = match what {
        What::Builtin(name) => (name, Vec::new()),
        What::Run(argv) => (String::new(), argv),
    };
    let request = ExecRequest {
        cluster: ctx.cluster.clone(),
        target: args.target,
        exclude: args.narrow.exclude(),
        limit: args.narrow.limit(),
        builtin: builtin.clone(),
        argv,
        env: args.env.into_iter().collect(),
        cwd: args.cwd.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        stdin,
        timeout_ms: args.timeout.map_or(0, millis),
        detach: args.detach,
        ..ExecRequest::default()
    };
    let mut client = connect(ctx, Start::WithState).await?;
    let events = client.exec(request).await?.into_inner();
    follow(ctx, events, ctrl_c(), &builtin, args.detach).await
}

fn read_stdin(ctx: &mut Ctx<'_>, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        (&mut *ctx.io.stdin)
            .take(MAX_STDIN_BYTES + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes))
    };
    let too_big = || {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            "an input of a command has at most 1 MiB",
        )
    };
    let checked = read.and_then(|len| {
        if len as u64 > MAX_STDIN_BYTES {
            Err(too_big())
        } else {
            Ok(())
        }
    });
    checked.map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(bytes)
}

/// What is known of a job while it is followed.
#[derive(Default)]
struct Job {
    id: String,
    ends: Vec<ExecEnded>,
}

impl Job {
    fn goes_on(&self) -> String {
        match self.id.as_str() {
            "" => "it may have been started; see aot-master jobs".to_owned(),
            id => format!("{id} goes on; see aot-master jobs"),
        }
    }
}

/// Shows a job until its summary, or until `interrupt`.
///
/// # Errors
/// When the stream breaks or ends before the summary, or `interrupt` comes first.
pub async fn follow(
    ctx: &mut Ctx<'_>,
    events: impl Stream<Item = Result<ExecEvent, Status>>,
    interrupt: impl Future<Output = ()>,
    builtin: &str,
    detach: bool,
) -> Result<Exit, Error> {
    let mut view: Box<dyn ExecView> = if ctx.json {
        Box::new(ExecJson::default())
    } else {
        Box::new(ExecLines::default())
    };
    let mut job = Job::default();
    let ran = drive(ctx, view.as_mut(), &mut job, events, interrupt, detach).await;
    view.close(ctx.io)?;
    match ran? {
        Some(summary) => close(ctx, &job, &summary, builtin),
        None => detached(ctx, &job),
    }
}

/// The summary, or `None` when the job was only started.
async fn drive(
    ctx: &mut Ctx<'_>,
    view: &mut dyn ExecView,
    job: &mut Job,
    events: impl Stream<Item = Result<ExecEvent, Status>>,
    interrupt: impl Future<Output = ()>,
    detach: bool,
) -> Result<Option<ExecSummary>, Error> {
    futures::pin_mut!(events, interrupt);
    loop {
        let event = tokio::select! {
            () = &mut interrupt => return Err(Error::Interrupted { goes_on: job.goes_on() }),
            event = events.next() => event,
        };
        let body = match event {
            Some(Ok(event)) => event.body,
            Some(Err(status)) => return Err(broken(status, job.goes_on())),
            None => {
                return Err(Error::Lost {
                    goes_on: job.goes_on(),
                    source: None,
                });
            }
        };
        match body {
            Some(Body::Started(started)) => {
                job.id = started.job_id;
                if detach {
                    return Ok(None);
                }
            }
            Some(Body::Output(output)) => view.output(&output, ctx.io)?,
            Some(Body::Ended(ended)) => {
                view.ended(&job.id, &ended, ctx.io)?;
                job.ends.push(ended);
            }
            Some(Body::Summary(summary)) => return Ok(Some(summary)),
            Some(Body::Note(_) | Body::Progress(_)) => {}
            // A newer master may say more.
            None => {}
        }
    }
}

fn close(
    ctx: &mut Ctx<'_>,
    job: &Job,
    summary: &ExecSummary,
    builtin: &str,
) -> Result<Exit, Error> {
    let exit = Exit::from_wire(summary.exit_code);
    if ctx.json {
        let counts: std::collections::BTreeMap<_, _> = summary.outcomes.iter().collect();
        ctx.print(&json!({"job": summary.job_id, "summary": counts}).to_string())?;
        return Ok(exit);
    }
    if !builtin.is_empty() {
        ctx.print(&builtin_table(builtin, &job.ends))?;
    }
    let text = exec_summary(summary, &job.ends);
    let text = if exit == Exit::Well {
        text
    } else {
        ctx.style().bad(&text)
    };
    ctx.say(&text)?;
    Ok(exit)
}

fn detached(ctx: &mut Ctx<'_>, job: &Job) -> Result<Exit, Error> {
    if ctx.json {
        ctx.print(&json!({ "job": job.id }).to_string())?;
    } else {
        ctx.print(&job.id)?;
    }
    Ok(Exit::Well)
}
