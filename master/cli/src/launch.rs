//! `plan`, `launch` and `apply`: what changes instances on purpose.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aot_archive::Digest;
use aot_proto::plural;
use aot_proto::v1::{
    ApplyRequest, InfoReply, InfoRequest, LaunchRequest, PlanAction, PlanLine, PlanReply,
    PlanRequest, Problems,
};
use serde_json::Value;

use super::args::{ApplyArgs, LaunchArgs, ListenArgs};
use super::confirm::{confirm, named};
use super::connect::{Start, connect};
use super::dial::{ASK_PROVIDER, Client, QUERY, within};
use super::error::{Error, Exit, exit_of};
use super::follow_cluster::{FollowedCluster, ctrl_c, follow};
use super::{CliEnv, Ctx};
use crate::view::{
    closing_table, counts_text, explanations, fields_of, plan_json, plan_lines, plan_summary,
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

/// Asks for the plan, and says what to know before it.
async fn ask_plan(
    ctx: &mut Ctx<'_>,
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
        aws_settings: aws_settings(std::env::vars_os()),
        prepared: None, // masters say it to each other
    };
    let plan = client
        .plan(within(ASK_PROVIDER, request))
        .await?
        .into_inner();
    ctx.compare_build_of(client, &plan.build, plan.background)
        .await?;
    for notice in &plan.notices {
        ctx.message(&format!("warning: {notice}"))?;
    }
    Ok(plan)
}

/// The settings of the AWS SDK in this shell: each name, and a digest of its value. The master compares them with its
/// own: one that was started in the background has those of the shell that started it.
fn aws_settings(vars: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let named = vars.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        if !name.starts_with("AWS_") || value.is_empty() {
            return None;
        }
        let mut digest = Digest::default();
        digest.update(value.as_encoded_bytes());
        Some((name, digest.hex()))
    });
    named.collect()
}

/// `aot-master plan FILE`.
///
/// # Errors
/// When the file or the master can't be read or asked.
pub(crate) async fn plan(ctx: &mut Ctx<'_>, file: &Path, prune: bool) -> Result<Exit, Error> {
    let (path, text) = read(file)?;
    let mut client = connect(ctx, Start::Always).await?;
    let plan = ask_plan(ctx, &mut client, &path, &text, prune, false).await?;
    if ctx.json {
        for line in plan_json(&plan) {
            ctx.print(&line.to_string())?;
        }
    } else {
        ctx.print(&plan_lines(&plan, ctx.style()))?;
        ctx.message(&plan_summary(&plan))?;
        if !plan.problems.is_empty() {
            ctx.print(&problem_lines(&plan.problems, 0, ctx.style()))?;
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
pub(crate) async fn launch(ctx: &mut Ctx<'_>, args: &LaunchArgs) -> Result<Exit, Error> {
    let (path, text) = read(&args.file)?;
    let start = match args.background {
        true => Start::InPlaceOfAService,
        false => Start::Always,
    };
    let mut client = connect_for(ctx, &args.listen, start).await?;
    let plan = ask_plan(ctx, &mut client, &path, &text, args.prune, true).await?;
    if !plan.problems.is_empty() {
        let problems = plan.problems;
        return Err(Error::Problems(Problems { problems, more: 0 }));
    }
    if !ctx.json {
        ctx.message(&plan_summary(&plan))?;
    }
    ask_whose(ctx, &plan, args.yes)?;
    ask_about(ctx, &plan.lines, args.yes)?;
    let request = LaunchRequest {
        path,
        text,
        prune: args.prune,
        timeout_ms: args.timeout.map_or(0, millis),
        detach: args.detach,
        checked: true,
        prepared: None,
    };
    let events = client.launch(request).await?.into_inner();
    let goes_on =
        "the launch is still running; see aot-master status, or launch the file again to follow it";
    let followed = follow(ctx, events, ctrl_c(), goes_on, args.detach).await?;
    if args.detach
        && followed
            .last
            .as_ref()
            .is_none_or(|last| !last.last || last.event != "launch-ended")
    {
        if !ctx.json {
            ctx.message(goes_on)?;
        }
        return Ok(followed
            .last
            .map_or(Exit::Well, |last| Exit::from_wire(last.exit_code)));
    }
    close(ctx, &followed)
}

/// A duration on the wire. At least 1: 0 stands for "as the file says".
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Connects, giving a master that is started the flags that say how it listens.
pub(super) async fn connect_for(
    ctx: &mut Ctx<'_>,
    listen: &ListenArgs,
    start: Start,
) -> Result<Client, Error> {
    let more = listen_args(listen);
    if more.is_empty() {
        return connect(ctx, start).await;
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
        greets: ctx.greets,
        compared: ctx.compared,
    };
    let mut client = connect(&mut inner, start).await?;
    ctx.compared = inner.compared;
    let info = client
        .info(within(QUERY, InfoRequest {}))
        .await?
        .into_inner();
    ctx.compare_build(&info)?;
    for note in other_than_asked(listen, &info) {
        ctx.message(&note)?;
    }
    Ok(client)
}

/// What the master that runs was not started with, and the way out.
fn other_than_asked(listen: &ListenArgs, info: &InfoReply) -> Vec<String> {
    let mut notes = Vec::new();
    let listens = listen
        .listen
        .as_ref()
        .filter(|wanted| !wanted.ends_with(":0"));
    if let Some(wanted) = listens.filter(|wanted| **wanted != info.listen) {
        notes.push(format!("listens on {}, not on {wanted}", info.listen));
    }
    if !listen.advertise.is_empty() && listen.advertise != info.advertise {
        let (has, wanted) = (info.advertise.join(","), listen.advertise.join(","));
        notes.push(format!("advertises {has} to machines, not {wanted}"));
    }
    let way_out = match info.background {
        true => "aot-master restart with the same options changes that",
        false => "it was started with aot-master serve: change its settings there and restart it",
    };
    let line = |what| format!("note: the master that runs {what}; {way_out}");
    notes.into_iter().map(line).collect()
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
    if let Some(age) = &listen.keep_jobs {
        args.extend(["--keep-jobs".into(), age.into()]);
    }
    if let Some(size) = &listen.keep_output {
        args.extend(["--keep-output".into(), size.into()]);
    }
    if let Some(size) = &listen.keep_free {
        args.extend(["--keep-free".into(), size.into()]);
    }
    args
}

/// Asks before another file takes over a cluster whose instances it does not name: two files with one cluster's name
/// are more often a slip than a wish.
fn ask_whose(ctx: &mut Ctx<'_>, plan: &PlanReply, yes: bool) -> Result<(), Error> {
    if plan.other_file.is_empty() || yes {
        return Ok(());
    }
    let left_out: Vec<&str> = plan
        .lines
        .iter()
        .filter(|line| matches!(line.action(), PlanAction::Orphan | PlanAction::Terminate))
        .map(|line| line.instance.as_str())
        .collect();
    let question = format!(
        "this cluster was launched from {}, and this file leaves out {} of it ({}): launch it from this one",
        plan.other_file,
        plural::count(left_out.len(), "instance"),
        named(&left_out)
    );
    confirm(ctx, yes, &question)
}

/// Asks before instances that there are go away.
fn ask_about(ctx: &mut Ctx<'_>, lines: &[PlanLine], yes: bool) -> Result<(), Error> {
    let doomed: Vec<&PlanLine> = lines
        .iter()
        .filter(|line| matches!(line.action(), PlanAction::Terminate | PlanAction::Replace))
        .collect();
    if doomed.is_empty() || yes {
        return Ok(());
    }
    for line in &doomed {
        ctx.message(&format!(
            "  {} {}: {}",
            line.action(),
            line.instance,
            line.detail
        ))?;
    }
    let names: Vec<&str> = doomed.iter().map(|line| line.instance.as_str()).collect();
    confirm(
        ctx,
        yes,
        &format!(
            "terminate or replace {}: {}",
            plural::count(doomed.len(), "instance"),
            named(&names)
        ),
    )
}

/// `aot-master apply [TARGET]`.
///
/// # Errors
/// When the master can't be asked or followed.
pub(crate) async fn apply(ctx: &mut Ctx<'_>, args: ApplyArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = ApplyRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.which.narrow.exclude(),
        limit: args.which.narrow.limit(),
        target: args.which.target,
        from: args.from,
        force: args.force,
        failed: args.failed,
    };
    let events = client.apply(request).await?.into_inner();
    let goes_on = "the stages are still running; see aot-master status and aot-master logs";
    let followed = follow(ctx, events, ctrl_c(), goes_on, false).await?;
    close(ctx, &followed)
}

/// The closing table, what the last event says, and the log; the exit code is the last event's.
fn close(ctx: &mut Ctx<'_>, followed: &FollowedCluster) -> Result<Exit, Error> {
    let Some(last) = &followed.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    if ctx.json {
        return Ok(exit);
    }
    ctx.print(&closing_table_of(ctx, followed))?;
    let rows = followed.board.rows().iter();
    let told = rows.map(|row| (&*row.name, row.phase(), &*row.explanation));
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
    let counts = counts_text(
        summary
            .iter()
            .map(|(word, count)| (word.as_str(), count.as_u64().unwrap_or_default())),
    );
    if fields.get("changed").and_then(Value::as_bool) == Some(false) && exit == Exit::Well {
        let ready = summary
            .get("ready")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let are = plural::is_are(ready);
        let ready = plural::count(ready, "instance");
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
    if exit != Exit::Well && ctx.is_live() && !last.message.is_empty() {
        ctx.message(&format!("error: {}", last.message))?;
    }
    Ok(exit)
}

fn closing_table_of(ctx: &Ctx<'_>, followed: &FollowedCluster) -> String {
    if followed.board.rows().is_empty() {
        return String::new();
    }
    closing_table(&followed.board, ctx.style(), ctx.columns())
}
