//! `plan`, `launch` and `apply`: what changes instances on purpose.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aot_proto::v1::{ApplyRequest, InfoRequest, LaunchRequest, PlanLine, PlanReply, PlanRequest};
use serde_json::Value;

use super::args::{ApplyArgs, LaunchArgs, ListenArgs};
use super::confirm::{confirm, instances, named};
use super::connect::{ASK_PROVIDER, Client, LOOK_UP, Start, connect, within};
use super::error::{Error, Exit, exit_of};
use super::follow::{Followed, ctrl_c, follow};
use super::{CliEnv, Ctx};
use crate::view::{
    closing_table, count_words, explanations, fields_of, plan_json, plan_lines, plan_words,
    problem_lines,
};

/// A cluster's file as it is sent: its absolute path and its text.
fn read(file: &Path) -> Result<(String, String), Error> {
    let fail = |source| Error::Read {
        path: file.to_owned(),
        source,
    };
    let path = std::path::absolute(file).map_err(fail)?;
    let bytes = std::fs::read(&path).map_err(fail)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        fail(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "it is not UTF-8",
        ))
    })?;
    let path = path.into_os_string().into_string().map_err(|path| {
        Error::usage(
            format!("the path {} is not UTF-8", PathBuf::from(path).display()),
            "rename it",
        )
    })?;
    Ok((path, text))
}

async fn ask_plan(
    client: &mut Client,
    path: &str,
    text: &str,
    prune: bool,
    without_things: bool,
) -> Result<PlanReply, Error> {
    let request = PlanRequest {
        path: path.to_owned(),
        text: text.to_owned(),
        prune,
        without_things,
    };
    Ok(client
        .plan(within(ASK_PROVIDER, request))
        .await?
        .into_inner())
}

/// `aot-master plan FILE`.
///
/// # Errors
/// When the file or the master can't be read or asked.
pub async fn plan(ctx: &mut Ctx<'_>, file: &Path, prune: bool) -> Result<Exit, Error> {
    let (path, text) = read(file)?;
    let mut client = connect(ctx, Start::Always).await?;
    let plan = ask_plan(&mut client, &path, &text, prune, false).await?;
    if ctx.json {
        for line in plan_json(&plan) {
            ctx.print(&line.to_string())?;
        }
    } else {
        ctx.print(&plan_lines(&plan, ctx.style()))?;
        ctx.say(&plan_words(&plan))?;
        if !plan.problems.is_empty() {
            ctx.print(&problem_lines(&plan.problems, ctx.style()))?;
        }
    }
    Ok(match plan.problems.is_empty() {
        true => Exit::Well,
        false => exit_of(&plan.problems),
    })
}

/// `aot-master launch FILE`.
///
/// # Errors
/// When the file is bad, nobody says yes to what it destroys, or the master can't be asked or followed.
pub async fn launch(ctx: &mut Ctx<'_>, args: &LaunchArgs) -> Result<Exit, Error> {
    let (path, text) = read(&args.file)?;
    let mut client = connect_for(ctx, &args.listen).await?;
    let plan = ask_plan(&mut client, &path, &text, args.prune, true).await?;
    if !plan.problems.is_empty() {
        return Err(Error::Problems(plan.problems));
    }
    if !ctx.json {
        ctx.say(&plan_words(&plan))?;
    }
    ask_about(ctx, &plan.lines, args.yes)?;
    let request = LaunchRequest {
        path,
        text,
        prune: args.prune,
        timeout_ms: args.timeout.map_or(0, millis),
        detach: args.detach,
        checked: true,
    };
    let events = client.launch(request).await?.into_inner();
    let goes_on = "the launch goes on; look at it with aot-master status, or follow it by launching the file again";
    let followed = follow(ctx, events, ctrl_c(), goes_on, args.detach).await?;
    if args.detach
        && followed
            .last
            .as_ref()
            .is_none_or(|last| !last.last || last.event != "launch-ended")
    {
        if !ctx.json {
            ctx.say(goes_on)?;
        }
        return Ok(followed
            .last
            .map_or(Exit::Well, |last| Exit::from_wire(last.exit_code)));
    }
    close(ctx, &followed)
}

/// A duration on the wire. At least 1: 0 stands for "as the file says".
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Connects, giving a master that is started the flags that say how it listens.
async fn connect_for(ctx: &mut Ctx<'_>, listen: &ListenArgs) -> Result<Client, Error> {
    let more = listen_args(listen);
    if more.is_empty() {
        return connect(ctx, Start::Always).await;
    }
    let daemon = ctx.env.background.clone().map(|daemon| daemon.with(more));
    let env = CliEnv {
        background: daemon,
        ..ctx.env.clone()
    };
    let mut inner = Ctx {
        env: &env,
        io: &mut *ctx.io,
        json: ctx.json,
        cluster: ctx.cluster.clone(),
        verbose: ctx.verbose.clone(),
    };
    let mut client = connect(&mut inner, Start::Always).await?;
    if let Some(wanted) = &listen.listen {
        let info = client
            .info(within(LOOK_UP, InfoRequest {}))
            .await?
            .into_inner();
        if !wanted.ends_with(":0") && &info.listen != wanted {
            ctx.say(&format!(
                "note: the master that runs listens on {}, not on {wanted}",
                info.listen
            ))?;
        }
    }
    Ok(client)
}

fn listen_args(listen: &ListenArgs) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(address) = &listen.listen {
        args.extend(["--listen".into(), address.into()]);
    }
    if !listen.advertise.is_empty() {
        args.extend(["--advertise".into(), listen.advertise.join(",").into()]);
    }
    if let Some(dir) = &listen.agent_dir {
        args.extend(["--agent-dir".into(), dir.into()]);
    }
    args
}

/// Asks before instances that there are go away.
fn ask_about(ctx: &mut Ctx<'_>, lines: &[PlanLine], yes: bool) -> Result<(), Error> {
    let doomed: Vec<&PlanLine> = lines
        .iter()
        .filter(|line| matches!(line.action.as_str(), "terminate" | "replace"))
        .collect();
    if doomed.is_empty() || yes {
        return Ok(());
    }
    for line in &doomed {
        ctx.say(&format!(
            "  {} {}: {}",
            line.action, line.instance, line.detail
        ))?;
    }
    let names: Vec<&str> = doomed.iter().map(|line| line.instance.as_str()).collect();
    confirm(
        ctx,
        yes,
        &format!(
            "terminate or replace {}: {}",
            instances(doomed.len()),
            named(&names)
        ),
    )
}

/// `aot-master apply [TARGET]`.
///
/// # Errors
/// When the master can't be asked or followed.
pub async fn apply(ctx: &mut Ctx<'_>, args: ApplyArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = ApplyRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.which.narrow.exclude(),
        limit: args.which.narrow.limit(),
        target: args.which.target.unwrap_or_default(),
        has_from: args.from.is_some(),
        from: args.from.unwrap_or_default(),
        force: args.force,
        failed: args.failed,
    };
    let events = client.apply(request).await?.into_inner();
    let goes_on = "the stages go on; look at them with aot-master status and aot-master logs";
    let followed = follow(ctx, events, ctrl_c(), goes_on, false).await?;
    close(ctx, &followed)
}

/// The closing table, what the last event says, and the log; the exit code is the last event's.
fn close(ctx: &mut Ctx<'_>, followed: &Followed) -> Result<Exit, Error> {
    let Some(last) = &followed.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    if ctx.json {
        return Ok(exit);
    }
    ctx.print(&closing_table_of(ctx, followed))?;
    let rows = followed.board.rows().iter();
    let told = rows.map(|row| (&*row.name, &*row.phase, &*row.explanation));
    let why = explanations(told, ctx.style());
    if !why.is_empty() {
        ctx.print(&why)?;
    }
    let fields = fields_of(last);
    let summary = fields
        .get("summary")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let counts = count_words(
        summary
            .iter()
            .map(|(word, count)| (word.as_str(), count.as_u64().unwrap_or_default())),
    );
    if fields.get("changed").and_then(Value::as_bool) == Some(false) && exit == Exit::Well {
        let ready = summary
            .get("ready")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let are = if ready == 1 { "is" } else { "are" };
        let ready = instances(usize::try_from(ready).unwrap_or(usize::MAX));
        ctx.print(&format!("nothing to do: {ready} {are} ready"))?;
    } else if !counts.is_empty() {
        ctx.print(&counts)?;
    }
    if let Some(log) = fields
        .get("log")
        .and_then(Value::as_str)
        .filter(|log| !log.is_empty())
    {
        ctx.print(&format!("log: {log}"))?;
    }
    // The plain view has said it already.
    if exit != Exit::Well && ctx.env.interactive && !last.message.is_empty() {
        ctx.say(&format!("error: {}", last.message))?;
    }
    Ok(exit)
}

fn closing_table_of(ctx: &Ctx<'_>, followed: &Followed) -> String {
    if followed.board.rows().is_empty() {
        return String::new();
    }
    closing_table(&followed.board, ctx.style())
}
