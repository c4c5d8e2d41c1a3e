//! `facts TARGET`: what is known of instances, in the shape of `/etc/cluster_facts.json`.

use aot_proto::v1::TargetRequest;
use serde_json::{Map, Value, json};

use super::Ctx;
use super::args::TargetArg;
use super::connect::{Start, connect};
use super::dial::{QUERY, within};
use super::error::{Error, Exit};
use crate::view::harmless_json;

/// One object from name to facts; with `--json` one object per instance.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn facts(ctx: &mut Ctx<'_>, target: TargetArg) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = TargetRequest {
        cluster: ctx.cluster.clone(),
        exclude: target.narrow.exclude(),
        limit: target.narrow.limit(),
        target: Some(target.target),
    };
    let reply = client.facts(within(QUERY, request)).await?.into_inner();
    let mut all = Map::new();
    for entry in reply.entries {
        let facts: Value = serde_json::from_str(&entry.facts_json).unwrap_or(Value::Null);
        if ctx.json {
            ctx.print(&json!({"instance": entry.instance, "facts": facts}).to_string())?;
        } else {
            all.insert(entry.instance, facts);
        }
    }
    if !ctx.json {
        ctx.print(&harmless_json(&format!("{:#}", Value::Object(all))))?;
    }
    Ok(Exit::Well)
}
