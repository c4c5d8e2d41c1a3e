//! `start`, `stop`, `reboot`, `terminate` and `cleanup`: what changes or ends machines, after asking where it must.

use aot_proto::plural;
use aot_proto::v1::{
    Event, InstanceView, LifecycleAction, LifecycleRequest, MachineState, StatusRequest,
    TerminateRequest,
};

use super::Ctx;
use super::args::{AskedLifecycleArgs, LifecycleArgs, MaybeTarget, TargetArg};
use super::cluster_source::{ClusterAsk, ClusterSource};
use super::confirm::{confirm, named};
use super::connect::{Start, connect};
use super::dial::{Client, QUERY, about, millis, within};
use super::error::{Error, Exit};
use super::follow_cluster::follow;
use super::interrupt::Interrupt;
use crate::view::receipt_line;

/// `aot-master start TARGET`.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub(crate) async fn start(ctx: &mut Ctx<'_>, args: LifecycleArgs) -> Result<Exit, Error> {
    let client = connect(ctx, Start::WithState).await?;
    change(ctx, client, LifecycleAction::Start, args).await
}

/// `aot-master stop TARGET` and `aot-master reboot TARGET`: `action` says which.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked or followed.
pub(crate) async fn asked(
    ctx: &mut Ctx<'_>,
    action: LifecycleAction,
    args: AskedLifecycleArgs,
) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let target = &args.lifecycle.target;
    ask_first(ctx, &mut client, action.as_str(), target, args.yes).await?;
    change(ctx, client, action, args.lifecycle).await
}

/// Asks for the change and follows it to its end.
async fn change(
    ctx: &mut Ctx<'_>,
    client: Client,
    action: LifecycleAction,
    args: LifecycleArgs,
) -> Result<Exit, Error> {
    let request = LifecycleRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.target.narrow.exclude(),
        limit: args.target.narrow.limit(),
        target: args.target.target,
        action: action.into(),
        timeout_ms: args.timeout.map_or(0, millis),
    };
    let goes_on = format!("the {action} was requested and continues; see aot-master status");
    end(ctx, client, ClusterAsk::Lifecycle(request), &goes_on).await
}

/// `aot-master terminate TARGET`.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked or followed.
pub(crate) async fn terminate(
    ctx: &mut Ctx<'_>,
    target: TargetArg,
    yes: bool,
) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    ask_first(ctx, &mut client, "terminate", &target, yes).await?;
    let request = TerminateRequest {
        cluster: ctx.cluster.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        target: target.target,
    };
    let goes_on = "the instances are still being terminated; see aot-master status";
    end(ctx, client, ClusterAsk::Terminate(request), goes_on).await
}

/// Asks whether to do `action` to the instances of the target, by their names.
pub(super) async fn ask_first(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    action: &str,
    target: &TargetArg,
    yes: bool,
) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let request = StatusRequest {
        cluster: ctx.cluster.clone(),
        target: Some(target.target.clone()),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        ..StatusRequest::default()
    };
    let reply = client.status(within(QUERY, request)).await?;
    let found = reply.into_inner().instances;
    let Some(cluster) = found.first().map(|view| view.cluster.clone()) else {
        return Err(Error::NoMatch {
            target: MaybeTarget::from(target.clone()).to_string(),
        });
    };
    let names: Vec<&str> = found.iter().map(|view| view.name.as_str()).collect();
    let count = plural::count(names.len(), "instance");
    let question = format!("{action} {count} of cluster {cluster}: {}", named(&names));
    confirm(ctx, yes, &question)
}

/// `aot-master cleanup [CLUSTER]`.
///
/// # Errors
/// When nobody says yes, it is not clear which cluster to act on, or the master can't be asked or followed.
pub(crate) async fn cleanup(
    ctx: &mut Ctx<'_>,
    name: Option<String>,
    yes: bool,
) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let wanted = name.or_else(|| ctx.cluster.clone());
    let (cluster, members) = which(&mut client, wanted).await?;
    let living = members
        .iter()
        .filter(|view| {
            view.state != 0 && view.state() != MachineState::Terminated // unknown to us may live
        })
        .count();
    let question = format!(
        "terminate {} of cluster {cluster} and delete everything aot created for it",
        plural::count(living, "instance")
    );
    confirm(ctx, yes, &question)?;
    let goes_on = "the cleanup is still running; run it again for its receipt";
    end(ctx, client, ClusterAsk::Cleanup(cluster), goes_on).await
}

/// The cluster to act on and its instances.
async fn which(
    client: &mut Client,
    wanted: Option<String>,
) -> Result<(String, Vec<InstanceView>), Error> {
    let request = StatusRequest {
        cluster: wanted.clone(),
        ..StatusRequest::default()
    };
    let mut request = within(QUERY, request);
    if let Some(wanted) = &wanted {
        request = about(wanted, request);
    }
    let reply = client.status(request).await?.into_inner();
    if let Some(wanted) = wanted {
        return Ok((wanted, reply.instances));
    }
    let names: Vec<&str> = reply
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    match names[..] {
        [only] => Ok((only.to_owned(), reply.instances)),
        [] => Err(Error::usage(
            "no cluster to clean up",
            "aot-master status shows what there is",
        )),
        _ => Err(Error::usage(
            format!("which cluster? There are {}", named(&names)),
            "aot-master cleanup CLUSTER",
        )),
    }
}

/// Asks, and follows to the end, with the lines of the receipt as results.
pub(super) async fn end(
    ctx: &mut Ctx<'_>,
    client: Client,
    ask: ClusterAsk,
    goes_on: &str,
) -> Result<Exit, Error> {
    let mut source = ClusterSource::new(ctx, client, ask, Start::WithState, goes_on)?;
    let events = source.begin(ctx).await?;
    let mut receipt = Vec::new();
    let style = ctx.style();
    let mut each = |event: &Event| receipt.extend(receipt_line(event, style));
    let followed = follow(
        ctx,
        &mut source,
        events,
        Interrupt::of_process(false),
        &mut each,
    )
    .await;
    if !ctx.json {
        ctx.print(&receipt.join("\n"))?;
    }
    let Some(last) = followed?.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    let is_unsaid = ctx.env.interactive && !ctx.quiet || ctx.quiet && exit != Exit::Well;
    if !ctx.json && is_unsaid && !last.message.is_empty() {
        ctx.message(&last.message)?;
    }
    Ok(exit)
}
