//! Enrolment, boot steps, sessions.

use std::collections::BTreeMap;

use aot_proto::ids::{ClusterName, MachineId, RunId};
use aot_proto::v1;

use super::input::{Answer, Effect, EnrolAsk, Granted, Refused};
use super::{LOST_AFTER_MS, World};
use crate::model::cluster::{Batch, BatchState, Identity, Instance, Key, StageState};
use crate::model::job::{Outcome, RunState, Verdict};
use crate::model::phase::{Happened, Phase};

/// How long after its launch a batch's token lives on: slow boots and machines that were adopted late.
const TOKEN_GRACE_MS: u64 = 10 * 60 * 1000;

impl World {
    /// Decides whether a machine may have a certificate: the token must be bound to it and unused, or used with the
    /// same key (a lost reply, or a certificate that expired while the machine was off).
    pub(super) fn enrol(&mut self, ask: EnrolAsk) -> Answer {
        let at = match self.may_enrol(&ask) {
            Ok(at) => at,
            Err(refused) => return Answer::Refused(refused),
        };
        let now = self.now;
        let instance = self.instance_mut(&at).expect("may_enrol found it");
        let pool = instance
            .pool
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        if instance.identity.is_none() {
            instance.identity = Some(Identity {
                key_sha256: ask.key_sha256,
                previous_key_sha256: String::new(),
                enrolled_ms: now,
                serial: String::new(),
                expires_unix: 0,
                document: ask.document,
                signature: ask.signature,
            });
            instance.happen(Happened::Enrolled);
            instance.note.clear();
            self.tell(&at, "instance-enrolled", "enrolled");
        }
        Answer::Granted(Granted {
            at,
            pool,
            machine: ask.machine,
        })
    }

    fn may_enrol(&self, ask: &EnrolAsk) -> Result<Key, Refused> {
        let (cluster, batch) = self
            .batch_by_token(&ask.token_sha256)
            .ok_or(Refused::UnknownToken)?;
        let found = self.by_machine(&cluster, &ask.machine);
        let Some(instance) = found else {
            return Err(match batch.state {
                BatchState::Requested => Refused::TooEarly,
                _ => Refused::OtherMachine(ask.machine.clone()),
            });
        };
        if instance.is_revoked() {
            return Err(Refused::Revoked(ask.machine.clone()));
        }
        if instance.batch.as_deref() != Some(&batch.token.0) {
            return Err(Refused::OtherMachine(ask.machine.clone()));
        }
        if !instance.has_machine() {
            return Err(Refused::Ending(ask.machine.clone()));
        }
        let at = Key {
            cluster: cluster.clone(),
            instance: instance.name.clone(),
        };
        match &instance.identity {
            Some(identity) if identity.holds(&ask.key_sha256) => Ok(at),
            Some(_) => Err(Refused::Used(ask.machine.clone())),
            None if !self.token_lives(&cluster, batch) => Err(Refused::Expired),
            None => Ok(at),
        }
    }

    fn batch_by_token(&self, token_sha256: &str) -> Option<(ClusterName, &Batch)> {
        self.clusters.iter().find_map(|(name, cluster)| {
            let batch = cluster
                .batches
                .values()
                .find(|batch| batch.join_sha256 == token_sha256)?;
            Some((name.clone(), batch))
        })
    }

    /// Whether someone with this token may talk to the boot endpoints at all.
    pub fn token_is_known(&self, token_sha256: &str) -> bool {
        self.batch_by_token(token_sha256).is_some()
    }

    fn token_lives(&self, cluster: &ClusterName, batch: &Batch) -> bool {
        if matches!(batch.state, BatchState::Failed(_)) {
            return false;
        }
        let launch = self.clusters.get(cluster).and_then(|c| c.launch.as_ref());
        launch.is_none_or(|launch| {
            self.now <= launch.deadline_ms.max(launch.ended_ms.unwrap_or(0)) + TOKEN_GRACE_MS
        })
    }

    pub(super) fn issued(
        &mut self,
        at: &Key,
        key_sha256: String,
        serial: String,
        expires_unix: u64,
    ) -> Answer {
        if let Some(identity) = self
            .instance_mut(at)
            .and_then(|instance| instance.identity.as_mut())
        {
            if identity.key_sha256 != key_sha256 {
                identity.previous_key_sha256 =
                    std::mem::replace(&mut identity.key_sha256, key_sha256);
            }
            identity.serial = serial;
            identity.expires_unix = expires_unix;
        }
        Answer::None
    }

    /// A step of a machine's boot script: how far a machine is that has no agent yet.
    pub(super) fn boot_step(
        &mut self,
        token: &str,
        machine: &MachineId,
        step: &str,
        detail: &str,
    ) -> Answer {
        let Some((cluster, batch)) = self.batch_by_token(token) else {
            return Answer::Refused(Refused::UnknownToken);
        };
        let batch_token = batch.token.0.clone();
        let found = self.by_machine(&cluster, machine);
        let Some(instance) = found.filter(|i| i.batch.as_deref() == Some(&batch_token)) else {
            return Answer::Refused(Refused::OtherMachine(machine.clone()));
        };
        let at = Key {
            cluster,
            instance: instance.name.clone(),
        };
        let text = if detail.is_empty() {
            step.to_owned()
        } else {
            format!("{step}: {detail}")
        };
        let instance = self.instance_mut(&at).expect("found above");
        instance.boot_step.clone_from(&text);
        if instance.phase == Phase::Booting {
            instance.note = format!("boot: {text}");
        }
        let kind = if step == "failed" {
            "boot-failed"
        } else {
            "boot-step"
        };
        self.tell(&at, kind, text);
        Answer::None
    }

    /// A session began: what the agent knows is compared with what was asked of it.
    pub(super) fn attached(&mut self, at: &Key, session: u64, hello: &v1::Hello) -> Answer {
        let now = self.now;
        let known = |instance: &Instance| instance.identity.is_some();
        if !self.instance(at).is_some_and(known) {
            // Let in, and shut out before it said hello.
            self.close(at, session);
            return Answer::None;
        }
        let Some(instance) = self.instance_mut(at) else {
            return Answer::None;
        };
        instance.session = Some(session);
        instance.lost_ms = None;
        instance.last_seen_ms = now;
        instance.sent_generation = 0;
        instance.applied_generation = hello
            .cluster_facts_generation
            .min(instance.applied_generation);
        instance.agent_version.clone_from(&hello.agent_version);
        let rebooted = !instance.boot_id.is_empty() && instance.boot_id != hello.boot_id;
        instance.boot_id.clone_from(&hello.boot_id);
        self.tell(
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
        self.give_queued(&at.cluster);
        self.mark_due(&at.cluster);
        Answer::None
    }

    /// Stages that asked for a reboot: it happened, or is asked for again.
    fn after_reboot(&mut self, at: &Key, boot_id: &str) {
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

    pub(super) fn send_reboot(&mut self, at: &Key, session: u64) {
        let reason = "a stage ended with exit status 194".to_owned();
        self.send(
            at,
            session,
            v1::master_message::Body::Reboot(v1::Reboot { reason }),
        );
    }

    pub(super) fn send(&mut self, at: &Key, session: u64, body: v1::master_message::Body) {
        self.do_later(Effect::Send {
            at: at.clone(),
            session,
            body: Box::new(body),
        });
    }

    /// Runs that the agent has never heard of are given again, unless they were already reported as lost.
    fn reconcile_runs(&mut self, at: &Key, session: u64, hello: &v1::Hello) {
        let known: BTreeMap<RunId, ()> = hello
            .runs
            .iter()
            .filter_map(|run| Some((run.run_id.parse().ok()?, ())))
            .collect();
        let open: Vec<_> = self.runs_of(at).map(|run| (run.id, run.state)).collect();
        for (id, state) in open {
            let known = known.contains_key(&id);
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

    pub(super) fn closed(&mut self, at: &Key, session: u64, why: &str) -> Answer {
        let now = self.now;
        let Some(instance) = self.instance_mut(at) else {
            return Answer::None;
        };
        if instance.session != Some(session) {
            return Answer::None; // a newer one has taken its place
        }
        instance.session = None;
        instance.lost_ms = Some(now);
        instance.last_seen_ms = now;
        self.tell(at, "agent-disconnected", format!("disconnected: {why}"));
        if let Some(poll) = self.polls.get_mut(&at.cluster) {
            poll.next_ms = poll.next_ms.min(now + LOST_AFTER_MS / 10); // its machine may be gone
        }
        Answer::None
    }
}
