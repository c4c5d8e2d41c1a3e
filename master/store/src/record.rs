//! Records as the JSON that a row holds: the same in every engine.

use aot_model::run::{Run, RunKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Reads a record of a table.
///
/// # Errors
/// When this version does not understand it.
pub fn read<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|source| Error::Record { table, source })
}

/// The text of a record.
pub fn write<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have string keys only")
}

/// The column by which runs of stages are found.
pub fn run_kind(run: &Run) -> &'static str {
    match run.what {
        RunKind::Stage { .. } => "stage",
        RunKind::Task => "task",
        RunKind::Health { .. } => "health",
    }
}
