//! The simulated agents of a fleet, in a process of their own.

use std::time::Duration;

pub use super::plan::{AgentsPlan, PlannedCluster};
pub use super::simulated::{AgentsState, PRINT, SinceMark, printed};
use crate::bench::program::Program;
use crate::rig::simulated_agents_program;
use crate::wait;

/// They dial until this is dropped.
pub struct SimulatedAgents {
    program: Program,
    count: usize,
}

impl SimulatedAgents {
    /// Starts them, and waits for nothing.
    ///
    /// # Panics
    /// When the program is missing.
    pub fn start(plan: &AgentsPlan) -> Self {
        let text = serde_json::to_string(plan).expect("it is plain");
        Self {
            program: Program::of(&simulated_agents_program(), &[&text]),
            count: plan.count(),
        }
    }

    /// Their process.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they have seen.
    ///
    /// # Panics
    /// When they are gone.
    pub fn state(&mut self) -> AgentsState {
        self.program.tell("state");
        serde_json::from_str(&self.program.line()).expect("a state")
    }

    /// From now on, who loses a session counts anew.
    ///
    /// # Panics
    /// When they are gone.
    pub fn mark(&mut self) {
        self.program.tell("mark");
        assert_eq!(self.program.line(), "marked");
    }

    /// The agent of this number, counted over all clusters, finds out something new about its machine and reports it.
    ///
    /// # Panics
    /// When they are gone.
    pub fn news(&mut self, number: usize) {
        self.order(&format!("news {number}"));
    }

    /// From now on those of odd numbers leave cluster facts as they are sent, as machines that are busy, or not any more.
    ///
    /// # Panics
    /// When they are gone.
    pub fn leave_facts(&mut self, do_they: bool) {
        self.order(if do_they { "leave facts" } else { "take facts" });
    }

    /// Whatever runs has ended.
    ///
    /// # Panics
    /// When they are gone.
    pub fn end_runs(&mut self) {
        self.order("end runs");
    }

    fn order(&mut self, order: &str) {
        self.program.tell(order);
        assert_eq!(self.program.line(), "told");
    }

    /// Waits until what they have seen is so; gives it.
    ///
    /// # Panics
    /// When `limit` passes first.
    #[track_caller]
    pub fn until(
        &mut self,
        is_so: impl Fn(&AgentsState) -> bool,
        limit: Duration,
        what: &str,
    ) -> AgentsState {
        let found = wait::maybe(
            || {
                let state = self.state();
                is_so(&state).then_some(state)
            },
            limit,
        );
        match found {
            Some(state) => state,
            None => panic!(
                "waited {} s in vain: {what}: {:#?}",
                limit.as_secs(),
                self.state()
            ),
        }
    }

    /// Waits until all have a session.
    ///
    /// # Panics
    /// When `limit` passes first.
    #[track_caller]
    pub fn until_attached(&mut self, limit: Duration) -> AgentsState {
        let count = self.count;
        self.until(|state| state.attached == count, limit, "all are attached")
    }

    /// Waits until at least this many have lost a session since the mark, and all have one.
    ///
    /// # Panics
    /// When `limit` passes first.
    #[track_caller]
    pub fn until_back(&mut self, lost: usize, limit: Duration) -> AgentsState {
        let count = self.count;
        let is_so = |state: &AgentsState| state.since_mark.lost >= lost && state.attached == count;
        self.until(is_so, limit, "all are attached again")
    }
}
