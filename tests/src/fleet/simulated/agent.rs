//! The life of one simulated agent: session after session, with the waits of a real one between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_agent::inside::masters::DialOrder;
use aot_agent::inside::reconnect::{Backoff, EndedSession, Reconnect, unit};
use aot_agent::inside::session::Closed;
use aot_proto::facts::Content;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use tokio::sync::watch;

use super::Shared;
use super::dial::{self, Connection, DialError, Identities};
use super::orders::OrdersSoFar;
use super::runs::Runs;
use crate::bench::agents::own_address;

/// One of them.
pub(super) struct Agent {
    pub(super) shared: Arc<Shared>,
    /// Its place on the board.
    pub(super) at: usize,
    /// Its number among all agents of the fleet.
    pub(super) number: usize,
    pub(super) order: DialOrder,
    /// Highest that a master of its cluster had.
    pub(super) epoch: i64,
    pub(super) runs: Runs,
    pub(super) orders: watch::Receiver<OrdersSoFar>,
    /// How often it has had news of its machine.
    pub(super) news: u64,
    /// Those that it keeps.
    pub(super) cluster_facts: Content,
    /// As a real agent draws it at its start.
    pub(super) process_id: String,
    way: dial::Way,
    reconnect: Reconnect,
}

impl Agent {
    /// The agent in this place of the plan.
    pub(super) fn new(shared: Arc<Shared>, identities: &Identities, at: usize) -> Self {
        let (cluster, number) = shared.plan.place(at);
        let (instance, number) = (format!("n{}", number - cluster.agents.start + 1), number);
        let name: ClusterName = cluster.name.parse().expect("a name");
        let way = dial::Way {
            route: Route::of(&name),
            config: identities.config(number),
            from: own_address(number),
        };
        let machine = format!("i-{number:017x}");
        let order = DialOrder::new(&machine, shared.plan.addresses.clone(), Vec::new());
        Self {
            at,
            number,
            order,
            epoch: 0,
            runs: Runs::new(instance),
            orders: shared.orders.heard(),
            news: 0,
            cluster_facts: Content::default(),
            process_id: format!("{number:032x}"),
            way,
            reconnect: Reconnect::new(Backoff::new(
                Duration::from_millis(200),
                Duration::from_secs(30),
            )),
            shared,
        }
    }

    /// As the real one's service has it.
    pub(super) async fn live(mut self) {
        loop {
            let shared = self.shared.clone();
            let first = match shared.board.has_been_attached(self.at) {
                true => None,
                false => shared.first.acquire().await.ok(),
            };
            let wait = match self.dial().await {
                Err(_) => {
                    drop(first);
                    self.reconnect.after_failure(unit)
                }
                Ok(connection) => {
                    let address = connection.address.clone();
                    let began = Instant::now();
                    let (why, spread) = self.attend(connection, first).await;
                    match spread {
                        Some(_) => self.reconnect.welcomed(),
                        None => self.order.failed(&address),
                    }
                    self.after(&why, spread, began.elapsed())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn after(&mut self, why: &Closed, spread: Option<Duration>, lasted: Duration) -> Duration {
        if let Closed::Refused(why) = why {
            // A real one would enrol again.
            self.shared.board.refused(self.at, why);
            return self.reconnect.after_failure(unit);
        }
        let ended = EndedSession {
            why,
            spread,
            lasted,
        };
        self.reconnect.after_session(&ended, unit)
    }

    /// After a session that was cut its own master alone, else all in turn.
    async fn dial(&mut self) -> Result<Connection, DialError> {
        let to_the_same = self.reconnect.is_to_the_same();
        let mut round = self.order.round();
        if to_the_same {
            round.truncate(1);
        }
        let mut last = DialError::NoMaster;
        for address in round {
            match self.way.connect(&address).await {
                Ok(connection) => {
                    self.order.reached(&address);
                    return Ok(connection);
                }
                Err(error) => {
                    if !to_the_same || matches!(error, DialError::Timeout) {
                        self.order.failed(&address);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }
}
