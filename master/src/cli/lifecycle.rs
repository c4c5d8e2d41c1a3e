//! `start`, `stop`, `reboot`, `terminate` and `cleanup`: what changes or ends machines, after asking where it must.

use aot_proto::v1::{
    CleanupRequest, Event, InstanceView, LifecycleRequest, StatusRequest, TerminateRequest,
};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::Ctx;
use super::args::{AskedLifecycleArgs, LifecycleArgs, MaybeTarget, Target};
use super::confirm::{confirm, instances, named};
use super::connect::{Client, LOOK_UP, Start, connect, within};
use super::error::{Error, Exit};
use super::follow::{ctrl_c, follow};
use super::launch::millis;
use crate::view::receipt_line;

/// `aot-master start TARGET`.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub async fn start(ctx: &mut Ctx<'_>, args: LifecycleArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    change(ctx, &mut client, "start", args).await
}

/// `aot-master stop TARGET` and `aot-master reboot TARGET`: `action` is the word.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked or followed.
pub async fn asked(
    ctx: &mut Ctx<'_>,
    action: &'static str,
    args: AskedLifecycleArgs,
) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let target = &args.lifecycle.target;
    ask_first(ctx, &mut client, action, target, args.yes).await?;
    change(ctx, &mut client, action, args.lifecycle).await
}

/// Asks for the change and follows it to its end.
async fn change(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    action: &str,
    args: LifecycleArgs,
) -> Result<Exit, Error> {
    let request = LifecycleRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.target.narrow.exclude(),
        limit: args.target.narrow.limit(),
        target: args.target.target,
        action: action.to_owned(),
        timeout_ms: args.timeout.map_or(0, millis),
    };
    let events = client.lifecycle(request).await?.into_inner();
    let goes_on =
        format!("the {action} was asked for and goes on; look at it with aot-master status");
    end(ctx, events, &goes_on).await
}

/// `aot-master terminate TARGET`.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked or followed.
pub async fn terminate(ctx: &mut Ctx<'_>, target: Target, yes: bool) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    ask_first(ctx, &mut client, "terminate", &target, yes).await?;
    let request = TerminateRequest {
        cluster: ctx.cluster.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        target: target.target,
    };
    let events = client.terminate(request).await?.into_inner();
    let goes_on = "the instances go on being terminated; look at them with aot-master status";
    end(ctx, events, goes_on).await
}

/// Asks whether to do `action` to the instances of the target, by their names.
pub(super) async fn ask_first(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    action: &str,
    target: &Target,
    yes: bool,
) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let request = StatusRequest {
        cluster: ctx.cluster.clone(),
        target: target.target.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        live: false,
    };
    let reply = client.status(within(LOOK_UP, request)).await?;
    let found = reply.into_inner().instances;
    let Some(cluster) = found.first().map(|view| view.cluster.clone()) else {
        return Err(Error::NoMatch {
            target: MaybeTarget::from(target.clone()).to_string(),
        });
    };
    let names: Vec<&str> = found.iter().map(|view| view.name.as_str()).collect();
    let count = instances(names.len());
    let question = format!("{action} {count} of cluster {cluster}: {}", named(&names));
    confirm(ctx, yes, &question)
}

/// `aot-master cleanup [CLUSTER]`.
///
/// # Errors
/// When nobody says yes, it is not clear which cluster is meant, or the master can't be asked or followed.
pub async fn cleanup(ctx: &mut Ctx<'_>, name: Option<String>, yes: bool) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let wanted = name.unwrap_or_else(|| ctx.cluster.clone());
    let (cluster, members) = which(&mut client, wanted).await?;
    let living = members
        .iter()
        .filter(|view| !matches!(view.state.as_str(), "" | "terminated"))
        .count();
    let question = format!(
        "terminate {} of cluster {cluster} and delete all that aot made for it",
        instances(living)
    );
    confirm(ctx, yes, &question)?;
    let events = client
        .cleanup(CleanupRequest { cluster })
        .await?
        .into_inner();
    let goes_on = "the cleanup goes on; run it again for its receipt";
    end(ctx, events, goes_on).await
}

/// The cluster that is meant and its instances.
async fn which(client: &mut Client, wanted: String) -> Result<(String, Vec<InstanceView>), Error> {
    let request = StatusRequest {
        cluster: wanted.clone(),
        ..StatusRequest::default()
    };
    let reply = client.status(within(LOOK_UP, request)).await?.into_inner();
    if !wanted.is_empty() {
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
            "there is no cluster to clean up",
            "aot-master status shows what there is",
        )),
        _ => Err(Error::usage(
            format!("which cluster? There are {}", named(&names)),
            "aot-master cleanup CLUSTER",
        )),
    }
}

/// Follows to the end, with the lines of the receipt as results.
pub(super) async fn end(
    ctx: &mut Ctx<'_>,
    events: impl Stream<Item = Result<Event, Status>>,
    goes_on: &str,
) -> Result<Exit, Error> {
    let mut receipt = Vec::new();
    let style = ctx.style();
    let kept = events.inspect(|event| {
        if let Ok(event) = event {
            receipt.extend(receipt_line(event, style));
        }
    });
    let followed = follow(ctx, kept, ctrl_c(), goes_on, false).await;
    if !ctx.json {
        ctx.print(&receipt.join("\n"))?;
    }
    let Some(last) = followed?.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    if !ctx.json && ctx.env.interactive && !last.message.is_empty() {
        ctx.say(&last.message)?;
    }
    Ok(exit)
}
