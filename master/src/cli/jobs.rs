//! `jobs`: what was run.

use aot_proto::v1::{JobsReply, JobsRequest, jobs_reply};
use serde_json::{Value, json};

use super::Ctx;
use super::args::JobsArgs;
use super::connect::{LOOK_UP, Start, connect, within};
use super::error::{Error, Exit};
use crate::view::{jobs_table, rfc3339};

/// `aot-master jobs ...`.
///
/// # Errors
/// When the master can't be asked.
pub async fn run(ctx: &mut Ctx<'_>, args: JobsArgs) -> Result<Exit, Error> {
    match args.command {
        None => jobs(ctx, args.limit).await,
        Some(_) => Err(Error::usage("on its way", "on its way")),
    }
}

/// The newest `limit` jobs.
///
/// # Errors
/// When the master can't be asked.
async fn jobs(ctx: &mut Ctx<'_>, limit: u32) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = JobsRequest {
        cluster: ctx.cluster.clone(),
        limit,
    };
    let reply: JobsReply = client.jobs(within(LOOK_UP, request)).await?.into_inner();
    if ctx.json {
        for job in &reply.jobs {
            ctx.print(&job_json(job).to_string())?;
        }
    } else if reply.jobs.is_empty() {
        ctx.say("no jobs yet")?;
    } else {
        let table = jobs_table(&reply, ctx.env.offset, ctx.style());
        ctx.print(&table)?;
    }
    Ok(Exit::Well)
}

fn job_json(job: &jobs_reply::Entry) -> Value {
    let outcomes: std::collections::BTreeMap<_, _> = job.outcomes.iter().collect();
    let cluster = (!job.cluster.is_empty()).then_some(&job.cluster);
    let operator = (!job.operator.is_empty()).then_some(&job.operator);
    json!({
        "job": job.job_id,
        "kind": job.kind,
        "cluster": cluster,
        "what": job.what,
        "started": rfc3339(job.started_unix_ms),
        "ended": rfc3339(job.ended_unix_ms),
        "summary": outcomes,
        "operator": operator,
    })
}
