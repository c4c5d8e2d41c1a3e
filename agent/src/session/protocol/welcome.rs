//! The master's answer to Hello: what it says for the whole session, and how output that the agent still has continues.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, MAX_RECONNECT_SPREAD, MIN_RECONNECT_SPREAD, SILENCE};
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{SpoolData, Welcome};
use aot_proto::version::ProtocolRange;

use super::{Closed, Protocol, SessionOutput, goodbye};

impl Protocol {
    /// Whether the master has answered Hello.
    pub(crate) fn is_welcome(&self) -> bool {
        self.agreed.is_some()
    }

    /// When the session breaks, the first wait is a random part of this; `None` when the master has not answered Hello.
    pub fn spread(&self) -> Option<Duration> {
        let named = Duration::from_millis(self.welcome.as_ref()?.reconnect_spread_ms);
        Some(named.clamp(MIN_RECONNECT_SPREAD, MAX_RECONNECT_SPREAD))
    }

    /// Whether a master that welcomes like this has the cluster, as far as is known here. One that was paused, and lost it
    /// meanwhile, may not know that yet: its epoch is lower than that of the next one.
    pub fn believes(&self, welcome: &Welcome) -> bool {
        welcome.epoch >= self.epoch
    }

    /// What a master asks before it has said its epoch: whether that may be done is not known. `None` where no master named one,
    /// and of what changes nothing here.
    pub(super) fn speaks_too_soon(&self, body: &Down) -> Option<String> {
        let is_harmless = matches!(
            body,
            Down::Welcome(_) | Down::Heartbeat(_) | Down::GoingAway(_)
        );
        let is_too_soon = self.epoch > 0 && !self.is_welcome() && !is_harmless;
        is_too_soon.then(|| "the master asked for something before its welcome".to_owned())
    }

    /// Ends the session; nothing of it is obeyed any more.
    pub(super) fn leave(&mut self, why: String) -> Vec<SessionOutput> {
        self.is_left = true;
        vec![goodbye(&why), SessionOutput::Close(Closed::Broken(why))]
    }

    pub(super) fn welcomed(&mut self, welcome: Welcome, now: Instant) -> Vec<SessionOutput> {
        if self.is_welcome() {
            return Vec::new();
        }
        if !self.believes(&welcome) {
            let (its, known) = (welcome.epoch, self.epoch);
            return self.leave(format!(
                "another master has had the cluster since: this one's epoch is {its}, and {known} is known"
            ));
        }
        match ProtocolRange::OURS.picked(&welcome) {
            Ok(agreed) => self.agreed = Some(agreed),
            Err(error) => return self.leave(error.to_string()),
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
        if welcome.epoch > self.epoch {
            self.epoch = welcome.epoch;
            out.push(SessionOutput::LearnEpoch(welcome.epoch));
        }
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
