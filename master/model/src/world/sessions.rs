//! Sessions of agents: what one that begins brings along, what it is sent, and what its end means.

use std::collections::BTreeSet;

use aot_proto::ids::RunId;
use aot_proto::v1;

use super::answer::Answer;
use super::effect::Effect;
use super::{LOST_AFTER_MS, World};
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::outcome::{Outcome, Verdict};
use crate::run::RunState;
use crate::stage::StageState;

/// How soon the machines are listed after a session has ended: a machine may have gone with its agent, and a session that
/// was merely cut is back before.
const LISTED_AFTER_MS: u64 = 3_000;

/// Why the agent of a machine that is being ended has left, however its connection broke.
const MACHINE_ENDED: &str = "its machine was ended";

impl World {
    /// How many instances there are in all clusters: no more have a session. Costs a step for each cluster, not for each instance.
    pub fn instance_count(&self) -> usize {
        let clusters = self.clusters.values();
        clusters.map(|cluster| cluster.instances.len()).sum()
    }

    /// A session began: what the agent knows is compared with what was asked of it.
    pub(super) fn attached(&mut self, at: &InstanceKey, session: u64, hello: &v1::Hello) -> Answer {
        let now = self.now;
        // Let in, and shut out or replaced before it said hello: sessions are numbered as they come.
        let known = |instance: &Instance| {
            instance.identity.is_some() && instance.session.is_none_or(|newest| newest < session)
        };
        if !self.instance(at).is_some_and(known) {
            self.close(at, session);
            return Answer::NotItsOwn;
        }
        if self.instance(at).is_some_and(|it| brings_news(it, hello)) {
            self.dirty.instances.insert(at.clone());
        }
        let Some(instance) = self.unrecorded_mut(at) else {
            return Answer::Ack;
        };
        instance.session = Some(session);
        instance.lost_ms = None;
        if instance.note.starts_with(super::ending::CONTACT_LOST) {
            instance.note.clear();
        }
        instance.last_seen_ms = now;
        // What the last session was sent may have been lost with it.
        instance.sent_generation = 0;
        instance.facts_sent_ms = 0;
        instance.unwritten = None;
        // It may have lost its files, but can't have written what it never confirmed.
        instance.applied_generation = hello
            .cluster_facts_generation
            .min(instance.applied_generation);
        instance.agent_version.clone_from(&hello.agent_version);
        let rebooted = !instance.boot_id.is_empty() && instance.boot_id != hello.boot_id;
        instance.boot_id.clone_from(&hello.boot_id);
        self.emit(
            at,
            "agent-connected",
            if rebooted {
                "connected after a reboot"
            } else {
                "connected"
            },
        );
        self.after_reboot(at, &hello.boot_id);
        self.reconcile_runs(at, session, hello);
        self.give_queued(at);
        self.mark_due(&at.cluster);
        Answer::Ack
    }

    /// Stages that asked for a reboot: it happened, or is asked for again.
    fn after_reboot(&mut self, at: &InstanceKey, boot_id: &str) {
        let rebooting = |it: &Instance| {
            let mut stages = it.stages.iter();
            stages.any(|stage| stage.state == StageState::Rebooting)
        };
        if !self.instance(at).is_some_and(rebooting) {
            return;
        }
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        let session = instance.session;
        let mut ask_again = false;
        for stage in &mut instance.stages {
            if stage.state != StageState::Rebooting {
                continue;
            }
            if stage.reboot_from == boot_id {
                ask_again = true;
            } else {
                stage.state = StageState::Waiting;
            }
        }
        if let (true, Some(session)) = (ask_again, session) {
            self.send_reboot(at, session);
        }
    }

    pub(super) fn send_reboot(&mut self, at: &InstanceKey, session: u64) {
        let reason = "a stage ended with exit status 194".to_owned();
        self.send(
            at,
            session,
            v1::master_message::Body::Reboot(v1::Reboot { reason }),
        );
    }

    pub(super) fn send(&mut self, at: &InstanceKey, session: u64, body: v1::master_message::Body) {
        self.do_later(Effect::Send {
            at: at.clone(),
            session,
            body: Box::new(body),
        });
    }

    /// Runs that the agent has never heard of are given again, unless they were already reported as lost.
    fn reconcile_runs(&mut self, at: &InstanceKey, session: u64, hello: &v1::Hello) {
        let known: BTreeSet<RunId> = hello
            .runs
            .iter()
            .filter_map(|run| run.run_id.parse().ok())
            .collect();
        let open: Vec<_> = self.runs_of(at).map(|run| (run.id, run.state)).collect();
        for (id, state) in open {
            let known = known.contains(&id);
            if known {
                self.mark_accepted(id);
            }
            if self.cancel_again(id, session, known) {
                continue;
            }
            match (known, state) {
                (true, _) => {}
                (false, RunState::Asked) if self.was_given_up(id) => {
                    let detail = "the agent never got it before contact was lost";
                    self.end_run(id, Verdict::without_run(Outcome::Rejected, detail), None);
                }
                (false, RunState::Asked) if self.is_outdated(id) => {
                    let detail = "the agent never got it before its stage was changed";
                    self.end_run(id, Verdict::without_run(Outcome::Rejected, detail), None);
                }
                (false, RunState::Asked) => self.give(id, session),
                (false, _) => self.run_vanished(id),
            }
        }
    }

    /// The agent had it and has it no more: its disk was lost.
    fn run_vanished(&mut self, id: RunId) {
        let ended = v1::Ended {
            kind: v1::EndKind::Interrupted as i32,
            detail: "the agent no longer knows of it".to_owned(),
            ..v1::Ended::default()
        };
        self.run_ended(id, &ended);
    }

    pub(super) fn closed(&mut self, at: &InstanceKey, why: &str) -> Answer {
        let now = self.now;
        let Some(instance) = self.unrecorded_mut(at) else {
            return Answer::Ack;
        };
        let is_ended = instance.machine.is_some() && !instance.has_machine();
        instance.session = None;
        instance.lost_ms = Some(now);
        instance.last_seen_ms = now;
        self.left.push_back((now, at.clone()));
        let why = if is_ended { MACHINE_ENDED } else { why };
        self.emit(at, "agent-disconnected", format!("disconnected: {why}"));
        if let Some(poll) = self.calls.get_mut(&at.cluster) {
            poll.list_ms = poll.list_ms.min(now + LISTED_AFTER_MS);
        }
        Answer::Ack
    }

    /// Agents that have not come back for a while: when they were last seen goes on record. It does not for each session that
    /// is cut, since thousands are at once, and back a moment later.
    pub(super) fn record_left(&mut self) {
        let now = self.now;
        while let Some((since, at)) = self
            .left
            .pop_front_if(|(since, _)| now >= *since + LOST_AFTER_MS)
        {
            let stays_away = |it: &Instance| it.session.is_none() && it.lost_ms == Some(since);
            if self.instance(&at).is_some_and(stays_away) {
                self.dirty.instances.insert(at);
            }
        }
    }
}

/// Whether what an agent says of itself changes its instance's record.
fn brings_news(instance: &Instance, hello: &v1::Hello) -> bool {
    instance.note.starts_with(super::ending::CONTACT_LOST)
        || hello.cluster_facts_generation < instance.applied_generation
        || hello.agent_version != instance.agent_version
        || hello.boot_id != instance.boot_id
}
