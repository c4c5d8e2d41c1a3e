//! `launch` and `apply`: what changes instances on purpose.

use aot_proto::plural;
use aot_proto::v1::{ApplyFileRequest, ApplyRequest, LaunchRequest, PlanRequest, Problems};
use serde_json::Value;

use super::Ctx;
use super::args::{ApplyArgs, LaunchArgs, StageArg};
use super::cluster_source::{ClusterAsk, ClusterSource};
use super::connect::{Start, connect};
use super::connect_for::connect_for;
use super::dial::{Client, millis};
use super::error::{Error, Exit};
use super::follow_cluster::{FollowedCluster, follow};
use super::interrupt::Interrupt;
use super::plan::{SentFile, ask_about, ask_at_once, ask_plan, ask_whose, plan_of_apply};
use super::stages;
use crate::view::{closing_table, counts_text, explanations, fields_of, next_lines, plan_summary};

/// `aot-master launch FILE`.
///
/// # Errors
/// When the file is bad, nobody says yes to what it destroys, or the master can't be asked or followed.
pub(crate) async fn launch(ctx: &mut Ctx<'_>, args: &LaunchArgs) -> Result<Exit, Error> {
    let file = SentFile::read(ctx, &args.file, &args.variables).await?;
    let start = match args.background {
        true => Start::InPlaceOfAService,
        false => Start::Always,
    };
    let mut client = connect_for(ctx, &args.listen, start).await?;
    let wanted = PlanRequest {
        prune: args.prune,
        without_things: true,
        ..file.planned()
    };
    let plan = ask_plan(ctx, &mut client, wanted).await?;
    if !plan.problems.is_empty() {
        let problems = plan.problems;
        return Err(Error::Problems(Problems { problems, more: 0 }));
    }
    if !ctx.json {
        ctx.note(&plan_summary(&plan))?;
    }
    ask_whose(ctx, &plan, args.yes)?;
    ask_about(ctx, &plan.lines, args.yes)?;
    ask_at_once(ctx, &plan.lines, args.yes || args.update.is_paced())?;
    let request = LaunchRequest {
        path: file.path,
        text: file.text,
        prune: args.prune,
        timeout_ms: args.timeout.map_or(0, millis),
        detach: args.detach,
        checked: true,
        prepared: None,
        variables: Some(file.variables),
        secrets: file.secrets,
        update: args.update.wire(),
    };
    let goes_on =
        "the launch is still running; see aot-master status, or launch the file again to follow it";
    let ask = ClusterAsk::Launch(Box::new(request));
    let source = ClusterSource::new(ctx, client, ask, start, goes_on)?;
    let followed = follow_to_end(ctx, source.detached(args.detach)).await?;
    if args.detach
        && followed
            .last
            .as_ref()
            .is_none_or(|last| !last.last || last.event != "launch-ended")
    {
        if !ctx.json {
            ctx.note(goes_on)?;
        }
        return Ok(followed
            .last
            .map_or(Exit::Well, |last| Exit::from_wire(last.exit_code)));
    }
    let exit = close(ctx, &followed)?;
    say_next(ctx, &followed, exit)?;
    Ok(exit)
}

/// What to type now, for a person.
fn say_next(ctx: &mut Ctx<'_>, followed: &FollowedCluster, exit: Exit) -> Result<(), Error> {
    if ctx.json || !ctx.env.stderr_terminal {
        return Ok(());
    }
    let lines = next_lines(&followed.board, ctx.cluster.as_deref(), exit == Exit::Well);
    match lines.is_empty() {
        true => Ok(()),
        false => ctx.note(&lines.join("\n")),
    }
}

/// `aot-master apply [TARGET]`.
///
/// # Errors
/// When the master can't be asked or followed.
pub(crate) async fn apply(ctx: &mut Ctx<'_>, args: ApplyArgs) -> Result<Exit, Error> {
    let file = SentFile::of_apply(ctx, args.file.as_deref(), &args.variables).await?;
    let from_name = match &args.from {
        Some(StageArg::Name(name)) => name.clone(),
        _ => String::new(),
    };
    let mut client = connect(ctx, Start::WithState).await?;
    let from = stages::number(ctx, &mut client, &args.which, args.from).await?;
    let request = ApplyRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.which.narrow.exclude(),
        limit: args.which.narrow.limit(),
        target: args.which.target,
        from,
        force: args.force,
        failed: args.failed,
        update: args.update.wire(),
    };
    let planned = plan_of_apply(request.clone(), file.as_ref());
    let said = args.yes || args.update.is_paced();
    ask_before_apply(ctx, &mut client, planned, said).await?;
    let goes_on = "the stages are still running; see aot-master status and aot-master logs";
    let ask = match file {
        None => ClusterAsk::Apply(request),
        Some(file) => ClusterAsk::ApplyFile(Box::new(ApplyFileRequest {
            apply: Some(request),
            path: file.path,
            text: file.text,
            variables: Some(file.variables),
            secrets: file.secrets,
            prepared: None,
            from_name,
        })),
    };
    let source = ClusterSource::new(ctx, client, ask, Start::WithState, goes_on)?;
    let followed = follow_to_end(ctx, source).await?;
    close(ctx, &followed)
}

/// Asks before many that are ready are changed at once. What stands in the way of the plan stands in that of the apply, which says it.
async fn ask_before_apply(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    request: PlanRequest,
    yes: bool,
) -> Result<(), Error> {
    if yes || !ctx.env.interactive {
        return Ok(());
    }
    match ask_plan(ctx, client, request).await {
        Ok(plan) => ask_at_once(ctx, &plan.lines, yes),
        Err(_) => Ok(()),
    }
}

/// Asks, and shows all that comes.
async fn follow_to_end(
    ctx: &mut Ctx<'_>,
    mut source: ClusterSource,
) -> Result<FollowedCluster, Error> {
    let events = source.begin(ctx).await?;
    let interrupt = Interrupt::of_process(ctx.env.interactive);
    follow(ctx, &mut source, events, interrupt, &mut |_| ()).await
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
    let rows = followed.board.rows().into_iter();
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
    if exit != Exit::Well && (ctx.is_live() || ctx.quiet) && !last.message.is_empty() {
        ctx.message(&format!("error: {}", last.message))?;
    }
    Ok(exit)
}

fn closing_table_of(ctx: &Ctx<'_>, followed: &FollowedCluster) -> String {
    if followed.board.is_empty() {
        return String::new();
    }
    closing_table(&followed.board, ctx.style(), ctx.columns())
}
