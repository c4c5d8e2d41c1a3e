//! `orphans`: the account against what the master knows; `--delete` ends a cluster that it does not know.

use aot_proto::v1::orphans_reply::Entry;
use aot_proto::v1::{DeleteOrphansRequest, OrphanReason, OrphansReply, OrphansRequest};

use super::Ctx;
use super::args::OrphansArgs;
use super::cluster_source::ClusterAsk;
use super::confirm::confirm;
use super::connect::{Start, connect};
use super::dial::{ASK_PROVIDER, Client, within};
use super::error::{Error, Exit};
use super::lifecycle::end;
use crate::view::{count_things, orphan_json, orphans_table};

/// `aot-master orphans`.
///
/// # Errors
/// When nobody says yes to a deletion, or the master or a region that counts can't be asked.
pub(crate) async fn orphans(ctx: &mut Ctx<'_>, args: OrphansArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::Always).await?;
    let region = args.region;
    match args.delete {
        Some(uuid) => delete(ctx, client, uuid, region, args.yes).await,
        None => list(ctx, &mut client, region).await,
    }
}

async fn ask(client: &mut Client, region: Option<&str>) -> Result<OrphansReply, Error> {
    let request = OrphansRequest {
        region: region.map(str::to_owned),
    };
    let reply = client.orphans(within(ASK_PROVIDER, request)).await?;
    Ok(reply.into_inner())
}

async fn list(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    region: Option<String>,
) -> Result<Exit, Error> {
    let reply = ask(client, region.as_deref()).await?;
    if ctx.json {
        for entry in &reply.entries {
            ctx.print(&orphan_json(entry).to_string())?;
        }
    } else if !reply.entries.is_empty() {
        let table = orphans_table(&reply.entries, ctx.style(), ctx.columns());
        ctx.print(&table)?;
    }
    for note in &reply.notes {
        ctx.message(&format!("note: {note}"))?;
    }
    let none = reply.entries.is_empty();
    if !ctx.json {
        let regions = reply.regions.join(", ");
        match none {
            true => ctx.message(&format!("no orphans in {regions}"))?,
            false => ctx.message(&ways_out(&reply.entries).join("\n"))?,
        }
    }
    Ok(if none { Exit::Well } else { Exit::Failed })
}

/// How to get rid of each, one line per cluster and reason.
fn ways_out(entries: &[Entry]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for entry in entries {
        let cluster = &entry.cluster;
        let line = match entry.why() {
            OrphanReason::UnknownCluster => format!(
                "unless a master with other records has {cluster}, delete what has its tag: aot-master orphans --delete {} --region {}",
                entry.uuid, entry.region
            ),
            OrphanReason::NotAnInstanceOfIt => format!(
                "machines that {cluster} does not count were tagged by somebody else: terminate them by hand, or aot-master cleanup {cluster} takes them along"
            ),
            _ => format!(
                "machines of {cluster} that the account does not show are made again once they are given up: aot-master terminate INSTANCE --cluster {cluster}, then launch"
            ),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

async fn delete(
    ctx: &mut Ctx<'_>,
    mut client: Client,
    uuid: String,
    region: Option<String>,
    yes: bool,
) -> Result<Exit, Error> {
    if !yes {
        let mut found = ask(&mut client, region.as_deref()).await?.entries;
        found.retain(|entry| {
            entry.uuid == uuid
                && entry.why() == OrphanReason::UnknownCluster
                && region.as_ref().is_none_or(|region| &entry.region == region)
        });
        // Without any, the master says why.
        if let Some(first) = found.first() {
            let what = count_things(found.iter().map(|entry| entry.kind.as_str()));
            let question = format!(
                "delete everything of cluster {}, which this master and those that share its records do not know, and which may belong to one with other records: {what}",
                first.cluster
            );
            confirm(ctx, yes, &question)?;
        }
    }
    let request = DeleteOrphansRequest { uuid, region };
    let goes_on = "the deletion is still running; run it again for its receipt";
    end(ctx, client, ClusterAsk::DeleteOrphans(request), goes_on).await
}
