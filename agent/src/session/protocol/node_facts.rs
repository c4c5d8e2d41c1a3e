//! When the machine's facts are collected and sent, and who waits for the first of them. Pure.

use std::time::{Duration, Instant};

use aot_proto::v1::{BuiltinReply, FactsReport};

use crate::node_facts::differs;

/// How often facts are collected again.
pub(super) const FACTS_EVERY: Duration = Duration::from_secs(600);
/// Builtin calls that may wait for the first facts; more are answered with an error.
const MOST_WAITING: usize = 64;

/// The facts that were sent last.
#[derive(Debug, Default)]
pub(super) struct SentFacts {
    latest: Option<Box<FactsReport>>,
    /// When they are to be collected again; `None` while that is under way.
    due_at: Option<Instant>,
    /// Ids of calls that wait for the first ones.
    waiting: Vec<u64>,
}

impl SentFacts {
    /// The answer to the builtin `facts`; `None` when the call waits for the first report.
    pub(super) fn answer(&mut self, call: u64) -> Option<Result<String, &'static str>> {
        match &self.latest {
            Some(facts) => Some(Ok(facts.node_json.clone())),
            None if self.waiting.len() < MOST_WAITING => {
                self.waiting.push(call);
                None
            }
            None => Some(Err("the facts are not collected yet")),
        }
    }

    /// Takes in a report: whether it is to be sent, and the answers to calls that waited for it.
    pub(super) fn collected(
        &mut self,
        report: Box<FactsReport>,
        now: Instant,
    ) -> (Option<FactsReport>, Vec<BuiltinReply>) {
        self.due_at = Some(now + FACTS_EVERY);
        let latest = self.latest.as_ref();
        let changed = latest.is_none_or(|old| differs(old, &report));
        let answer = |id| BuiltinReply {
            id,
            json: report.node_json.clone(),
            error: String::new(),
        };
        let answers = self.waiting.drain(..).map(answer).collect();
        let send = changed.then(|| (*report).clone());
        self.latest = Some(report);
        (send, answers)
    }

    /// Whether they are to be collected again; true once per period.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.due_at.take_if(|at| now >= *at).is_some()
    }
}
