//! `agents`: who holds a certificate.

use aot_proto::v1::{AgentsReply, AgentsRequest, TargetRequest, agents_reply};
use serde_json::{Value, json};

use super::Ctx;
use super::args::{AgentsArgs, AgentsCommand, Target};
use super::connect::{LOOK_UP, Start, connect, within};
use super::error::{Error, Exit};
use super::lifecycle::ask_first;
use crate::view::{agents_table, rfc3339};

/// `aot-master agents ...`.
///
/// # Errors
/// When the master can't be asked.
pub async fn run(ctx: &mut Ctx<'_>, args: AgentsArgs) -> Result<Exit, Error> {
    match args.command {
        None => agents(ctx).await,
        Some(AgentsCommand::Revoke { target, yes }) => revoke(ctx, target, yes).await,
    }
}

/// Takes identities away, after asking.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked.
async fn revoke(ctx: &mut Ctx<'_>, target: Target, yes: bool) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    ask_first(ctx, &mut client, "revoke the identities of", &target, yes).await?;
    let request = TargetRequest {
        cluster: ctx.cluster.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        target: target.target,
    };
    let reply = client.revoke(within(LOOK_UP, request)).await?.into_inner();
    for agent in &reply.agents {
        if ctx.json {
            ctx.print(&agent_json(agent).to_string())?;
        } else {
            ctx.print(&format!(
                "{}  {}  revoked",
                agent.instance, agent.machine_id
            ))?;
        }
    }
    if !ctx.json {
        ctx.say("their machines are shut out; terminate them, and launch again for others")?;
    }
    Ok(Exit::Well)
}

/// Every agent's identity.
///
/// # Errors
/// When the master can't be asked.
async fn agents(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = AgentsRequest {
        cluster: ctx.cluster.clone(),
    };
    let reply: AgentsReply = client.agents(within(LOOK_UP, request)).await?.into_inner();
    if ctx.json {
        for agent in &reply.agents {
            ctx.print(&agent_json(agent).to_string())?;
        }
    } else if reply.agents.is_empty() {
        ctx.say("no agents yet")?;
    } else {
        let table = agents_table(&reply, ctx.style());
        ctx.print(&table)?;
    }
    Ok(Exit::Well)
}

fn agent_json(agent: &agents_reply::Entry) -> Value {
    json!({
        "cluster": agent.cluster,
        "instance": agent.instance,
        "machine_id": agent.machine_id,
        "serial": agent.serial,
        "expires": rfc3339(agent.expires_unix.saturating_mul(1000)),
        "last_seen": rfc3339(agent.last_seen_unix_ms),
        "connected": agent.connected,
        "spiffe_id": agent.spiffe_id,
        "revoked": rfc3339(agent.revoked_unix_ms),
        "revoked_by": (!agent.revoked_by.is_empty()).then_some(&agent.revoked_by),
    })
}
