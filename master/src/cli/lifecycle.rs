//! `terminate` and `cleanup`: what ends instances, after asking.

use aot_proto::v1::{CleanupRequest, Event, InstanceView, StatusRequest, TerminateRequest};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::Ctx;
use super::confirm::{confirm, instances, named};
use super::connect::{Client, LOOK_UP, Start, connect, within};
use super::error::{Error, Exit};
use super::follow::{ctrl_c, follow};
use crate::view::receipt_line;

/// `aot-master terminate TARGET`.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked or followed.
pub async fn terminate(ctx: &mut Ctx<'_>, target: String, yes: bool) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    if !yes {
        let request = StatusRequest {
            cluster: ctx.cluster.clone(),
            target: target.clone(),
            live: false,
        };
        let found = client
            .status(within(LOOK_UP, request))
            .await?
            .into_inner()
            .instances;
        let Some(cluster) = found.first().map(|view| view.cluster.clone()) else {
            return Err(Error::NoMatch { target });
        };
        let names: Vec<&str> = found.iter().map(|view| view.name.as_str()).collect();
        let count = instances(names.len());
        confirm(
            ctx,
            yes,
            &format!("terminate {count} of cluster {cluster}: {}", named(&names)),
        )?;
    }
    let request = TerminateRequest {
        cluster: ctx.cluster.clone(),
        target,
    };
    let events = client.terminate(request).await?.into_inner();
    let goes_on = "the instances go on being terminated; look at them with aot-master status";
    end(ctx, events, goes_on).await
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
async fn end(
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
