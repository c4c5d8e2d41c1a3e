//! Facts of a simulated agent: what it reports of its machine, and cluster facts as it keeps them, put together by the code that a
//! real one has.

use aot_host::hash::hex;
use aot_proto::v1::{ClusterFacts, ClusterFactsApplied, FactsReport};

use super::agent::Agent;
use crate::bench::agents::report;

impl Agent {
    /// What it has found out about its machine.
    pub(super) fn report(&self) -> Box<FactsReport> {
        let mut report = report(self.number);
        if self.news > 0 {
            let inside = report.node_json.trim_start_matches('{');
            report.node_json = format!("{{\"news\":{},{inside}", self.news);
        }
        report.into()
    }

    /// Generation of the cluster facts that it has.
    pub(super) fn generation(&self) -> u64 {
        match self.shared.plan.keeps_facts {
            true => self.cluster_facts.message().generation,
            false => self.shared.plan.generation,
        }
    }

    /// Applies cluster facts; its answer, if it gives any.
    pub(super) fn apply(&mut self, facts: ClusterFacts) -> Option<ClusterFactsApplied> {
        let mut applied = ClusterFactsApplied {
            generation: facts.generation,
            ..ClusterFactsApplied::default()
        };
        if !self.shared.plan.keeps_facts {
            return Some(applied);
        }
        let board = &self.shared.board;
        board.sent_facts(facts.base == 0);
        if self.orders.borrow().leave_facts_to(self.number) {
            return None;
        }
        match std::mem::take(&mut self.cluster_facts).changed(facts) {
            Ok(content) => {
                let digest = hex(&content.message().digest);
                board.has_facts(self.at, format!("{} {digest}", applied.generation));
                self.cluster_facts = content;
            }
            // It has none any more: it is sent the whole.
            Err(error) => applied.error = error.to_string(),
        }
        Some(applied)
    }
}
