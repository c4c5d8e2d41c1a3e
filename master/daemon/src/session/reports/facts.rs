//! A machine's facts: read in turn with those of other sessions, and decided on no more often than [`FACTS_EVERY`].

use std::pin::Pin;
use std::time::Duration;

use aot_model::instance::NodeFacts;
use aot_model::json_text::JsonText;
use aot_model::world::AgentInput;
use aot_proto::v1;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Master, Reports};

/// Reports of facts of one session are decided on at most this often; of those that come faster the last one counts. A
/// machine reports when something has changed.
const FACTS_EVERY: Duration = Duration::from_secs(2);

/// The latest facts, and when it is their time.
type DelayedFacts = (Box<v1::FactsReport>, Pin<Box<Sleep>>);

/// Facts that have come before their time: the latest.
#[derive(Default)]
pub(super) struct FactsPace {
    next: Option<Instant>,
    /// Boxed, with their timer: few sessions have any.
    waiting: Option<Box<DelayedFacts>>,
}

impl FactsPace {
    /// These facts, when it is their time, or none; then they wait in the place of those that waited.
    pub(super) fn now_or_later(
        &mut self,
        facts: Box<v1::FactsReport>,
    ) -> Option<Box<v1::FactsReport>> {
        let now = Instant::now();
        match (self.next.filter(|next| now < *next), &mut self.waiting) {
            (None, _) => {
                self.next = Some(now + FACTS_EVERY);
                self.waiting = None; // older ones
                return Some(facts);
            }
            (Some(_), Some(waiting)) => waiting.0 = facts,
            (Some(next), waiting) => {
                *waiting = Some(Box::new((facts, Box::pin(sleep_until(next)))));
            }
        }
        None
    }

    /// The facts that waited, once it is their time. Cancel safe; never done when none wait.
    pub(super) async fn due(&mut self) -> Box<v1::FactsReport> {
        match &mut self.waiting {
            Some(waiting) => waiting.1.as_mut().await,
            None => std::future::pending().await,
        }
        let waiting = self.waiting.take().expect("matched above");
        waiting.0
    }
}

impl<M: Master> Reports<M> {
    pub(super) async fn facts(&self, facts: v1::FactsReport) {
        let turn = self.master.facts_turns().acquire().await;
        let Some(node) = object(&facts.node_json) else {
            self.ignored("facts that are not a JSON object");
            return;
        };
        let facts = Box::new(NodeFacts {
            node,
            ssh_host_keys: facts.ssh_host_keys,
            root_public_key: facts.root_public_key,
            user_public_key: facts.user_public_key,
            main_user: facts.main_user,
        });
        // Its turn ends only with the decision: until then the facts are in memory beside those that are known.
        self.master
            .decide(self.input(AgentInput::Facts(facts)))
            .await;
        drop(turn);
    }
}

/// The text of an object, without spaces; `None` when it is anything else.
fn object(text: &str) -> Option<JsonText> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.is_object().then(|| JsonText::from(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Box<v1::FactsReport> {
        Box::new(v1::FactsReport {
            node_json: text.to_owned(),
            ..v1::FactsReport::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_storm_of_facts_the_first_and_the_last_are_taken() {
        let mut pace = FactsPace::default();
        assert!(pace.now_or_later(facts("first")).is_some());
        for n in 0..1000 {
            assert!(pace.now_or_later(facts(&n.to_string())).is_none());
        }
        let begun = Instant::now();
        assert_eq!(pace.due().await.node_json, "999");
        assert!(begun.elapsed() >= FACTS_EVERY);
        let last = pace.now_or_later(facts("999")).expect("its time has come");
        assert_eq!(last.node_json, "999");
        assert!(pace.waiting.is_none());
        tokio::time::sleep(FACTS_EVERY).await;
        assert!(pace.now_or_later(facts("later")).is_some());
    }
}
