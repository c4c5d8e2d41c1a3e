//! A session's first report: the agent is welcomed with how far its output is stored, lets go of runs that have ended on
//! record, and the loop learns that the instance has a session, and who holds it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aot_model::hash::digest_prefix;
use aot_model::identity::PeerProcess;
use aot_model::world::{AgentInput, SessionHolder};
use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, MAX_RECONNECT_SPREAD, MIN_RECONNECT_SPREAD, SILENCE};
use aot_proto::v1::{self, master_message};

use super::{Greeting, Master, Reports};
use crate::session::registry::COMMANDS;

/// Most runs that an agent may drop when it comes: half of what may wait for its session.
const FORGOTTEN: usize = COMMANDS / 2;

/// Agents that may come back in one second: a master lets in about a thousand with one processor.
const RECONNECTS_PER_SECOND: u64 = 1000;

/// Over how many milliseconds this many agents are to spread when they lose their master.
fn reconnect_spread_ms(agents: usize) -> u64 {
    let agents = u64::try_from(agents).unwrap_or(u64::MAX);
    let spread = Duration::from_millis(agents.saturating_mul(1000) / RECONNECTS_PER_SECOND);
    let spread = spread.clamp(MIN_RECONNECT_SPREAD, MAX_RECONNECT_SPREAD);
    u64::try_from(spread.as_millis()).unwrap_or(u64::MAX)
}

/// Where a session comes from.
pub(crate) struct Origin {
    address: IpAddr,
    /// Serial of its certificate; from its renewal on, that of the next one.
    serial: Mutex<String>,
    /// How long ago the session was heard that it took the place of.
    replaced: Option<Duration>,
}

impl Origin {
    /// The address that it dials from, its certificate's serial, and how long the session that it replaces was silent.
    pub(crate) fn new(address: IpAddr, serial: String, replaced: Option<Duration>) -> Self {
        Self {
            address,
            serial: Mutex::new(serial),
            replaced,
        }
    }

    pub(super) fn serial(&self) -> String {
        let serial = self.serial.lock();
        serial.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn renewed(&self, next: &String) {
        let serial = self.serial.lock();
        serial
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(next);
    }

    fn holder(&self, hello: &v1::Hello) -> SessionHolder {
        let serial = self.serial();
        let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        SessionHolder {
            peer: PeerProcess {
                address: self.address,
                certificate: digest_prefix(&serial),
                boot: digest_prefix(&hello.boot_id),
                process: process(hello),
            },
            serial,
            replaced_ms: self.replaced.map(ms),
        }
    }
}

/// Which process says hello. Agents that draw no random id for it say at least when they were started.
fn process(hello: &v1::Hello) -> Option<u64> {
    let (id, started) = (&hello.process_id, hello.agent_started_unix_ms);
    match (id.is_empty(), started) {
        (false, _) => Some(digest_prefix(id)),
        (true, 0) => None,
        (true, _) => Some(digest_prefix(&format!("{} {started}", hello.boot_id))),
    }
}

/// By how much a clock is ahead of this host's; `None` where it was not said.
fn clock_ahead_ms(theirs: u64, ours: u64) -> Option<i64> {
    let ahead = i128::from(theirs) - i128::from(ours);
    (theirs > 0).then(|| i64::try_from(ahead).unwrap_or(i64::MAX))
}

impl<M: Master> Reports<M> {
    pub(super) async fn hello(&mut self, hello: Box<v1::Hello>, protocol: u32) {
        let Greeting {
            main_user,
            hostname,
            open,
            instances,
        } = self.master.greeting(&self.at);
        let named = hello.runs.iter().filter_map(|run| run.run_id.parse().ok());
        // Sorted, and each once: what an agent names is compared with its own open runs alone.
        let named: BTreeSet<RunId> = named.collect();
        let acks = named.intersection(&open).map(|run| v1::SpoolAck {
            run_id: run.to_string(),
            bytes: self.master.spools().have(*run),
            resend: false,
        });
        self.send(master_message::Body::Welcome(v1::Welcome {
            session: self.session,
            cluster: self.at.cluster.to_string(),
            instance: self.at.instance.to_string(),
            main_user: main_user.unwrap_or_default(),
            hostname,
            heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            silence_ms: u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX),
            acks: acks.collect(),
            protocol,
            masters: self.master.addresses(),
            epoch: self.master.epoch(&self.at.cluster),
            // The first to come after a restart are told of those that are still to come.
            reconnect_spread_ms: reconnect_spread_ms(self.master.registry().len().max(instances)),
        }));
        self.master
            .registry()
            .agreed(&self.at, self.session, protocol);
        if let Some(ahead_ms) = clock_ahead_ms(hello.unix_ms, aot_host::clock::unix_ms()) {
            let registry = self.master.registry();
            registry.note_clock(&self.at, self.session, ahead_ms);
        }
        let holder = Box::new(self.origin.holder(&hello));
        // Waited for: what comes next counts only once this is the instance's session.
        let is_recorded = self
            .master
            .decide(self.input(AgentInput::Attached(hello)))
            .await;
        // The ends of runs that had ended by then are on record with that. More of them are forgotten when their output comes
        // again.
        for run in named.difference(&open).take(FORGOTTEN) {
            if is_recorded {
                self.forget(*run);
            }
        }
        self.submit(AgentInput::HeldBy(holder)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_where_it_is_said() {
        assert_eq!(clock_ahead_ms(0, 1_000), None);
        assert_eq!(clock_ahead_ms(900, 1_000), Some(-100));
        assert_eq!(clock_ahead_ms(61_000, 1_000), Some(60_000));
        assert_eq!(clock_ahead_ms(u64::MAX, 0), Some(i64::MAX));
    }

    #[test]
    fn agents_spread_over_a_second_per_thousand_within_bounds() {
        for (agents, wanted) in [
            (0, 200),
            (1, 200),
            (200, 200),
            (1_000, 1_000),
            (10_000, 10_000),
            (15_000, 15_000),
            (100_000, 15_000),
            (usize::MAX, 15_000),
        ] {
            assert_eq!(reconnect_spread_ms(agents), wanted, "{agents}");
        }
    }
}
