//! What is known of every instance of a running launch, event by event. Pure: time comes with the events.

use std::collections::{BTreeSet, HashMap};

use aot_proto::v1::Event;
use serde_json::Value;

use super::words;

/// aot's words, in the order in which they are counted.
const PHASES: [&str; 9] = [
    "ready",
    "failed",
    "bootstrapping",
    "configured",
    "enrolled",
    "booting",
    "requested",
    "planned",
    "gone",
];

/// One instance.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its pool; empty for a single instance.
    pub pool: String,
    /// aot's word.
    pub phase: String,
    /// The provider's id; empty while there is none.
    pub machine_id: String,
    /// Public address, or the private one; may be empty.
    pub address: String,
    /// Stage that runs, or ran last.
    pub stage: u32,
    /// How many stages there are.
    pub stages: u32,
    /// How many have succeeded.
    pub stages_ok: u32,
    /// The last thing worth saying, one line.
    pub note: String,
    /// What the provider knows of a machine that never called home; several lines, mostly empty.
    pub explanation: String,
    /// When it entered its phase or stage, milliseconds since 1970.
    pub since_ms: u64,
    done: BTreeSet<u64>,
}

/// Every instance that events have named, in the order of their first event.
#[derive(Debug, Default)]
pub struct Board {
    /// The cluster's name.
    pub cluster: String,
    /// When the first event was, milliseconds since 1970.
    pub started_ms: u64,
    rows: Vec<Row>,
    places: HashMap<String, usize>,
}

impl Board {
    /// The instances.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many instances are in each phase, in words, in an order that does not change while it runs.
    pub fn phase_words(&self) -> String {
        let words: Vec<String> = PHASES
            .iter()
            .map(|phase| {
                (
                    phase,
                    self.rows.iter().filter(|row| row.phase == *phase).count(),
                )
            })
            .filter(|(_, count)| *count > 0)
            .map(|(phase, count)| format!("{count} {phase}"))
            .collect();
        words.join(", ")
    }

    /// Takes one event in.
    pub fn take(&mut self, event: &Event) {
        if self.started_ms == 0 {
            self.started_ms = event.unix_ms;
        }
        if !event.cluster.is_empty() {
            self.cluster.clone_from(&event.cluster);
        }
        if event.instance.is_empty() {
            return;
        }
        let row = self.row(&event.instance);
        let before = (row.phase.clone(), row.stage);
        row.take_view(event);
        row.take_words(event);
        if before != (row.phase.clone(), row.stage) || row.since_ms == 0 {
            row.since_ms = event.unix_ms;
        }
    }

    fn row(&mut self, name: &str) -> &mut Row {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                phase: "planned".to_owned(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }
}

impl Row {
    fn take_view(&mut self, event: &Event) {
        let Some(view) = &event.view else { return };
        self.pool.clone_from(&view.pool);
        self.explanation.clone_from(&view.explanation);
        self.machine_id.clone_from(&view.machine_id);
        self.stage = view.stage;
        self.stages = view.stages;
        self.note.clone_from(&view.note);
        self.address = words::places(&view.public_ip, &view.private_ip)
            .unwrap_or_default()
            .to_owned();
        if !view.phase.is_empty() {
            self.phase.clone_from(&view.phase);
        }
        if !view.stage_views.is_empty() {
            self.done = view
                .stage_views
                .iter()
                .filter(|stage| stage.state == "succeeded")
                .map(|stage| u64::from(stage.index))
                .collect();
        }
        self.stages_ok = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
    }

    /// What the word and the fields say when no view came with the event.
    fn take_words(&mut self, event: &Event) {
        let fields = words::fields_of(event);
        let stage = fields.get("stage").and_then(Value::as_u64);
        match (event.event.as_str(), stage) {
            ("stage-started", Some(stage)) => {
                self.done.remove(&stage);
                self.stage = u32::try_from(stage).unwrap_or(u32::MAX);
            }
            ("stage-ended", Some(stage))
                if fields.get("outcome").is_some_and(|o| o == "succeeded") =>
            {
                self.done.insert(stage);
            }
            ("stage-skipped", Some(stage)) => {
                self.done.insert(stage);
            }
            _ => {}
        }
        self.stages_ok = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        if event.view.is_none()
            && let Some(phase) = phase_after(&event.event)
        {
            self.phase = phase.to_owned();
        }
        if event.event == "stage-output" || self.note.is_empty() && event.event != "snapshot" {
            let said = words::sentence(event);
            let said = said.lines().last().unwrap_or_default();
            self.note = if said == self.phase {
                String::new()
            } else {
                said.to_owned()
            };
        }
    }
}

/// The phase that an event puts an instance in.
fn phase_after(event: &str) -> Option<&'static str> {
    Some(match event {
        "instance-planned" => "planned",
        "instance-requested" => "requested",
        "instance-launched" | "boot-step" => "booting",
        "instance-enrolled" => "enrolled",
        "cluster-facts-applied" => "configured",
        "stage-started" => "bootstrapping",
        "instance-ready" => "ready",
        "instance-failed" | "boot-failed" => "failed",
        "instance-gone" => "gone",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_launch_ends_with_every_instance_where_it_is() {
        let mut board = Board::default();
        for event in samples::launch() {
            board.take(&event);
        }
        let names: Vec<_> = board
            .rows()
            .iter()
            .map(|row| {
                (
                    row.name.as_str(),
                    row.phase.as_str(),
                    row.stages_ok,
                    row.stages,
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("manager", "ready", 2, 2),
                ("web1", "ready", 1, 1),
                ("web2", "failed", 0, 1)
            ]
        );
        assert_eq!(board.cluster, "hadoop");
    }

    #[test]
    fn events_without_a_view_move_an_instance_too() {
        let mut board = Board::default();
        let event = |unix_ms, event: &str, fields: &str| Event {
            unix_ms,
            instance: "a".into(),
            event: event.into(),
            fields_json: fields.into(),
            ..Event::default()
        };
        board.take(&event(5, "instance-enrolled", ""));
        assert_eq!(
            (board.rows()[0].phase.as_str(), board.rows()[0].since_ms),
            ("enrolled", 5)
        );
        board.take(&event(7, "stage-started", r#"{"stage":1}"#));
        board.take(&event(8, "stage-output", ""));
        assert_eq!(
            (
                board.rows()[0].phase.as_str(),
                board.rows()[0].stage,
                board.rows()[0].since_ms
            ),
            ("bootstrapping", 1, 7)
        );
        board.take(&event(
            9,
            "stage-ended",
            r#"{"stage":1,"outcome":"failed"}"#,
        ));
        assert_eq!(board.rows()[0].stages_ok, 0);
    }
}
