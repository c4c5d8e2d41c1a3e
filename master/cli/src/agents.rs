//! `agents`: who holds a certificate.

use aot_proto::v1::{AgentsReply, AgentsRequest, Proof, TargetRequest, agents_reply};
use serde_json::{Value, json};

use super::Ctx;
use super::args::{AgentsArgs, AgentsCommand, TargetArg};
use super::connect::{Start, connect};
use super::dial::{QUERY, within};
use super::error::{Error, Exit};
use super::lifecycle::ask_first;
use crate::view::{agents_table, rfc3339};

/// `aot-master agents ...`.
///
/// # Errors
/// When the master can't be asked.
pub(crate) async fn run(ctx: &mut Ctx<'_>, args: AgentsArgs) -> Result<Exit, Error> {
    match args.command {
        None => agents(ctx).await,
        Some(AgentsCommand::Revoke { target, yes }) => revoke(ctx, target, yes).await,
    }
}

/// Takes identities away, after asking.
///
/// # Errors
/// When nobody says yes, nothing matches, or the master can't be asked.
async fn revoke(ctx: &mut Ctx<'_>, target: TargetArg, yes: bool) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    ask_first(ctx, &mut client, "revoke the identities of", &target, yes).await?;
    let request = TargetRequest {
        cluster: ctx.cluster.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        target: Some(target.target),
    };
    let reply = client.revoke(within(QUERY, request)).await?.into_inner();
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
        ctx.message(
            "their machines are shut out; terminate them, and launch again to replace them",
        )?;
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
    let reply: AgentsReply = client.agents(within(QUERY, request)).await?.into_inner();
    ctx.warn_of_absent(&reply.absent)?;
    if ctx.json {
        for agent in &reply.agents {
            ctx.print(&agent_json(agent).to_string())?;
        }
    } else if reply.agents.is_empty() {
        ctx.message("no agents yet")?;
    } else {
        let table = agents_table(&reply, ctx.style(), ctx.columns());
        ctx.print(&table)?;
        for agent in reply.agents.iter().filter(|it| it.used_twice_unix_ms > 0) {
            ctx.message(&used_twice(agent))?;
        }
    }
    Ok(Exit::Well)
}

/// The warning under the table.
fn used_twice(agent: &agents_reply::Entry) -> String {
    let when = rfc3339(agent.used_twice_unix_ms);
    format!(
        "warning: two processes held the identity of {} of cluster {} at the same time ({}): {}; if that is not your doing, \
         revoke it",
        agent.instance,
        agent.cluster,
        when.as_str().unwrap_or_default(),
        agent.used_twice
    )
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
        "proof": (agent.proof != 0).then(|| Proof::name_of(agent.proof)),
        "revoked": rfc3339(agent.revoked_unix_ms),
        "used_twice": rfc3339(agent.used_twice_unix_ms),
        "used_twice_how": (!agent.used_twice.is_empty()).then_some(&agent.used_twice),
        "revoked_by": (!agent.revoked_by.is_empty()).then_some(&agent.revoked_by),
    })
}
