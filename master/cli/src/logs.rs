//! `logs TARGET`: what stages printed, recorded or live.

use std::future::Future;
use std::io::Write as _;

use aot_proto::v1::{JobOutput, LogLine, LogsRequest};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::Ctx;
use super::args::LogsArgs;
use super::connect::{Start, connect};
use super::error::{Error, Exit};
use super::follow_cluster::{broken, ctrl_c};
use crate::view::{JobLines, JobView, log_json};

/// `web1/0 | line`, output to standard output and errors to standard error.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub(crate) async fn logs(ctx: &mut Ctx<'_>, args: LogsArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = LogsRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.target.narrow.exclude(),
        limit: args.target.narrow.limit(),
        target: args.target.target,
        stage: args.stage,
        follow: args.follow,
    };
    let lines = client.logs(request).await?.into_inner();
    let mut view = JobLines::new(ctx.style());
    let shown = show(ctx, &mut view, lines, ctrl_c()).await;
    view.close(ctx.io)?;
    shown
}

async fn show(
    ctx: &mut Ctx<'_>,
    view: &mut JobLines,
    lines: impl Stream<Item = Result<LogLine, Status>>,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Error> {
    futures::pin_mut!(lines, interrupt);
    loop {
        let line = tokio::select! {
            () = &mut interrupt => return Ok(Exit::Interrupted),
            line = lines.next() => line,
        };
        match line {
            Some(Ok(line)) => one(ctx, view, line)?,
            Some(Err(status)) => {
                return Err(broken(status, "the stages are still running".to_owned()));
            }
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
