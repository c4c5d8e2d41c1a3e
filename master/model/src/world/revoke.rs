//! Identities that are taken away: the machine is shut out for good, and its instance waits for another machine.

use aot_proto::ids::{ClusterName, InstanceName, JobId};

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::refusal::OpError;
use crate::identity::Revoked;
use crate::job::Job;
use crate::key::InstanceKey;
use crate::outcome::Outcome;
use crate::phase::Happened;

/// What the instance says of itself from then on.
const NOTE: &str = "its identity was revoked: its machine is shut out; terminate it, and launch again to replace it";

impl World {
    /// Shuts the machines of these instances out. Their facts and keys leave the cluster facts with them. Twice is as
    /// once; an instance without a machine has nothing to lose.
    pub(super) fn revoke(
        &mut self,
        name: &ClusterName,
        instances: &[InstanceName],
        operator: &str,
    ) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        let keys = instances.iter().map(|instance| InstanceKey {
            cluster: name.clone(),
            instance: instance.clone(),
        });
        let has = |at: &InstanceKey| self.instance(at).is_some_and(|it| it.machine.is_some());
        let keys: Vec<InstanceKey> = keys.filter(has).collect();
        if keys.is_empty() {
            return Answer::Error(OpError::Conflict(
                "none of these instances has a machine: no identity to revoke".to_owned(),
            ));
        }
        for at in &keys {
            self.shut_out(at, operator);
        }
        self.stale_facts(name);
        self.mark_due(name);
        Answer::Ack
    }

    fn shut_out(&mut self, at: &InstanceKey, operator: &str) {
        let now = self.now;
        let Some(instance) = self.instance_mut(at).filter(|it| !it.is_revoked()) else {
            return;
        };
        let Some(machine) = instance.machine_id().cloned() else {
            return;
        };
        let identity = instance.identity.take();
        let (serial, expires_unix) = identity.map_or_else(Default::default, |identity| {
            (identity.serial, identity.expires_unix)
        });
        instance.revoked = Some(Revoked {
            machine,
            serial,
            expires_unix,
            revoked_ms: now,
            operator: operator.to_owned(),
        });
        instance.facts = None;
        instance.lost_ms = Some(now);
        instance.note = NOTE.to_owned();
        instance.happen(Happened::Revoked);
        let session = instance.session.take();
        if let Some(session) = session {
            instance.last_seen_ms = now;
            self.close(at, session);
        }
        self.do_later(Effect::ShutOut { at: at.clone() });
        for id in self.open_shells(at) {
            self.end_shell(id, Outcome::LostContact, "its identity was revoked");
        }
        self.emit(at, "agent-revoked", NOTE);
    }

    /// Terminals and forwards that are open there: each has a stream of its own, which outlives the session.
    fn open_shells(&self, at: &InstanceKey) -> Vec<JobId> {
        let open = |job: &&Job| {
            job.kind.is_served()
                && job.cluster == at.cluster
                && job.targets.get(&at.instance) == Some(&None)
        };
        self.jobs.values().filter(open).map(|job| job.id).collect()
    }

    /// Ends a session of a machine that is not let in.
    pub(super) fn close(&mut self, at: &InstanceKey, session: u64) {
        self.do_later(Effect::Close {
            at: at.clone(),
            session,
        });
    }
}
