//! What a change of the model is in SQL: one row per record, replaced as a whole. Called by the writer's thread, inside its
//! transaction.

use aot_model::cluster::Cluster;
use aot_model::job::{Job, TargetRecord};
use aot_model::key::InstanceKey;
use aot_model::run::Run;
use aot_model::world::Changes;
use aot_proto::ids::{InstanceName, JobId};
use rusqlite::{Connection, Result, params};
use serde::Serialize;

use crate::record;

pub(super) fn write_changes(connection: &Connection, changes: &Changes) -> Result<()> {
    // First: the model drops what else was to be written of a cluster that it removes, so the records here under that name
    // are of another one, which was launched in the same batch.
    for cluster in &changes.removed {
        remove_cluster(connection, cluster)?;
    }
    for cluster in &changes.clusters {
        write_cluster(connection, cluster)?;
    }
    for (key, instance) in &changes.instances {
        write_of_instance(connection, "instances", key, instance)?;
    }
    for (key, facts) in &changes.facts {
        write_of_instance(connection, "facts", key, facts.as_ref())?;
    }
    for key in &changes.without_facts {
        connection
            .prepare_cached("DELETE FROM facts WHERE cluster = ?1 AND name = ?2")?
            .execute(params![key.cluster.as_str(), key.instance.as_str()])?;
    }
    for job in &changes.jobs {
        write_job(connection, job)?;
    }
    for (job, name, target) in &changes.targets {
        write_target(connection, *job, name, target)?;
    }
    for (job, task) in &changes.tasks {
        connection
            .prepare_cached("INSERT OR REPLACE INTO tasks (job, record) VALUES (?1, ?2)")?
            .execute(params![job.to_string(), record::write(task.as_ref())])?;
    }
    for run in &changes.runs {
        write_run(connection, run)?;
    }
    Ok(())
}

fn write_cluster(connection: &Connection, cluster: &Cluster) -> Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO clusters (name, record) VALUES (?1, ?2)")?
        .execute(params![cluster.spec.name.as_str(), record::write(cluster)])?;
    Ok(())
}

fn write_of_instance(
    connection: &Connection,
    table: &'static str,
    key: &InstanceKey,
    value: &impl Serialize,
) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO {table} (cluster, name, record) VALUES (?1, ?2, ?3)"
        ))?
        .execute(params![
            key.cluster.as_str(),
            key.instance.as_str(),
            record::write(value)
        ])?;
    Ok(())
}

fn write_job(connection: &Connection, job: &Job) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO jobs (id, cluster, open, record) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            job.id.to_string(),
            job.cluster.as_str(),
            job.ended_ms.is_none(),
            record::write(job)
        ])?;
    Ok(())
}

fn write_target(
    connection: &Connection,
    job: JobId,
    name: &InstanceName,
    target: &TargetRecord,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO targets (job, instance, record) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![
            job.to_string(),
            name.as_str(),
            record::write(target)
        ])?;
    Ok(())
}

fn write_run(connection: &Connection, run: &Run) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO runs (id, job, instance, kind, open, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            run.id.to_string(),
            run.job.to_string(),
            run.at.to_string(),
            record::run_kind(run),
            run.verdict.is_none(),
            record::write(run)
        ])?;
    Ok(())
}

/// Its jobs stay: they are dropped by their age.
fn remove_cluster(connection: &Connection, cluster: &Cluster) -> Result<()> {
    let name = cluster.spec.name.as_str();
    for table in ["instances", "facts"] {
        connection.execute(&format!("DELETE FROM {table} WHERE cluster = ?1"), [name])?;
    }
    connection.execute("DELETE FROM clusters WHERE name = ?1", [name])?;
    Ok(())
}
