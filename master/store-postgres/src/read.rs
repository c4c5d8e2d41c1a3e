//! What is read while the master runs. Each answer is of one statement, and so of one moment.

use std::sync::Arc;

use aot_model::job::Job;
use aot_model::run::Run;
use aot_proto::ids::{InstanceName, JobId, RunId};
use aot_store::{ClosedJob, Error, StoredOutputs, record};
use tokio_postgres::Row;

use crate::connect::{EngineLink, SqlValues};

/// A job's record, whether its output was dropped, its targets in two arrays, and its task.
pub(crate) const JOB: &str = "SELECT j.record, j.output_dropped, \
    (SELECT array_agg(t.instance ORDER BY t.instance) FROM targets t WHERE t.job = j.id), \
    (SELECT array_agg(t.record ORDER BY t.instance) FROM targets t WHERE t.job = j.id)";

/// A job of a row of [`JOB`]; with its task, where there is a fifth column.
pub(crate) fn job(row: &Row) -> Result<Job, Error> {
    let task: Option<String> = match row.len() {
        5 => row.get(4),
        _ => None,
    };
    let task = task.map(|text| record::read("tasks", &text)).transpose()?;
    let mut job: Job = Job {
        task: task.map(Arc::new),
        ..record::read("jobs", row.get(0))?
    };
    job.output_dropped |= row.get::<_, bool>(1);
    let (names, records): (Option<Vec<String>>, Option<Vec<String>>) = (row.get(2), row.get(3));
    let targets = names.unwrap_or_default().into_iter();
    for (name, text) in targets.zip(records.unwrap_or_default()) {
        let target = record::read("targets", &text)?;
        if let Ok(name) = name.parse::<InstanceName>() {
            job.add_target(name, target);
        }
    }
    Ok(job)
}

async fn rows(
    link: &EngineLink,
    what: &'static str,
    sql: &str,
    values: SqlValues<'_>,
) -> Result<Vec<Row>, Error> {
    Ok(link.read(what, sql, values).await?)
}

pub(crate) async fn jobs(
    link: &EngineLink,
    cluster: Option<&str>,
    limit: u32,
) -> Result<Vec<Job>, Error> {
    let sql = format!(
        "{JOB} FROM jobs j WHERE $1::text IS NULL OR j.cluster = $1 ORDER BY j.id DESC LIMIT $2"
    );
    let rows = rows(
        link,
        "read the jobs in",
        &sql,
        &[&cluster, &i64::from(limit)],
    )
    .await?;
    rows.iter().map(job).collect()
}

pub(crate) async fn one_job(link: &EngineLink, id: JobId) -> Result<Option<Job>, Error> {
    let sql =
        format!("{JOB}, k.record FROM jobs j LEFT JOIN tasks k ON k.job = j.id WHERE j.id = $1");
    let rows = rows(link, "read a job in", &sql, &[&id.to_string()]).await?;
    rows.first().map(job).transpose()
}

pub(crate) async fn runs(
    link: &EngineLink,
    condition: &str,
    value: String,
) -> Result<Vec<Run>, Error> {
    let sql = format!("SELECT record FROM runs WHERE {condition} ORDER BY id");
    let rows = rows(link, "read runs in", &sql, &[&value]).await?;
    let runs = rows.iter().map(|row| record::read("runs", row.get(0)));
    runs.collect()
}

pub(crate) async fn small_spool(link: &EngineLink, run: RunId) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT bytes FROM spools WHERE run = $1";
    let rows = rows(link, "read an output in", sql, &[&run.to_string()]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

pub(crate) async fn outputs(
    link: &EngineLink,
    jobs: Option<Vec<JobId>>,
) -> Result<StoredOutputs, Error> {
    let sql = "SELECT r.job, r.id, coalesce(octet_length(s.bytes), 0) FROM runs r \
        LEFT JOIN spools s ON s.run = r.id WHERE $1::text[] IS NULL OR r.job = ANY($1)";
    let jobs = jobs.map(|jobs| jobs.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut outputs = StoredOutputs::new();
    for row in rows(link, "read what outputs take in", sql, &[&jobs]).await? {
        let (job, run, bytes): (&str, &str, i32) = (row.get(0), row.get(1), row.get(2));
        if let (Ok(job), Ok(run)) = (job.parse(), run.parse()) {
            let of_job = outputs.entry(job).or_default();
            of_job.push((run, u64::from(bytes.unsigned_abs())));
        }
    }
    Ok(outputs)
}

pub(crate) async fn closed_jobs(link: &EngineLink) -> Result<Vec<ClosedJob>, Error> {
    let sql = "SELECT id, ended_ms FROM jobs WHERE ended_ms IS NOT NULL \
        AND NOT EXISTS (SELECT FROM runs WHERE runs.job = jobs.id AND runs.open) ORDER BY id";
    let rows = rows(link, "read which jobs are over in", sql, &[]).await?;
    let closed = rows.iter().filter_map(|row| {
        Some(ClosedJob {
            id: row.get::<_, &str>(0).parse().ok()?,
            ended_ms: row.get::<_, i64>(1).unsigned_abs(),
        })
    });
    Ok(closed.collect())
}
