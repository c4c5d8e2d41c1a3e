//! `jobs`: what was run, one of them looked at, followed, ended or run again.

use std::io::Write as _;
use std::time::Duration;

use aot_proto::ids::JobId;
use aot_proto::v1::{
    BuiltinName, CancelJobRequest, FollowRequest, JobsReply, JobsRequest, Outcome, OutcomeCount,
    RetryJobRequest,
};
use serde_json::json;

use super::Ctx;
use super::args::{JobsArgs, JobsCommand};
use super::connect::{Start, connect};
use super::dial::{Client, OfJob, QUERY, within};
use super::error::{Error, Exit};
use super::follow_job::{FollowedJob, close, follow};
use super::interrupt::Interrupt;
use super::launch::millis;
use super::output_mode::{OutputArgs, OutputMode};
use crate::view::{job_json, job_summary, jobs_table, outcome_counts, outcomes_table};

/// How many jobs are looked through for the beginning of an id.
const MAX_SEARCHED: u32 = 100_000;

/// Most ids in an error.
const MAX_NAMED: usize = 10;

/// `aot-master jobs ...`.
///
/// # Errors
/// When no job fits, or the master can't be asked or followed.
pub(crate) async fn run(ctx: &mut Ctx<'_>, args: JobsArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    match args.command {
        None => list(ctx, &mut client, args.limit).await,
        Some(JobsCommand::Show {
            id,
            no_output,
            output,
        }) => {
            let id = resolve(ctx, &mut client, &id).await?;
            show(ctx, client, id, no_output, output).await
        }
        Some(JobsCommand::Follow { id, output }) => {
            let id = resolve(ctx, &mut client, &id).await?;
            let request = FollowRequest {
                job_id: id,
                live: true,
                output: true,
            };
            let events = client.follow(request.of_job()).await?.into_inner();
            let interrupt = Interrupt::of_process(ctx.env.interactive);
            let mode = OutputMode {
                output,
                ..OutputMode::default()
            };
            let seen = follow(ctx, Some(client), events, interrupt, mode.clone()).await?;
            close(ctx, &seen, &mode, BuiltinName::Unspecified)
        }
        Some(JobsCommand::Cancel { id, grace }) => {
            let id = resolve(ctx, &mut client, &id).await?;
            cancel(ctx, client, id, grace).await
        }
        Some(JobsCommand::Retry {
            id,
            failed,
            detach,
            output,
        }) => {
            let id = resolve(ctx, &mut client, &id).await?;
            let request = RetryJobRequest {
                job_id: id,
                failed,
                detach,
            };
            let events = client.retry_job(request.of_job()).await?.into_inner();
            let interrupt = Interrupt::of_process(ctx.env.interactive);
            let mode = OutputMode {
                output,
                detach,
                ..OutputMode::default()
            };
            let seen = follow(ctx, Some(client), events, interrupt, mode.clone()).await?;
            close(ctx, &seen, &mode, BuiltinName::Unspecified)
        }
    }
}

/// The newest `limit` jobs.
async fn list(ctx: &mut Ctx<'_>, client: &mut Client, limit: u32) -> Result<Exit, Error> {
    let reply = ask(ctx, client, limit).await?;
    if ctx.json {
        for job in &reply.jobs {
            ctx.print(&job_json(job).to_string())?;
        }
    } else if reply.jobs.is_empty() {
        ctx.message("no jobs yet")?;
    } else {
        let table = jobs_table(&reply, ctx.env.offset, ctx.style(), ctx.columns());
        ctx.print(&table)?;
    }
    Ok(Exit::Well)
}

async fn ask(ctx: &Ctx<'_>, client: &mut Client, limit: u32) -> Result<JobsReply, Error> {
    let request = JobsRequest {
        cluster: ctx.cluster.clone(),
        limit,
    };
    Ok(client.jobs(within(QUERY, request)).await?.into_inner())
}

/// The job that is named by a whole id, or by the beginning of one, with or without `job-`.
async fn resolve(ctx: &Ctx<'_>, client: &mut Client, given: &str) -> Result<String, Error> {
    if given.parse::<JobId>().is_ok() {
        return Ok(given.to_owned());
    }
    let jobs = ask(ctx, client, MAX_SEARCHED).await?.jobs;
    let ids: Vec<&str> = jobs.iter().map(|job| job.job_id.as_str()).collect();
    one_of(&ids, given).map(str::to_owned)
}

fn one_of<'a>(ids: &[&'a str], given: &str) -> Result<&'a str, Error> {
    let wanted = given.to_ascii_lowercase();
    let begins = |id: &&str| {
        let id = id.to_ascii_lowercase();
        let short = id.strip_prefix("job-").unwrap_or(&id);
        !wanted.is_empty() && (id.starts_with(&wanted) || short.starts_with(&wanted))
    };
    let fitting: Vec<&str> = ids.iter().copied().filter(begins).collect();
    match fitting[..] {
        [] => Err(Error::NoJob {
            given: given.to_owned(),
        }),
        [only] => Ok(only),
        _ => {
            let mut named = fitting[..fitting.len().min(MAX_NAMED)].join(", ");
            if fitting.len() > MAX_NAMED {
                named.push_str(&format!(" and {} more", fitting.len() - MAX_NAMED));
            }
            Err(Error::usage(
                format!("{} jobs begin with {given:?}: {named}", fitting.len()),
                "give more characters of the id",
            ))
        }
    }
}

async fn show(
    ctx: &mut Ctx<'_>,
    mut client: Client,
    job_id: String,
    no_output: bool,
    mut output: OutputArgs,
) -> Result<Exit, Error> {
    let request = FollowRequest {
        job_id,
        live: false,
        output: !no_output,
    };
    let events = client.follow(request.of_job()).await?.into_inner();
    output.fold = !output.no_fold && output.out.is_none();
    let mode = OutputMode {
        output,
        quiet: no_output && !ctx.json,
        heading: true,
        so_far: true,
        ..OutputMode::default()
    };
    let interrupt = Interrupt::of_process(false);
    let seen = follow(ctx, None, events, interrupt, mode.clone()).await?;
    if ctx.json {
        close(ctx, &seen, &mode, BuiltinName::Unspecified)?;
        return Ok(Exit::Well);
    }
    if !no_output && mode.output.out.is_none() && !super::follow_job::is_silent(&seen.started) {
        writeln!(ctx.io.stdout)?;
    }
    outcomes(ctx, &seen)
}

fn outcomes(ctx: &mut Ctx<'_>, seen: &FollowedJob) -> Result<Exit, Error> {
    let ends = |name: &str| seen.ends.get(name);
    let table = outcomes_table(&seen.started, ends, ctx.style(), ctx.columns());
    ctx.print(&table)?;
    let (ended, all) = (seen.ends.len(), seen.started.instances.len());
    if seen.started.ended_unix_ms == 0 {
        let id = &seen.started.job_id;
        ctx.message(&format!(
            "still running, {ended} of {all} have ended; aot-master jobs follow {id}"
        ))?;
    }
    Ok(Exit::Well)
}

/// Ends a job and shows how it ended. That it did not succeed is what was asked for: only a target whose end is not known
/// makes this fail.
async fn cancel(
    ctx: &mut Ctx<'_>,
    mut client: Client,
    job_id: String,
    grace: Option<Duration>,
) -> Result<Exit, Error> {
    let request = CancelJobRequest {
        job_id,
        grace_ms: grace.map_or(0, millis),
    };
    let events = client.cancel_job(request.of_job()).await?.into_inner();
    let mode = OutputMode {
        quiet: true,
        ..OutputMode::default()
    };
    // Ctrl-C only stops looking: it is being cancelled already.
    let interrupt = Interrupt::of_process(false);
    let seen = follow(ctx, None, events, interrupt, mode).await?;
    let summary = seen.summary.clone().unwrap_or_default();
    let is_lost = |it: &OutcomeCount| it.outcome() == Outcome::LostContact;
    let unknown = summary.outcomes.iter().any(is_lost);
    if ctx.json {
        let counts = outcome_counts(&summary.outcomes);
        ctx.print(&json!({"job": summary.job_id, "summary": counts}).to_string())?;
    } else {
        ctx.message(&job_summary(&summary, seen.ends.values()))?;
    }
    Ok(if unknown { Exit::Failed } else { Exit::Well })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Style;

    #[test]
    fn a_beginning_that_fits_only_one_is_enough() {
        let ids = ["job-01ABC", "job-01ABD", "job-02X"];
        for (given, want) in [
            ("job-02", "job-02X"),
            ("02", "job-02X"),
            ("02x", "job-02X"),
            ("01abd", "job-01ABD"),
        ] {
            assert_eq!(one_of(&ids, given).ok(), Some(want), "{given}");
        }
        for given in ["03", "", "ob-0", "02XX"] {
            let error = one_of(&ids, given).expect_err(given);
            assert_eq!(error.exit(), Exit::NoMatch, "{given}");
        }
        let error = one_of(&ids, "job-01").expect_err("two");
        assert_eq!(error.exit(), Exit::Usage);
        assert_eq!(
            error.report(Style::default()).as_deref(),
            Some(
                "error: 2 jobs begin with \"job-01\": job-01ABC, job-01ABD\n  hint: give more characters of the id"
            )
        );
    }
}
