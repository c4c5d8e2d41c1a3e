//! Tables for people. Pure: answers in, text out, each line without blanks at its end.

use aot_proto::v1::{
    AgentsReply, Event, InstanceView, MachineState, MastersReply, Phase, Proof, StageOutcome,
    StageState, StageView, agents_reply,
};
use serde_json::{Map, Value};

use super::failure::InstanceFailure;
use super::format::{public_or_private, seconds};
use super::grid::{Cell, Grid, cut, or_dash};
use super::sentence::{fields_of, last_printed, stage_outcome_text, stage_position};
use super::style::{Style, phase_paint};

/// Most lines of what a failed stage printed in a table.
const MAX_PRINTED: usize = 5;

/// A phase in its colour.
fn phase(number: i32) -> Cell {
    Cell::painted(or_dash(Phase::name_of(number)), phase_paint(number))
}

/// Why silent machines may be silent, for below a table: (name, phase, what the provider knows of it), lines indented.
pub(crate) fn explanations<'a>(
    instances: impl Iterator<Item = (&'a str, Phase, &'a str)>,
    style: Style,
) -> String {
    let block = |(name, _, text): (&str, Phase, &str)| {
        let lines = text.lines().map(|line| style.dim(&format!("  {line}")));
        format!("{name}:\n{}", lines.collect::<Vec<_>>().join("\n"))
    };
    let told = |(_, phase, text): &(&str, Phase, &str)| *phase == Phase::Failed && !text.is_empty();
    let blocks: Vec<String> = instances.filter(told).map(block).collect();
    blocks.join("\n")
}

/// Which columns `list` and `status` show besides the instance, its pool, phase and state.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Columns {
    /// Cloud properties, one per line.
    pub properties: bool,
    /// Addresses and DNS names.
    pub addresses: bool,
    /// Stages, one per line.
    pub stages: bool,
    /// What `status` shows: how far the stages are, the machine, one address, the agent, the note.
    pub overview: bool,
}

/// Instances with the columns that were asked for.
pub(crate) fn instances_table(
    views: &[InstanceView],
    columns: Columns,
    style: Style,
    width: Option<usize>,
) -> String {
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
    let mut table = Grid::new(&heads);
    for view in views {
        table.row(cells(view, columns));
    }
    match (columns.overview, columns.properties) {
        (true, _) => table.fitted(style, width, &["machine", "state", "address", "pool"]),
        (false, false) => table.fitted(style, width, &["pool", "state", "private dns"]),
        // Properties are several lines of any length, and cut they are of no use.
        (false, true) => table.text(style),
    }
}

fn cells(view: &InstanceView, columns: Columns) -> Vec<Cell> {
    let plain = Cell::or_dash;
    let mut cells = vec![
        plain(&view.name),
        plain(&view.pool),
        phase(view.phase),
        plain(MachineState::name_of(view.state)),
    ];
    if columns.overview {
        let ok = view
            .stage_views
            .iter()
            .filter(|stage| stage.state() == StageState::Succeeded)
            .count();
        let agent = if view.connected {
            "connected"
        } else if view.state() == MachineState::Terminated {
            "" // it will not come back
        } else if view.last_seen_unix_ms > 0 {
            "away"
        } else {
            ""
        };
        cells.extend([
            Cell::new(format!("{ok}/{}", view.stages)),
            plain(&view.machine_id),
            plain(public_or_private(&view.public_ip, &view.private_ip).unwrap_or_default()),
            plain(agent),
            Cell::new(warned(view)),
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
        let lines = view
            .stage_views
            .iter()
            .map(|stage| stage_lines(stage, view.stages));
        cells.push(plain(&lines.collect::<Vec<_>>().join("\n")));
    }
    if columns.properties {
        cells.push(plain(&properties(&view.properties_json)));
    }
    cells
}

/// Why it is where it is; while a stage runs, which; of one that failed, how. What that printed stands elsewhere.
fn status_text(view: &InstanceView) -> String {
    let of_state = |state: StageState| {
        let mut stages = view.stage_views.iter();
        stages.find(|stage| stage.state() == state)
    };
    if let Some(stage) = of_state(StageState::Running).filter(|_| view.note.is_empty()) {
        return stage_lines(stage, view.stages);
    }
    let failed = of_state(StageState::Failed).filter(|stage| {
        let says_the_same = |note: &str| note.starts_with(&format!("stage {} ", stage.name));
        view.note.is_empty() || says_the_same(&view.note)
    });
    match failed.and(InstanceFailure::of_view(view)) {
        Some((failure, took)) => failure.said(&took),
        None => view.note.clone(),
    }
}

/// `prereq (1 of 2) succeeded in 3.0 s`; below it, what a failed one printed last.
fn stage_lines(stage: &StageView, count: u32) -> String {
    let place = stage_position(&stage.name, u64::from(stage.index), u64::from(count));
    let took = match stage.ms {
        0 => String::new(),
        ms => seconds(ms as f64 / 1000.0),
    };
    let said = match (stage.state(), stage.outcome()) {
        (StageState::Running, StageOutcome::LostContact) => {
            format!("running for {took}, but contact with its agent is lost")
        }
        (StageState::Running, _) => with_detail(&format!("running for {took}"), &stage.detail),
        (StageState::Succeeded, _) => {
            let left = match stage.detail.as_str() {
                "" => String::new(),
                left => format!(", {left}"),
            };
            match took.as_str() {
                "" => format!("succeeded{left}"),
                took => format!("succeeded in {took}{left}"),
            }
        }
        (StageState::Failed, _) => {
            let code = stage.exit_code.map(i64::from);
            stage_outcome_text(stage.outcome, code, &took, &stage.detail)
        }
        _ if stage.outcome == 0 => with_detail(StageState::name_of(stage.state), &stage.detail),
        // It is tried again, or continues after a reboot.
        _ => {
            let code = stage.exit_code.map(i64::from);
            let last = stage_outcome_text(stage.outcome, code, "", &stage.detail);
            format!("{}: {last}", StageState::name_of(stage.state))
        }
    };
    let mut lines = vec![format!("{place} {said}")];
    let stderr = stage.tail_stderr as usize;
    let mark = if stderr > 0 { "!" } else { "|" };
    let printed = last_printed(&stage.tail, stderr, MAX_PRINTED).iter();
    lines.extend(printed.map(|line| format!("  {mark} {}", line.replace('\n', " "))));
    lines.join("\n")
}

fn with_detail(state: &str, detail: &str) -> String {
    match detail {
        "" => state.to_owned(),
        detail => format!("{state}: {detail}"),
    }
}

/// `key: value`, one per line.
fn properties(json: &str) -> String {
    let map: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}: {text}"),
        other => format!("{key}: {other}"),
    };
    map.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The agents' identities.
pub(crate) fn agents_table(reply: &AgentsReply, style: Style, columns: Option<usize>) -> String {
    let mut table = Grid::new(&[
        "instance",
        "cluster",
        "machine",
        "connected",
        "last seen",
        "expires",
        "proof",
        "serial",
    ]);
    for agent in &reply.agents {
        table.row([
            agent.instance.as_str(),
            &agent.cluster,
            or_dash(&agent.machine_id),
            standing(agent),
            &stamp(agent.last_seen_unix_ms),
            &stamp(agent.expires_unix.saturating_mul(1000)),
            or_dash(Proof::name_of(agent.proof)),
            or_dash(&agent.serial),
        ]);
    }
    table.fitted(style, columns, &["machine", "cluster"])
}

/// Masters that share their records.
pub(crate) fn masters_table(reply: &MastersReply, style: Style, columns: Option<usize>) -> String {
    let mut table = Grid::new(&[
        "master",
        "state",
        "silent",
        "sessions",
        "clusters",
        "agents dial",
        "masters dial",
        "build",
    ]);
    for master in &reply.masters {
        let state = match (master.alive, master.draining, master.answers) {
            (false, ..) => "silent",
            (true, true, _) => "draining",
            (true, false, true) => "answers",
            (true, false, false) => "alive",
        };
        let silent = format!("{} s", master.silent_ms / 1000);
        let sessions = master.sessions.map(|count| count.to_string());
        table.row([
            master.id.as_str(),
            state,
            if master.answers { "-" } else { &silent },
            or_dash(sessions.as_deref().unwrap_or_default()),
            or_dash(&master.clusters.join(", ")),
            or_dash(&master.agents.join(", ")),
            or_dash(&master.peer),
            or_dash(&master.build),
        ]);
    }
    table.fitted(style, columns, &["build", "agents dial", "clusters"])
}

/// Columns of a setting's value on a terminal.
const VALUE_COLUMNS: usize = 40;

/// Settings: key, value and origin. On a terminal what is too long is cut.
pub fn settings_table(rows: &[[String; 3]]) -> String {
    let columns = super::columns();
    let mut table = Grid::new(&["setting", "value", "origin"]);
    for [key, value, origin] in rows {
        let value = match columns {
            Some(_) => cut(value, VALUE_COLUMNS),
            None => value.clone(),
        };
        table.row([Cell::new(key), Cell::or_dash(&value), Cell::new(origin)]);
    }
    table.fitted(Style::default(), columns, &[])
}

/// The note of an instance, behind the warning about it.
fn warned(view: &InstanceView) -> String {
    let note = status_text(view);
    match (view.warning.is_empty(), note.is_empty()) {
        (true, _) => note,
        (false, true) => view.warning.clone(),
        (false, false) => format!("{}; {note}", view.warning),
    }
}

/// Whether an agent is there, or may never be again.
fn standing(agent: &agents_reply::Entry) -> &'static str {
    match (agent.revoked_unix_ms, agent.connected) {
        (0, _) if agent.used_twice_unix_ms > 0 => "used twice",
        (0, true) => "yes",
        (0, false) => "no",
        _ => "revoked",
    }
}

/// `2026-01-01 00:03:04Z`, `-` for never.
pub(crate) fn stamp(unix_ms: u64) -> String {
    match super::rfc3339(unix_ms) {
        Value::String(text) => format!("{}Z", text[..19].replace('T', " ")),
        _ => "-".to_owned(),
    }
}

/// One line of a cleanup's receipt; `None` when the event is not a receipt.
pub(crate) fn receipt_line(event: &Event, style: Style) -> Option<String> {
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
    let name = match field("name") {
        "" => String::new(),
        name => style.dim(&format!("  {name}")),
    };
    Some(format!(
        "{:<15} {:<24} {state}{name}",
        field("kind"),
        field("id")
    ))
}

#[cfg(test)]
mod tests;
