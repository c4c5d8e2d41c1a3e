//! What is known of every instance of a running launch, event by event. Pure: time comes with the events.

use std::collections::{BTreeSet, HashMap};

use aot_proto::v1::{Event, InstanceView, Phase, StageState};
use serde_json::Value;

use super::failure::InstanceFailure;
use super::failures::{FailureReport, Failures};
use super::ranges::by_number;
use super::style::Style;
use super::{format, sentence};

/// aot's phases, in the order in which they are counted.
const PHASES: [Phase; 10] = [
    Phase::Ready,
    Phase::Failed,
    Phase::Blocked,
    Phase::Bootstrapping,
    Phase::Configured,
    Phase::Enrolled,
    Phase::Booting,
    Phase::Requested,
    Phase::Planned,
    Phase::Gone,
];

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub name: String,
    /// Its pool; empty for a single instance.
    pub pool: String,
    /// The number of its phase, which may be of a newer master.
    pub phase: i32,
    /// The provider's id; empty while there is none.
    pub machine_id: String,
    /// Public address, or the private one; may be empty.
    pub address: String,
    /// Stage that runs, or ran last.
    pub stage: u32,
    pub stage_name: String,
    /// How many stages there are.
    pub stages: u32,
    /// How many have succeeded.
    pub stages_ok: u32,
    /// The last thing worth saying, one line.
    pub note: String,
    /// What the provider knows of a machine that never called home; several lines, mostly empty.
    pub explanation: String,
    /// When it entered its phase or stage, milliseconds since 1970; 0 where that is not known.
    pub since_ms: u64,
    /// The number of its failure, where it has one.
    pub failure: Option<usize>,
    /// What its stage that runs printed last.
    pub last_line: String,
    done: BTreeSet<u64>,
}

/// Every instance that events have named, in the order of their first event.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The cluster's name.
    pub cluster: String,
    /// When the first event was, milliseconds since 1970.
    pub started_ms: u64,
    rows: Vec<Row>,
    places: HashMap<String, usize>,
    failures: Failures,
}

impl Board {
    /// Whether no event named an instance.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The instances, web2 before web10.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| by_number(&row.name));
        rows
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The instances, in the order of their first event.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// Why an instance failed, in one line.
    pub(super) fn why(&self, row: &Row) -> String {
        let failure = row.failure.and_then(|number| self.failures.get(number));
        match (failure, row.note.is_empty()) {
            (Some(failure), _) => failure.line(""),
            (None, false) => row.note.clone(),
            (None, true) => Phase::name_of(row.phase).to_owned(),
        }
    }

    /// What is to be known of an instance that is not ready, without what it printed.
    pub(super) fn note_of(&self, row: &Row) -> String {
        let failure = row.failure.and_then(|number| self.failures.get(number));
        match (row.phase(), failure) {
            (Phase::Ready, _) => String::new(),
            (Phase::Failed, Some(failure)) => failure.said(""),
            _ => row.note.clone(),
        }
    }

    /// What is to be said of those that failed, see [`Failures::due`].
    pub(super) fn due(&mut self, now_ms: Option<u64>, style: Style) -> Vec<FailureReport> {
        self.failures.due(now_ms, style)
    }

    /// What a stage printed last, if it still runs.
    pub(crate) fn set_last_line(&mut self, instance: &str, stage: u32, line: &str) {
        let row = self
            .places
            .get(instance)
            .and_then(|at| self.rows.get_mut(*at));
        let runs = |row: &&mut Row| row.phase() == Phase::Bootstrapping && row.stage == stage;
        if let Some(row) = row.filter(runs) {
            row.last_line = line.to_owned();
        }
    }

    /// Instances as they are, of a cluster that nobody has followed: how long they are so is known of stages alone.
    pub(crate) fn of_views<'v>(
        cluster: &str,
        views: impl Iterator<Item = &'v InstanceView>,
        now_ms: u64,
    ) -> Self {
        let mut board = Self::default();
        for view in views {
            board.step(&Event {
                unix_ms: now_ms,
                cluster: cluster.to_owned(),
                instance: view.name.clone(),
                event: "snapshot".to_owned(),
                view: Some(view.clone()),
                ..Event::default()
            });
        }
        board.started_ms = 0;
        for row in &mut board.rows {
            if row.phase() != Phase::Bootstrapping {
                row.since_ms = 0;
            }
        }
        board
    }

    /// How many instances are in each phase, in words, in an order that does not change while it runs.
    pub(crate) fn phase_counts(&self) -> String {
        self.phase_counts_but(Phase::Unspecified)
    }

    /// The same without one phase.
    pub(super) fn phase_counts_but(&self, but: Phase) -> String {
        let phases = PHASES.into_iter().chain([Phase::Unspecified]);
        let phases = phases.filter(|phase| *phase != but || but == Phase::Unspecified);
        let counted = phases.filter_map(|phase| {
            let rows = self.rows.iter().filter(|row| row.phase() == phase);
            let name = rows.clone().next().map(|row| Phase::name_of(row.phase))?;
            Some(format!("{} {name}", rows.count()))
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    /// What one event changes.
    pub(crate) fn step(&mut self, event: &Event) {
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
        let before = (row.phase, row.stage);
        row.read_view(event);
        row.read_event(event);
        if before != (row.phase, row.stage) || row.since_ms == 0 {
            row.since_ms = event.unix_ms.saturating_sub(ran_ms(event));
            row.last_line.clear();
        }
        let (is_failed, known) = (row.phase() == Phase::Failed, row.failure);
        let of_view = || event.view.as_ref().and_then(InstanceFailure::of_view);
        let failure = if let Some((failure, took)) = InstanceFailure::of_event(event) {
            let number = self.failures.number(failure);
            let (name, at_ms) = (&event.instance, event.unix_ms);
            self.failures.report(number, name, took, at_ms);
            Some(number)
        } else if !is_failed {
            None
        } else if known.is_some() {
            known
        } else {
            // It failed before anybody followed it: that is no news.
            of_view().map(|(failure, _)| self.failures.number(failure))
        };
        self.row(&event.instance).failure = failure;
    }

    fn row(&mut self, name: &str) -> &mut Row {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                phase: Phase::Planned.into(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }
}

impl Row {
    /// Its phase; unspecified when a newer master has one that is not known here.
    pub(crate) fn phase(&self) -> Phase {
        Phase::try_from(self.phase).unwrap_or_default()
    }

    fn read_view(&mut self, event: &Event) {
        let Some(view) = &event.view else { return };
        self.pool.clone_from(&view.pool);
        self.explanation.clone_from(&view.explanation);
        self.machine_id.clone_from(&view.machine_id);
        self.stage = view.stage;
        self.stages = view.stages;
        if let Some(stage) = view.stage_views.get(view.stage as usize) {
            self.stage_name.clone_from(&stage.name);
        }
        self.note.clone_from(&view.note);
        self.address = format::public_or_private(&view.public_ip, &view.private_ip)
            .unwrap_or_default()
            .to_owned();
        if view.phase != 0 {
            self.phase = view.phase;
        }
        if !view.stage_views.is_empty() {
            self.done = view
                .stage_views
                .iter()
                .filter(|stage| stage.state() == StageState::Succeeded)
                .map(|stage| u64::from(stage.index))
                .collect();
        }
        self.stages_ok = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
    }

    /// What the word and the fields say when no view came with the event.
    fn read_event(&mut self, event: &Event) {
        let fields = sentence::fields_of(event);
        let stage = fields.get("stage").and_then(Value::as_u64);
        match (event.event.as_str(), stage) {
            ("stage-started", Some(stage)) => {
                self.done.remove(&stage);
                self.stage = u32::try_from(stage).unwrap_or(u32::MAX);
                let name = fields.get("name").and_then(Value::as_str);
                self.stage_name = name.unwrap_or_default().to_owned();
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
            self.phase = phase.into();
        }
        // The row says by itself which stage runs, and how many are done.
        let shown = matches!(
            event.event.as_str(),
            "snapshot" | "stage-started" | "stage-ended"
        );
        if event.event == "stage-output" || self.note.is_empty() && !shown {
            let said = sentence::sentence(event);
            let said = said.lines().last().unwrap_or_default();
            self.note = if said == Phase::name_of(self.phase) {
                String::new()
            } else {
                said.to_owned()
            };
        }
    }
}

/// How long the stage has run that an event shows as it is.
fn ran_ms(event: &Event) -> u64 {
    let view = event.view.as_ref().filter(|_| event.event == "snapshot");
    let stages = view.into_iter().flat_map(|view| &view.stage_views);
    let mut runs = stages.filter(|stage| stage.state() == StageState::Running);
    runs.next().map_or(0, |stage| stage.ms)
}

/// The phase that an event puts an instance in.
fn phase_after(event: &str) -> Option<Phase> {
    Some(match event {
        "instance-planned" => Phase::Planned,
        "instance-requested" => Phase::Requested,
        "instance-launched" | "boot-step" => Phase::Booting,
        "instance-enrolled" => Phase::Enrolled,
        "cluster-facts-applied" => Phase::Configured,
        "stage-started" => Phase::Bootstrapping,
        "instance-ready" => Phase::Ready,
        "instance-failed" | "boot-failed" => Phase::Failed,
        "instance-gone" => Phase::Gone,
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
            board.step(&event);
        }
        let names: Vec<_> = board
            .rows()
            .iter()
            .map(|row| (row.name.as_str(), row.phase(), row.stages_ok, row.stages))
            .collect();
        assert_eq!(
            names,
            [
                ("manager", Phase::Ready, 2, 2),
                ("web1", Phase::Ready, 1, 1),
                ("web2", Phase::Failed, 0, 1)
            ]
        );
        assert_eq!(board.cluster, "hadoop");
    }

    #[test]
    fn instances_are_in_the_order_in_which_people_count() {
        let mut board = Board::default();
        for name in ["web10", "web2", "lead", "web1"] {
            board.step(&Event {
                instance: name.into(),
                event: "snapshot".into(),
                ..Event::default()
            });
        }
        let names: Vec<&str> = board.rows().iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["lead", "web1", "web2", "web10"]);
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
        board.step(&event(5, "instance-enrolled", ""));
        assert_eq!(
            (board.rows()[0].phase(), board.rows()[0].since_ms),
            (Phase::Enrolled, 5)
        );
        board.step(&event(7, "stage-started", r#"{"stage":1}"#));
        board.step(&event(8, "stage-output", ""));
        assert_eq!(
            (
                board.rows()[0].phase(),
                board.rows()[0].stage,
                board.rows()[0].since_ms
            ),
            (Phase::Bootstrapping, 1, 7)
        );
        board.step(&event(
            9,
            "stage-ended",
            r#"{"stage":1,"outcome":"failed"}"#,
        ));
        assert_eq!(board.rows()[0].stages_ok, 0);
    }
}
