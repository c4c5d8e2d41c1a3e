//! What a master needs of the store to continue: read once, when it is opened.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aot_model::instance::{Instance, NodeFacts};
use aot_model::job::Job;
use aot_model::task::Task;
use aot_proto::ids::InstanceName;
use rusqlite::Connection;

use super::targets::add_targets;
use crate::{Error, Loaded, record};

pub(super) fn load(connection: &Connection, path: &Path) -> Result<Loaded, Error> {
    let rows = |sql: &str| -> Result<Vec<(String, String)>, Error> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read().map_err(|source| Error::Sql {
            path: path.to_owned(),
            source,
        })
    };
    let mut loaded = Loaded::default();
    for (_, text) in rows("SELECT name, record FROM clusters ORDER BY name")? {
        loaded.clusters.push(record::read("clusters", &text)?);
    }
    for (cluster, text) in rows("SELECT cluster, record FROM instances")? {
        let instance: Instance = record::read("instances", &text)?;
        if let Some(cluster) = loaded
            .clusters
            .iter_mut()
            .find(|c| c.spec.name.as_str() == cluster)
        {
            cluster.instances.insert(instance.name.clone(), instance);
        }
    }
    for (key, text) in rows("SELECT cluster || '/' || name, record FROM facts")? {
        let facts: NodeFacts = record::read("facts", &text)?;
        let (cluster, name) = key.split_once('/').unwrap_or_default();
        let instance = loaded
            .clusters
            .iter_mut()
            .find(|c| c.spec.name.as_str() == cluster)
            .zip(name.parse().ok())
            .and_then(|(c, name): (_, InstanceName)| c.instances.get_mut(&name));
        if let Some(instance) = instance.filter(|i| i.identity.is_some()) {
            instance.facts = Some(facts.into());
        }
    }
    let open = "open OR id IN (SELECT job FROM runs WHERE open)";
    let mut tasks: HashMap<String, Arc<Task>> = HashMap::new();
    for (job, text) in rows(&format!(
        "SELECT job, record FROM tasks WHERE job IN (SELECT id FROM jobs WHERE {open})"
    ))? {
        tasks.insert(job, Arc::new(record::read("tasks", &text)?));
    }
    for (id, text) in rows(&format!(
        "SELECT id, record FROM jobs WHERE {open} ORDER BY id"
    ))? {
        let task = tasks.remove(&id);
        let mut job = Job {
            task,
            ..record::read("jobs", &text)?
        };
        add_targets(connection, path, &mut job)?;
        loaded.jobs.push(job);
    }
    for (_, text) in rows("SELECT id, record FROM runs WHERE open ORDER BY id")? {
        loaded.runs.push(record::read("runs", &text)?);
    }
    Ok(loaded)
}
