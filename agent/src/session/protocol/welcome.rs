//! The master's answer to Hello: what it says for the whole session, and how output that the agent still has continues.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, MAX_RECONNECT_SPREAD, MIN_RECONNECT_SPREAD, SILENCE};
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{SpoolData, Welcome};
use aot_proto::version::ProtocolRange;

use super::{Closed, Protocol, SessionOutput, goodbye};

impl Protocol {
    /// Whether the master has answered Hello.
    pub(crate) fn is_welcome(&self) -> bool {
        self.agreed.is_some()
    }

    /// When the session breaks, the first wait is a random part of this; `None` when the master has not answered Hello.
    pub(crate) fn spread(&self) -> Option<Duration> {
        let named = Duration::from_millis(self.welcome.as_ref()?.reconnect_spread_ms);
        Some(named.clamp(MIN_RECONNECT_SPREAD, MAX_RECONNECT_SPREAD))
    }

    pub(super) fn welcomed(&mut self, welcome: Welcome, now: Instant) -> Vec<SessionOutput> {
        if self.is_welcome() {
            return Vec::new();
        }
        match ProtocolRange::OURS.picked(&welcome) {
            Ok(agreed) => self.agreed = Some(agreed),
            Err(error) => {
                let why = error.to_string();
                return vec![goodbye(&why), SessionOutput::Close(Closed::Broken(why))];
            }
        }
        let or = |ms: u64, default: Duration| {
            if ms == 0 {
                default
            } else {
                Duration::from_millis(ms)
            }
        };
        self.heartbeat = or(welcome.heartbeat_ms, HEARTBEAT);
        self.silence = or(welcome.silence_ms, SILENCE).max(self.heartbeat * 2);
        self.beat_at = now + self.heartbeat;
        let mut out = Vec::new();
        if !welcome.masters.is_empty() {
            out.push(SessionOutput::LearnMasters(welcome.masters.clone()));
        }
        if !welcome.hostname.is_empty() {
            out.push(SessionOutput::NameHost(welcome.hostname.clone()));
        }
        out.push(SessionOutput::CollectFacts(welcome.main_user.clone()));
        let acks: BTreeMap<&str, u64> = welcome
            .acks
            .iter()
            .map(|ack| (ack.run_id.as_str(), ack.bytes))
            .collect();
        for state in std::mem::take(&mut self.hello_runs) {
            let Ok(run) = state.run_id.parse::<RunId>() else {
                continue;
            };
            let acked = acks.get(state.run_id.as_str()).copied().unwrap_or(0);
            self.spools.resume(run, state.spool_bytes, acked);
            if state.ended && acked >= state.spool_bytes && state.spool_bytes > 0 {
                // It has every byte; that these are the last ones may have got lost with the old session.
                let last = SpoolData {
                    run_id: state.run_id,
                    offset: acked,
                    end: true,
                    ..SpoolData::default()
                };
                out.push(SessionOutput::Send(Up::Spool(last)));
            }
        }
        self.welcome = Some(welcome);
        out
    }
}
