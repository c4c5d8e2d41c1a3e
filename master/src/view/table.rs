//! Tables for people. Pure: answers in, text out, each line without blanks at its end.

use aot_proto::v1::{AgentsReply, Event, InstanceView, StageView, agents_reply};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use super::board::Board;
use super::style::Style;
use super::words::{fields_of, places, seconds};

/// An empty table with these heads.
pub(super) fn table(style: Style, heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(heads.iter().map(|head| head.to_uppercase()));
    table
}

/// The table's text without blanks at the ends of lines and without its outer padding.
pub(super) fn text(table: &Table) -> String {
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A cell is never empty.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A phase in its colour; the table decides whether colours are shown.
fn phase(word: &str) -> Cell {
    let cell = Cell::new(or_dash(word));
    match word {
        "ready" => cell.fg(Color::Green),
        "failed" => cell.fg(Color::Red),
        "gone" | "planned" => cell,
        _ => cell.fg(Color::Cyan),
    }
}

/// What a launch or an apply leaves: one line an instance.
pub fn closing_table(board: &Board, style: Style) -> String {
    let mut table = table(
        style,
        &[
            "instance", "pool", "phase", "machine", "address", "stages", "note",
        ],
    );
    for row in board.rows() {
        let note = if row.phase == "ready" {
            ""
        } else {
            row.note.as_str()
        };
        table.add_row([
            Cell::new(&row.name),
            Cell::new(or_dash(&row.pool)),
            phase(&row.phase),
            Cell::new(or_dash(&row.machine_id)),
            Cell::new(or_dash(&row.address)),
            Cell::new(format!("{}/{}", row.stages_ok, row.stages)),
            Cell::new(note),
        ]);
    }
    text(&table)
}

/// Why silent machines may be silent, for below a table: (name, phase, what the provider knows of it), lines indented.
pub fn explanations<'a>(
    instances: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    style: Style,
) -> String {
    let block = |(name, _, text): (&str, &str, &str)| {
        let lines = text.lines().map(|line| style.dim(&format!("  {line}")));
        format!("{name}:\n{}", lines.collect::<Vec<_>>().join("\n"))
    };
    let told = |(_, phase, text): &(&str, &str, &str)| *phase == "failed" && !text.is_empty();
    let blocks: Vec<String> = instances.filter(told).map(block).collect();
    blocks.join("\n")
}

/// Which columns `list` and `status` show besides the instance, its pool, phase and state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Columns {
    /// Cloud properties, one a line.
    pub properties: bool,
    /// Addresses and DNS names.
    pub addresses: bool,
    /// Stages, one a line.
    pub stages: bool,
    /// What `status` shows: how far the stages are, the machine, one address, the agent, the note.
    pub overview: bool,
}

/// Instances with the columns that were asked for.
pub fn instances_table(views: &[InstanceView], columns: Columns, style: Style) -> String {
    let mut heads = vec!["name", "pool", "phase", "state"];
    if columns.overview {
        heads.extend(["stages", "machine", "address", "agent", "note"]);
    }
    if columns.addresses {
        heads.extend(["private ip", "public ip", "private dns", "public dns"]);
    }
    if columns.stages {
        heads.push("stages");
    }
    if columns.properties {
        heads.push("properties");
    }
    let mut table = table(style, &heads);
    for view in views {
        table.add_row(cells(view, columns));
    }
    text(&table)
}

fn cells(view: &InstanceView, columns: Columns) -> Vec<Cell> {
    let plain = |text: &str| Cell::new(or_dash(text));
    let mut cells = vec![
        plain(&view.name),
        plain(&view.pool),
        phase(&view.phase),
        plain(&view.state),
    ];
    if columns.overview {
        let ok = view
            .stage_views
            .iter()
            .filter(|stage| stage.state == "succeeded")
            .count();
        let agent = if view.connected {
            "connected"
        } else if view.state == "terminated" {
            "" // it will not come back
        } else if view.last_seen_unix_ms > 0 {
            "away"
        } else {
            ""
        };
        cells.extend([
            Cell::new(format!("{ok}/{}", view.stages)),
            plain(&view.machine_id),
            plain(places(&view.public_ip, &view.private_ip).unwrap_or_default()),
            plain(agent),
            Cell::new(&view.note),
        ]);
    }
    if columns.addresses {
        cells.extend(
            [
                &view.private_ip,
                &view.public_ip,
                &view.private_dns,
                &view.public_dns,
            ]
            .map(|text| plain(text)),
        );
    }
    if columns.stages {
        let lines: Vec<String> = view.stage_views.iter().map(stage_line).collect();
        cells.push(plain(&lines.join("\n")));
    }
    if columns.properties {
        cells.push(plain(&properties(&view.properties_json)));
    }
    cells
}

/// `0 prereq succeeded 3.0 s`.
fn stage_line(stage: &StageView) -> String {
    let mut line = format!("{} {} {}", stage.index, stage.name, stage.state);
    if stage.state == "failed" {
        line.push_str(&format!(" (exit code {})", stage.exit_code));
    }
    if stage.seconds > 0 {
        line.push_str(&format!(" {}", seconds(stage.seconds as f64)));
    }
    line
}

/// `key: value`, one a line.
fn properties(json: &str) -> String {
    let map: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}: {text}"),
        other => format!("{key}: {other}"),
    };
    map.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The agents' identities.
pub fn agents_table(reply: &AgentsReply, style: Style) -> String {
    let mut table = table(
        style,
        &[
            "instance",
            "cluster",
            "machine",
            "connected",
            "last seen",
            "expires",
            "serial",
        ],
    );
    for agent in &reply.agents {
        table.add_row([
            agent.instance.as_str(),
            &agent.cluster,
            or_dash(&agent.machine_id),
            standing(agent),
            &stamp(agent.last_seen_unix_ms),
            &stamp(agent.expires_unix.saturating_mul(1000)),
            or_dash(&agent.serial),
        ]);
    }
    text(&table)
}

/// Whether an agent is there, or may never be again.
fn standing(agent: &agents_reply::Entry) -> &'static str {
    match (agent.revoked_unix_ms, agent.connected) {
        (0, true) => "yes",
        (0, false) => "no",
        _ => "revoked",
    }
}

/// `2026-01-01 00:03:04Z`, `-` for never.
fn stamp(unix_ms: u64) -> String {
    match super::rfc3339(unix_ms) {
        Value::String(text) => format!("{}Z", text[..19].replace('T', " ")),
        _ => "-".to_owned(),
    }
}

/// One line of a cleanup's receipt; `None` when the event is no receipt.
pub fn receipt_line(event: &Event, style: Style) -> Option<String> {
    if event.event != "receipt" {
        return None;
    }
    let fields = fields_of(event);
    let field = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    if field("id").is_empty() {
        return Some(event.message.clone());
    }
    let left = fields
        .get("left")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    let state = if left {
        style.bad(field("state"))
    } else {
        style.good(field("state"))
    };
    Some(format!("{:<15} {:<24} {state}", field("kind"), field("id")))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
