//! Orphans as a table and as JSON. Pure.

use aot_proto::v1::orphans_reply::Entry;
use serde_json::{Value, json};

use super::style::Style;
use super::table::{or_dash, table, text};

/// One line each.
pub fn orphans_table(entries: &[Entry], style: Style) -> String {
    let mut table = table(style, &["kind", "id", "state", "cluster", "why", "region"]);
    for entry in entries {
        table.add_row(
            [
                &entry.kind,
                &entry.id,
                &entry.state,
                &entry.cluster,
                &entry.why,
                &entry.region,
            ]
            .map(|cell| or_dash(cell)),
        );
    }
    text(&table)
}

/// One document; `uuid` is null for what the account does not show.
pub fn orphan_json(entry: &Entry) -> Value {
    let uuid = (!entry.uuid.is_empty()).then_some(&entry.uuid);
    json!({
        "kind": entry.kind,
        "id": entry.id,
        "state": entry.state,
        "cluster": entry.cluster,
        "uuid": uuid,
        "region": entry.region,
        "why": entry.why,
    })
}
