//! `masters`: who shares this master's records, and who has which clusters.

use std::time::Duration;

use aot_proto::v1::masters_reply::Entry;
use aot_proto::v1::{DrainMasterRequest, MastersRequest, MoveClusterRequest};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Status;

use super::Ctx;
use super::args::MastersCommand;
use super::connect::{Start, connect};
use super::dial::{Client, QUERY, within};
use super::error::{Error, Exit};
use crate::view::masters_table;

/// Longest wait for what was asked for to have been done: the owner looks once a second, and the next one reads the records.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// `aot-master masters ...`.
///
/// # Errors
/// When the master can't be asked, or what was asked for was not done in time.
pub(crate) async fn masters(
    ctx: &mut Ctx<'_>,
    command: Option<MastersCommand>,
) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    match command {
        None => show(ctx, client).await,
        Some(MastersCommand::Move { name, master }) => {
            let request = MoveClusterRequest {
                cluster: name.clone(),
                master,
            };
            let to = client.move_cluster(within(QUERY, request)).await?;
            let to = to.into_inner().master;
            let is_there = |it: &Entry| it.id == to && it.clusters.contains(&name);
            until(&mut client, |all| all.iter().any(is_there)).await?;
            ctx.message(&format!("{name} is with {to}"))?;
            Ok(Exit::Well)
        }
        Some(MastersCommand::Drain { master, undo }) => {
            let request = DrainMasterRequest { master, undo };
            let of = client.drain_master(within(QUERY, request)).await?;
            let of = of.into_inner().master;
            if undo {
                ctx.message(&format!("{of} takes its share again"))?;
                return Ok(Exit::Well);
            }
            let is_empty = |it: &Entry| it.id == of && it.clusters.is_empty();
            until(&mut client, |all| all.iter().any(is_empty)).await?;
            ctx.message(&format!(
                "{of} has no cluster any more; its next start takes its share again"
            ))?;
            Ok(Exit::Well)
        }
    }
}

/// Waits until the masters are as they should be.
async fn until(client: &mut Client, is_so: impl Fn(&[Entry]) -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + DONE_WITHIN;
    loop {
        let reply = client.masters(within(QUERY, MastersRequest {})).await?;
        if is_so(&reply.into_inner().masters) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Status::deadline_exceeded(
                "it is on record and was not done within a minute: look at `aot-master masters`",
            )
            .into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn show(ctx: &mut Ctx<'_>, mut client: Client) -> Result<Exit, Error> {
    let request = within(QUERY, MastersRequest {});
    let reply = client.masters(request).await?.into_inner();
    if ctx.json {
        for master in &reply.masters {
            ctx.print(&master_json(master, reply.alone).to_string())?;
        }
    } else {
        ctx.print(&masters_table(&reply, ctx.style(), ctx.columns()))?;
        if reply.alone {
            ctx.message("this master is alone: its records are shared with no other")?;
        }
    }
    if !reply.nobodys.is_empty() {
        ctx.message(&format!(
            "warning: no master has these clusters at the moment: {}",
            reply.nobodys.join(", ")
        ))?;
    }
    Ok(Exit::Well)
}

fn master_json(master: &Entry, alone: bool) -> Value {
    json!({
        "id": master.id,
        "build": master.build,
        "agents": master.agents,
        "peer": (!master.peer.is_empty()).then_some(&master.peer),
        "silent_ms": master.silent_ms,
        "alive": master.alive,
        "draining": master.draining,
        "answers": master.answers,
        "alone": alone,
        "clusters": master.clusters,
        "sessions": master.sessions,
    })
}
