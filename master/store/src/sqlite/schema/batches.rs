//! The step after which a cluster has the pools of its batches once each, by their hash. It reads and writes plain JSON, so that
//! it stays what it was when the records change again. Called by `schema` alone.

use aot_host::hash::sha256_hex;
use rusqlite::{Connection, Result, params};
use serde_json::{Map, Value, json};

/// `batches: {TOKEN: {spec: POOL, members: [{name, hostname}]}}` becomes
/// `batches: {pools: {SHA256: POOL}, calls: {TOKEN: {spec: SHA256, members: [NAME]}}}`.
pub(super) fn name_their_pools(connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare("SELECT name, record FROM clusters")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let clusters: Vec<(String, String)> = rows.collect::<Result<_>>()?;
    for (name, text) in clusters {
        // What can't be read is left as it is: whoever reads the records next says so.
        let Ok(Value::Object(mut record)) = serde_json::from_str(&text) else {
            continue;
        };
        if let Some(Value::Object(old)) = record.remove("batches") {
            record.insert("batches".to_owned(), named(old));
        }
        connection.execute(
            "UPDATE clusters SET record = ?2 WHERE name = ?1",
            params![name, Value::Object(record).to_string()],
        )?;
    }
    Ok(())
}

fn named(old: Map<String, Value>) -> Value {
    let (mut pools, mut calls) = (Map::new(), Map::new());
    for (token, mut batch) in old {
        if let Some(spec) = batch.get_mut("spec") {
            let pool = spec.take();
            let sha256 = sha256_hex(pool.to_string().as_bytes());
            *spec = json!(sha256);
            pools.insert(sha256, pool);
        }
        for member in batch
            .get_mut("members")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            *member = member.get_mut("name").map(Value::take).unwrap_or_default();
        }
        calls.insert(token, batch);
    }
    json!({"pools": pools, "calls": calls})
}
