//! `jobs`: what was run, one of them looked at, followed, ended or run again.

use std::io::Write as _;
use std::time::Duration;

use aot_proto::ids::JobId;
use aot_proto::v1::{
    BuiltinName, CancelJobRequest, FollowRequest, JobKind, JobsReply, JobsRequest, Outcome,
    OutcomeCount, RetryJobRequest, jobs_reply,
};
use serde_json::json;

use super::Ctx;
use super::args::{JobsArgs, JobsCommand};
use super::connect::{Start, connect};
use super::dial::{Client, QUERY, millis, within};
use super::error::{Error, Exit};
use super::follow_job::{FollowedJob, begin_and_follow, close};
use super::interrupt::Interrupt;
use super::job_source::{JobAsk, JobSource};
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
    let Some(command) = args.command.clone() else {
        return list(ctx, &mut client, &args).await;
    };
    match command {
        JobsCommand::Show {
            id,
            no_output,
            output,
        } => {
            let id = resolve(ctx, &mut client, id.as_deref()).await?;
            show(ctx, client, id, no_output, output).await
        }
        JobsCommand::Follow { id, output } => {
            let id = resolve_aloud(ctx, &mut client, id.as_deref()).await?;
            let request = FollowRequest {
                job_id: id,
                live: true,
                output: true,
            };
            let interrupt = Interrupt::of_process(ctx.env.interactive);
            let mode = OutputMode {
                output,
                ..OutputMode::default()
            };
            let ask = JobAsk::Follow(request);
            let seen = follow(ctx, client, ask, interrupt, mode.clone()).await?;
            close(ctx, &seen, &mode, BuiltinName::Unspecified)
        }
        JobsCommand::Cancel { id, grace } => {
            let id = resolve_aloud(ctx, &mut client, id.as_deref()).await?;
            cancel(ctx, client, id, grace).await
        }
        JobsCommand::Retry {
            id,
            failed,
            detach,
            output,
        } => {
            let id = resolve_aloud(ctx, &mut client, id.as_deref()).await?;
            let request = RetryJobRequest {
                job_id: id,
                failed,
                detach,
            };
            let interrupt = Interrupt::of_process(ctx.env.interactive);
            let mode = OutputMode {
                output,
                detach,
                ..OutputMode::default()
            };
            let ask = JobAsk::Retry(request);
            let seen = follow(ctx, client, ask, interrupt, mode.clone()).await?;
            close(ctx, &seen, &mode, BuiltinName::Unspecified)
        }
    }
}

/// Asks for the events of a job, and shows them.
pub(crate) async fn follow(
    ctx: &mut Ctx<'_>,
    client: Client,
    ask: JobAsk,
    interrupt: Interrupt,
    mode: OutputMode,
) -> Result<FollowedJob, Error> {
    let source = JobSource::new(ctx, client, ask, Start::WithState)?;
    begin_and_follow(ctx, source, interrupt, mode).await
}

/// The newest jobs that fit.
async fn list(ctx: &mut Ctx<'_>, client: &mut Client, args: &JobsArgs) -> Result<Exit, Error> {
    let is_filtered =
        args.failed || args.kind.is_some() || args.since.is_some() || args.by.is_some();
    let searched = if is_filtered {
        MAX_SEARCHED
    } else {
        args.limit
    };
    let mut reply = ask(ctx, client, searched).await?;
    let now_ms = aot_host::clock::unix_ms();
    reply.jobs.retain(|job| fits(job, args, now_ms));
    reply.jobs.truncate(args.limit as usize);
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

/// Whether a job is one of those that were asked for.
fn fits(job: &jobs_reply::Entry, args: &JobsArgs, now_ms: u64) -> bool {
    let failed = |it: &OutcomeCount| it.outcome() != Outcome::Succeeded && it.count > 0;
    let since = args.since.map(|since| now_ms.saturating_sub(millis(since)));
    (!args.failed || job.outcomes.iter().any(failed))
        && args.kind.is_none_or(|kind| job.kind() == kind)
        && args.by.as_ref().is_none_or(|by| is_by(&job.operator, by))
        && since.is_none_or(|since| job.started_unix_ms >= since)
}

/// Whether an operator is meant by this name: that of one who asked at another master says at which.
fn is_by(operator: &str, name: &str) -> bool {
    let at_another = operator.split_once(" at ").map(|(who, _)| who);
    operator == name || at_another == Some(name)
}

async fn ask(ctx: &Ctx<'_>, client: &mut Client, limit: u32) -> Result<JobsReply, Error> {
    let request = JobsRequest {
        cluster: ctx.cluster.clone(),
        limit,
    };
    Ok(client.jobs(within(QUERY, request)).await?.into_inner())
}

/// What stands for the newest job.
pub(crate) const LAST: &str = "last";

/// The job that is named by a whole id, by the beginning of one, with or without `job-`, or by [`LAST`] or nothing: the
/// newest.
///
/// # Errors
/// When no job fits, or several do, or the master can't be asked.
pub(crate) async fn resolve(
    ctx: &Ctx<'_>,
    client: &mut Client,
    given: Option<&str>,
) -> Result<String, Error> {
    let given = given.unwrap_or(LAST);
    if given.parse::<JobId>().is_ok() {
        return Ok(given.to_owned());
    }
    let is_last = given == LAST;
    let jobs = ask(ctx, client, if is_last { 1 } else { MAX_SEARCHED })
        .await?
        .jobs;
    if is_last {
        let newest = jobs.into_iter().next().map(|job| job.job_id);
        return newest.ok_or_else(|| Error::NoJob {
            given: LAST.to_owned(),
        });
    }
    let ids: Vec<&str> = jobs.iter().map(|job| job.job_id.as_str()).collect();
    one_of(&ids, given).map(str::to_owned)
}

/// [`resolve`], saying which one is meant where no id was given.
async fn resolve_aloud(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    given: Option<&str>,
) -> Result<String, Error> {
    let id = resolve(ctx, client, given).await?;
    if given.is_none_or(|given| given == LAST) && !ctx.json {
        ctx.note(&format!("the last job is {id}"))?;
    }
    Ok(id)
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
    client: Client,
    job_id: String,
    no_output: bool,
    mut output: OutputArgs,
) -> Result<Exit, Error> {
    let request = FollowRequest {
        job_id,
        live: false,
        output: !no_output,
    };
    output.fold = !output.no_fold && output.out.is_none();
    let mode = OutputMode {
        output,
        quiet: no_output && !ctx.json,
        heading: true,
        so_far: true,
        ..OutputMode::default()
    };
    let interrupt = Interrupt::of_process(false);
    let ask = JobAsk::Follow(request);
    let seen = follow(ctx, client, ask, interrupt, mode.clone()).await?;
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
    if matches!(seen.started.kind(), JobKind::Launch | JobKind::Apply) {
        let id = &seen.started.job_id;
        ctx.note(&format!("what its stages printed: aot-master logs {id}"))?;
    }
    let (ended, all) = (seen.ends.len(), seen.started.instances.len());
    if seen.started.ended_unix_ms == 0 {
        let id = &seen.started.job_id;
        ctx.message(&format!(
            "still running, {ended} of {all} have ended; aot-master jobs follow {id}"
        ))?;
    }
    seen.checked(Exit::Well)
}

/// Ends a job and shows how it ended. That it did not succeed is what was asked for: only a target whose end is not known
/// makes this fail.
async fn cancel(
    ctx: &mut Ctx<'_>,
    client: Client,
    job_id: String,
    grace: Option<Duration>,
) -> Result<Exit, Error> {
    let request = CancelJobRequest {
        job_id,
        grace_ms: grace.map_or(0, millis),
    };
    let mode = OutputMode {
        quiet: true,
        ..OutputMode::default()
    };
    // Ctrl-C only stops looking: it is being cancelled already.
    let interrupt = Interrupt::of_process(false);
    let ask = JobAsk::Cancel(request);
    let seen = follow(ctx, client, ask, interrupt, mode).await?;
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
    use crate::args::Command;
    use crate::view::Style;

    #[test]
    fn jobs_are_chosen_by_what_is_known_of_them() {
        let of = |line: &str| {
            let words = ["aot-master", "jobs"]
                .into_iter()
                .chain(line.split_whitespace());
            match crate::parse(words.map(Into::into)).map(|cli| cli.command) {
                Ok(Command::Jobs(args)) => args,
                other => panic!("{line}: {other:?}"),
            }
        };
        let job = jobs_reply::Entry {
            kind: JobKind::Exec.into(),
            operator: "alex".to_owned(),
            started_unix_ms: 1_000_000,
            outcomes: crate::view::samples::counts(&[("succeeded", 2), ("timed_out", 1)]),
            ..jobs_reply::Entry::default()
        };
        for (line, wanted) in [
            ("", true),
            ("--failed", true),
            ("--kind exec --by alex --since 2s", true),
            ("--kind launch", false),
            ("--by root", false),
            ("--since 1s", false),
        ] {
            assert_eq!(fits(&job, &of(line), 1_002_000), wanted, "{line}");
        }
        let well = jobs_reply::Entry {
            outcomes: crate::view::samples::counts(&[("succeeded", 2)]),
            ..job
        };
        assert!(!fits(&well, &of("--failed"), 1_002_000));
    }

    #[test]
    fn an_operator_is_found_wherever_it_asked() {
        for (operator, name, is_meant) in [
            ("alice", "alice", true),
            ("alice at a:/var/lib/aot", "alice", true),
            ("alice at a:/var/lib/aot", "alice at a:/var/lib/aot", true),
            ("alice at a:/var/lib/aot", "alice at b:/var/lib/aot", false),
            ("alice", "alic", false),
            ("alice at a", "a", false),
        ] {
            assert_eq!(is_by(operator, name), is_meant, "{operator}, {name}");
        }
    }

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
