//! What a change of the model is in SQL: for each table the rows that are written or dropped, as arrays, so that a batch of any
//! size is one statement. Pure.
//!
//! All parts of a statement see the tables as they were before it, and none may touch a row that another one does. So what is
//! dropped and written again in one batch is only written, and of what is given twice the last counts.

use std::collections::{BTreeMap, BTreeSet};

use aot_model::key::InstanceKey;
use aot_model::retention::Sweep;
use aot_model::world::Changes;
use aot_proto::ids::RunId;
use aot_store::record;
use prost::bytes::Bytes;
use tokio_postgres::types::ToSql;

/// One column of the rows of a part.
#[derive(Debug, Clone)]
pub(crate) enum Column {
    Texts(Vec<String>),
    Times(Vec<Option<i64>>),
    Flags(Vec<bool>),
    Bytes(Vec<Vec<u8>>),
}

/// What one table is changed by.
#[derive(Debug, Clone)]
pub(crate) struct SqlPart {
    /// With `{0}`, `{1}` for its columns, and `FENCED` where it must not be done unless the fence was passed.
    sql: &'static str,
    columns: Vec<Column>,
    /// Its rows stand by themselves: it can be cut.
    may_be_cut: bool,
}

impl Column {
    pub(crate) fn value(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Texts(rows) => rows,
            Self::Times(rows) => rows,
            Self::Flags(rows) => rows,
            Self::Bytes(rows) => rows,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Texts(_) => "text[]",
            Self::Times(_) => "bigint[]",
            Self::Flags(_) => "boolean[]",
            Self::Bytes(_) => "bytea[]",
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Texts(rows) => rows.len(),
            Self::Times(rows) => rows.len(),
            Self::Flags(rows) => rows.len(),
            Self::Bytes(rows) => rows.len(),
        }
    }

    /// Bytes of a row, about.
    fn weight(&self, row: usize) -> usize {
        match self {
            Self::Texts(rows) => rows[row].len(),
            Self::Bytes(rows) => rows[row].len(),
            Self::Times(_) | Self::Flags(_) => 8,
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Texts(rows) => Self::Texts(rows.split_off(at)),
            Self::Times(rows) => Self::Times(rows.split_off(at)),
            Self::Flags(rows) => Self::Flags(rows.split_off(at)),
            Self::Bytes(rows) => Self::Bytes(rows.split_off(at)),
        }
    }
}

impl SqlPart {
    fn rows(&self) -> usize {
        self.columns.first().map_or(0, Column::rows)
    }

    /// Bytes, about.
    pub(crate) fn weight(&self) -> usize {
        let of = |column: &Column| {
            (0..column.rows())
                .map(|row| column.weight(row))
                .sum::<usize>()
        };
        self.columns.iter().map(of).sum()
    }

    /// Its rows in pieces of at most this many bytes, or of one row.
    pub(crate) fn cut(mut self, most: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        while self.may_be_cut {
            let (mut weight, mut rows) = (0, 0);
            while rows < self.rows() && (rows == 0 || weight < most) {
                weight += self.columns.iter().map(|it| it.weight(rows)).sum::<usize>();
                rows += 1;
            }
            if rows == self.rows() {
                break;
            }
            let rest = self.columns.iter_mut().map(|column| column.split_off(rows));
            let rest = Self {
                columns: rest.collect(),
                ..self
            };
            pieces.push(std::mem::replace(&mut self, rest));
        }
        pieces.push(self);
        pieces
    }
}

/// The text of one statement with these parts behind a fence, and what it is given but for the fence's own values, which are
/// behind those: the number of the first is the second of what is returned.
pub(crate) fn statement(fence: impl FnOnce(usize) -> String, parts: &[SqlPart]) -> String {
    let (mut next, mut texts) = (1, Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let mut sql = part.sql.replace("FENCED", "EXISTS (SELECT FROM fence)");
        for (at, column) in part.columns.iter().enumerate() {
            let value = format!("${next}::{}", column.kind());
            sql = sql.replace(&format!("{{{at}}}"), &value);
            next += 1;
        }
        texts.push(format!(", p{number} AS ({sql})"));
    }
    format!(
        "WITH fence AS ({}){} SELECT count(*) FROM fence",
        fence(next),
        texts.concat()
    )
}

/// The values of these parts, in their order.
pub(crate) fn values(parts: &[SqlPart]) -> Vec<&(dyn ToSql + Sync)> {
    let columns = parts.iter().flat_map(|part| &part.columns);
    columns.map(Column::value).collect()
}

const DROP_CLUSTERS: &str = "DELETE FROM clusters WHERE cluster = ANY({0}) AND FENCED";
const DROP_INSTANCES: &str = "DELETE FROM instances WHERE cluster = ANY({0}) AND FENCED \
    AND NOT EXISTS (SELECT FROM unnest({1}, {2}) AS kept (c, n) WHERE c = cluster AND n = name)";
const DROP_FACTS: &str = "DELETE FROM facts WHERE cluster = ANY({0}) AND FENCED \
    AND NOT EXISTS (SELECT FROM unnest({1}, {2}) AS kept (c, n) WHERE c = cluster AND n = name)";
const DROP_FACTS_OF: &str = "DELETE FROM facts USING unnest({0}, {1}) AS gone (c, n) \
    WHERE c = cluster AND n = name AND FENCED";
const CLUSTERS: &str = "INSERT INTO clusters (cluster, record) SELECT * FROM unnest({0}, {1}) \
    WHERE FENCED ON CONFLICT (cluster) DO UPDATE SET record = excluded.record";
const INSTANCES: &str = "INSERT INTO instances (cluster, name, record) \
    SELECT * FROM unnest({0}, {1}, {2}) \
    WHERE FENCED ON CONFLICT (cluster, name) DO UPDATE SET record = excluded.record";
const FACTS: &str = "INSERT INTO facts (cluster, name, record) SELECT * FROM unnest({0}, {1}, {2}) \
    WHERE FENCED ON CONFLICT (cluster, name) DO UPDATE SET record = excluded.record";
const JOBS: &str = "INSERT INTO jobs (id, cluster, ended_ms, record) \
    SELECT * FROM unnest({0}, {1}, {2}, {3}) WHERE FENCED ON CONFLICT (id) DO UPDATE SET \
    cluster = excluded.cluster, ended_ms = excluded.ended_ms, record = excluded.record, \
    output_dropped = false";
const TARGETS: &str = "INSERT INTO targets (job, instance, record) \
    SELECT * FROM unnest({0}, {1}, {2}) \
    WHERE FENCED ON CONFLICT (job, instance) DO UPDATE SET record = excluded.record";
const TASKS: &str = "INSERT INTO tasks (job, record) SELECT * FROM unnest({0}, {1}) \
    WHERE FENCED ON CONFLICT (job) DO UPDATE SET record = excluded.record";
const RUNS: &str = "INSERT INTO runs (id, job, instance, kind, open, record) \
    SELECT * FROM unnest({0}, {1}, {2}, {3}, {4}, {5}) WHERE FENCED \
    ON CONFLICT (id) DO UPDATE SET job = excluded.job, instance = excluded.instance, \
    kind = excluded.kind, open = excluded.open, record = excluded.record";
const SPOOLS: &str = "INSERT INTO spools (run, bytes) SELECT * FROM unnest({0}, {1}) \
    WHERE FENCED ON CONFLICT (run) DO UPDATE SET bytes = excluded.bytes";
const SWEEP: [&str; 4] = [
    "DELETE FROM runs WHERE job = ANY({0}) AND FENCED",
    "DELETE FROM targets WHERE job = ANY({0}) AND FENCED",
    "DELETE FROM tasks WHERE job = ANY({0}) AND FENCED",
    "DELETE FROM jobs WHERE id = ANY({0}) AND FENCED",
];
const SWEEP_SPOOLS: &str = "DELETE FROM spools WHERE run = ANY({0}) AND FENCED";
const EMPTIED: &str = "UPDATE jobs SET output_dropped = true WHERE id = ANY({0}) AND FENCED";

/// Rows by their key, in its order: writers that meet take their locks in the same one.
struct Rows<const TEXTS: usize>(BTreeMap<[String; TEXTS], String>);

impl<const TEXTS: usize> Rows<TEXTS> {
    fn of(rows: impl IntoIterator<Item = ([String; TEXTS], String)>) -> Self {
        Self(rows.into_iter().collect())
    }

    /// Columns of the keys, then the record.
    fn columns(&self) -> Vec<Column> {
        let key = |at: usize| Column::Texts(self.0.keys().map(|key| key[at].clone()).collect());
        let records = Column::Texts(self.0.values().cloned().collect());
        (0..TEXTS).map(key).chain([records]).collect()
    }

    fn part(&self, sql: &'static str) -> SqlPart {
        part(sql, self.columns())
    }

    fn keys(&self) -> Vec<Column> {
        let mut columns = self.columns();
        columns.pop();
        columns
    }
}

fn part(sql: &'static str, columns: Vec<Column>) -> SqlPart {
    SqlPart {
        sql,
        columns,
        may_be_cut: true,
    }
}

fn key(at: &InstanceKey) -> [String; 2] {
    [at.cluster.to_string(), at.instance.to_string()]
}

/// What is to be done for these changes; nothing for what has no rows.
pub(crate) fn of_changes(changes: &Changes, spools: &[(RunId, Bytes)]) -> Vec<SqlPart> {
    let clusters = Rows::of(changes.clusters.iter().map(|cluster| {
        let name = cluster.spec.name.to_string();
        ([name], record::write(cluster))
    }));
    let instances = changes.instances.iter();
    let instances = Rows::of(instances.map(|(at, it)| (key(at), record::write(it))));
    let bare: BTreeSet<[String; 2]> = changes.without_facts.iter().map(key).collect();
    let facts = changes.facts.iter();
    let facts = facts.map(|(at, it)| (key(at), record::write(it.as_ref())));
    let facts = Rows::of(facts.filter(|(at, _)| !bare.contains(at)));
    let bare = Rows::of(bare.into_iter().map(|at| (at, String::new())));
    let mut parts = removals(changes, &clusters, &instances, &facts);
    parts.extend([
        part(DROP_FACTS_OF, bare.keys()),
        clusters.part(CLUSTERS),
        instances.part(INSTANCES),
        facts.part(FACTS),
    ]);
    parts.extend(of_jobs(changes));
    let spools: BTreeMap<String, &Bytes> = spools
        .iter()
        .map(|(run, bytes)| (run.to_string(), bytes))
        .collect();
    let bytes = spools.values().map(|bytes| bytes.to_vec()).collect();
    let runs = spools.into_keys().collect();
    parts.push(part(
        SPOOLS,
        vec![Column::Texts(runs), Column::Bytes(bytes)],
    ));
    parts.retain(|part| part.rows() > 0);
    parts
}

/// What goes with clusters, but for what is written again in the same batch.
fn removals(
    changes: &Changes,
    clusters: &Rows<1>,
    instances: &Rows<2>,
    facts: &Rows<2>,
) -> Vec<SqlPart> {
    let removed = changes.removed.iter().map(|it| it.spec.name.to_string());
    let removed: BTreeSet<String> = removed.collect();
    let names = |names: BTreeSet<String>| Column::Texts(names.into_iter().collect());
    let written = |name: &String| clusters.0.contains_key(std::slice::from_ref(name));
    let all = names(removed.clone());
    let with = |kept: &Rows<2>| [vec![all.clone()], kept.keys()].concat();
    let gone = removed.into_iter().filter(|name| !written(name));
    let uncut = |sql, columns| SqlPart {
        may_be_cut: false,
        ..part(sql, columns)
    };
    vec![
        uncut(DROP_CLUSTERS, vec![names(gone.collect())]),
        uncut(DROP_INSTANCES, with(instances)),
        uncut(DROP_FACTS, with(facts)),
    ]
}

fn of_jobs(changes: &Changes) -> Vec<SqlPart> {
    let jobs: BTreeMap<String, _> = changes
        .jobs
        .iter()
        .map(|job| (job.id.to_string(), job))
        .collect();
    let ended = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let jobs = part(
        JOBS,
        vec![
            Column::Texts(jobs.keys().cloned().collect()),
            Column::Texts(jobs.values().map(|job| job.cluster.to_string()).collect()),
            Column::Times(jobs.values().map(|job| job.ended_ms.map(ended)).collect()),
            Column::Texts(jobs.values().map(record::write).collect()),
        ],
    );
    let targets = changes
        .targets
        .iter()
        .map(|(job, name, target)| ([job.to_string(), name.to_string()], record::write(target)));
    let tasks = changes.tasks.iter();
    let tasks = tasks.map(|(job, task)| ([job.to_string()], record::write(task.as_ref())));
    let runs: BTreeMap<String, _> = changes
        .runs
        .iter()
        .map(|run| (run.id.to_string(), run))
        .collect();
    let kinds = runs.values().map(|run| record::run_kind(run).to_owned());
    let runs = part(
        RUNS,
        vec![
            Column::Texts(runs.keys().cloned().collect()),
            Column::Texts(runs.values().map(|run| run.job.to_string()).collect()),
            Column::Texts(runs.values().map(|run| run.at.to_string()).collect()),
            Column::Texts(kinds.collect()),
            Column::Flags(runs.values().map(|run| run.verdict.is_none()).collect()),
            Column::Texts(runs.values().map(record::write).collect()),
        ],
    );
    vec![
        jobs,
        Rows::of(targets).part(TARGETS),
        Rows::of(tasks).part(TASKS),
        runs,
    ]
}

/// What is to be done for a sweep.
pub(crate) fn of_sweep(sweep: &Sweep) -> Vec<SqlPart> {
    let texts = |ids: &mut dyn Iterator<Item = String>| vec![Column::Texts(ids.collect())];
    let dropped: BTreeSet<String> = sweep.jobs.iter().map(ToString::to_string).collect();
    let emptied = sweep.emptied.iter().map(ToString::to_string);
    let mut emptied = emptied.filter(|id| !dropped.contains(id));
    let mut parts = vec![
        part(
            SWEEP_SPOOLS,
            texts(&mut sweep.spools.iter().map(ToString::to_string)),
        ),
        part(EMPTIED, texts(&mut emptied)),
    ];
    parts.extend(SWEEP.map(|sql| part(sql, texts(&mut dropped.iter().cloned()))));
    parts.retain(|part| part.rows() > 0);
    parts
}
