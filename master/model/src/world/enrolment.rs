//! Who may join: join tokens and how long they live, enrolment, and what a machine reports while it boots.

use aot_proto::ids::{ClusterName, MachineId};

use super::World;
use super::answer::{Answer, Granted};
use super::asks::EnrolAsk;
use super::refusal::Refused;
use crate::attestation::Proof;
use crate::batch::{Batch, BatchState};
use crate::identity::Identity;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::phase::{Happened, Phase};
use crate::spec::MemberSpec;

/// How long after its launch a batch's token lives on: slow boots and machines that were adopted late.
const TOKEN_GRACE_MS: u64 = 10 * 60 * 1000;

/// What a boot script calls a machine whose metadata service does not answer.
const NAMELESS: &str = "unknown";

impl World {
    /// Decides whether a machine may have a certificate: the token must be bound to it and unused, or used with the
    /// same key (a lost reply, or a certificate that expired while the machine was off).
    pub(super) fn enrol(&mut self, ask: EnrolAsk) -> Answer {
        let at = match self.may_enrol(&ask) {
            Ok(at) => at,
            Err(refused) => return Answer::Refused(refused),
        };
        let proof = match self.prove(&at, &ask) {
            Ok(proof) => proof,
            Err(answer) => return *answer,
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
                previous_serial: String::new(),
                issued_ms: 0,
                used_twice: None,
                proof,
            });
            instance.happen(Happened::Enrolled);
            instance.note.clear();
            let text = match proof {
                Proof::Token => "enrolled".to_owned(),
                proof => format!("enrolled, proven by {}", proof.describe()),
            };
            self.emit(&at, "instance-enrolled", text);
        }
        Answer::Granted(Granted {
            at,
            pool,
            machine: ask.machine,
        })
    }

    pub(super) fn may_enrol(&self, ask: &EnrolAsk) -> Result<InstanceKey, Refused> {
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
        let at = InstanceKey {
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

    /// Whether any batch has this token, also one whose time is over.
    pub fn token_is_known(&self, token_sha256: &str) -> bool {
        self.batch_by_token(token_sha256).is_some()
    }

    /// Whether this token still brings the agent to a machine: until its time is over, or all machines that it was made for
    /// have joined.
    pub fn token_brings_agent(&self, token_sha256: &str) -> bool {
        let Some((cluster, batch)) = self.batch_by_token(token_sha256) else {
            return false;
        };
        let is_to_join = |member: &MemberSpec| {
            let instance = self.clusters.get(&cluster)?.instances.get(&member.name)?;
            let its = instance.batch.as_deref() == Some(batch.token.0.as_str());
            let joins = instance.identity.is_none() && !instance.is_revoked();
            Some(its && joins && !instance.terminating)
        };
        let joined = batch.state == BatchState::Launched
            && !batch.members.iter().any(|it| is_to_join(it) == Some(true));
        !joined && self.token_lives(&cluster, batch)
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
        if machine.as_str() == NAMELESS {
            // It can be no instance's machine; that one of this pool is in trouble is of use all the same.
            let text = format!(
                "a machine of {} that does not know its id: {step}: {detail}",
                batch.pool
            );
            if !self.token_lives(&cluster, batch) {
                return Answer::Refused(Refused::Expired);
            }
            self.emit_cluster(&cluster, "boot-failed", text);
            return Answer::Ack;
        }
        let found = self.by_machine(&cluster, machine);
        let Some(instance) = found.filter(|i| i.batch.as_deref() == Some(&batch.token.0)) else {
            return Answer::Refused(Refused::OtherMachine(machine.clone()));
        };
        if let Some(refused) = self.may_not_report(instance, &cluster, batch, machine) {
            return Answer::Refused(refused);
        }
        let at = InstanceKey {
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
        self.emit(&at, kind, text);
        Answer::Ack
    }

    /// Why a boot report is not taken. Everybody on any machine of the batch can read its token: once a machine has an agent,
    /// that alone speaks for it.
    fn may_not_report(
        &self,
        instance: &Instance,
        cluster: &ClusterName,
        batch: &Batch,
        machine: &MachineId,
    ) -> Option<Refused> {
        let boots = matches!(
            instance.phase,
            Phase::Requested | Phase::Booting | Phase::Failed
        );
        if instance.is_revoked() {
            Some(Refused::Revoked(machine.clone()))
        } else if instance.identity.is_some() || !boots {
            Some(Refused::Joined(machine.clone()))
        } else if !instance.has_machine() {
            Some(Refused::Ending(machine.clone()))
        } else if !self.token_lives(cluster, batch) {
            Some(Refused::Expired)
        } else {
            None
        }
    }
}
