//! What a test has its agents do, beside what their masters ask for.

use tokio::sync::watch;

/// The orders so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OrdersSoFar {
    /// Who has reported something new last, and how often anybody has.
    pub(super) news: Option<(usize, u64)>,
    /// Agents of odd numbers leave cluster facts.
    pub(super) leaves_facts: bool,
    /// How often all runs were ended.
    pub(super) ends: u64,
}

/// Heard by all sessions.
#[derive(Debug, Default)]
pub(super) struct AgentOrders(watch::Sender<OrdersSoFar>);

impl AgentOrders {
    /// Takes an order as it is written; whether it is one.
    pub(super) fn take(&self, order: &str) -> bool {
        let number = order.strip_prefix("news ").map(str::parse);
        match (order, number) {
            (_, Some(Ok(number))) => self.0.send_modify(|all| {
                let before = all.news.map_or(0, |(_, count)| count);
                all.news = Some((number, before + 1));
            }),
            ("leave facts", _) => self.0.send_modify(|all| all.leaves_facts = true),
            ("take facts", _) => self.0.send_modify(|all| all.leaves_facts = false),
            ("end runs", _) => self.0.send_modify(|all| all.ends += 1),
            _ => return false,
        }
        true
    }

    pub(super) fn heard(&self) -> watch::Receiver<OrdersSoFar> {
        self.0.subscribe()
    }
}

impl OrdersSoFar {
    /// Whether the agent of this number leaves cluster facts.
    pub(super) fn leave_facts_to(&self, number: usize) -> bool {
        self.leaves_facts && number % 2 == 1
    }

    /// How often the agent of this number is to have had news, which had `before`.
    pub(super) fn news_of(&self, number: usize, before: u64) -> u64 {
        match self.news {
            Some((of, count)) if of == number => count,
            _ => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_for_whom_it_is_given() {
        let orders = AgentOrders::default();
        assert!(!orders.take("sing") && !orders.take("news x"));
        assert!(orders.take("news 3") && orders.take("leave facts"));
        let so_far = *orders.heard().borrow();
        assert_eq!((so_far.news_of(3, 0), so_far.news_of(2, 7)), (1, 7));
        assert!(so_far.leave_facts_to(3) && !so_far.leave_facts_to(2));
        assert!(orders.take("take facts") && orders.take("end runs") && orders.take("news 3"));
        let so_far = *orders.heard().borrow();
        assert_eq!((so_far.news_of(3, 1), so_far.ends), (2, 1));
        assert!(!so_far.leave_facts_to(3));
    }
}
