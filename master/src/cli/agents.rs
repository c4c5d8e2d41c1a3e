//! `agents`: who holds a certificate.

use aot_proto::v1::{AgentsReply, AgentsRequest, agents_reply};
use serde_json::{Value, json};

use super::Ctx;
use super::args::AgentsArgs;
use super::connect::{LOOK_UP, Start, connect, within};
use super::error::{Error, Exit};
use crate::view::{agents_table, rfc3339};

/// `aot-master agents ...`.
///
/// # Errors
/// When the master can't be asked.
pub async fn run(ctx: &mut Ctx<'_>, args: AgentsArgs) -> Result<Exit, Error> {
    match args.command {
        None => agents(ctx).await,
        Some(_) => Err(Error::usage("on its way", "on its way")),
    }
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
    })
}
