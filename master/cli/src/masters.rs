//! `masters`: who shares this master's records, and who has which clusters.

use aot_proto::v1::MastersRequest;
use aot_proto::v1::masters_reply::Entry;
use serde_json::{Value, json};

use super::Ctx;
use super::connect::{Start, connect};
use super::dial::{QUERY, within};
use super::error::{Error, Exit};
use crate::view::masters_table;

/// `aot-master masters`.
///
/// # Errors
/// When the master can't be asked.
pub(crate) async fn masters(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
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
