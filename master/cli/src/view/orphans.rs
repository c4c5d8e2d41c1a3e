//! Orphans as a table and as JSON. Pure.

use aot_proto::v1::OrphanReason;
use aot_proto::v1::orphans_reply::Entry;
use serde_json::{Value, json};

use super::grid::{Cell, Grid};
use super::style::Style;

/// One line each.
pub(crate) fn orphans_table(entries: &[Entry], style: Style, columns: Option<usize>) -> String {
    let mut table = Grid::new(&["kind", "id", "state", "cluster", "why", "region"]);
    for entry in entries {
        table.row(
            [
                entry.kind.as_str(),
                &entry.id,
                &entry.state,
                &entry.cluster,
                OrphanReason::name_of(entry.why),
                &entry.region,
            ]
            .map(Cell::or_dash),
        );
    }
    table.fitted(style, columns, &["region"])
}

/// One document; `uuid` is null for what the account does not show.
pub(crate) fn orphan_json(entry: &Entry) -> Value {
    let uuid = (!entry.uuid.is_empty()).then_some(&entry.uuid);
    json!({
        "kind": entry.kind,
        "id": entry.id,
        "state": entry.state,
        "cluster": entry.cluster,
        "uuid": uuid,
        "region": entry.region,
        "why": OrphanReason::name_of(entry.why),
    })
}
