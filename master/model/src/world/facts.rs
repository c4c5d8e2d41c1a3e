//! The barrier: facts come up, generations of cluster facts go down, acknowledgements come back.

use aot_proto::facts::pieces;
use aot_proto::ids::ClusterName;
use aot_proto::plural;
use aot_proto::v1;

use super::World;
use super::answer::Answer;
use crate::cluster::Cluster;
use crate::facts::{self, ClusterFacts, counts};
use crate::instance::{Instance, NodeFacts, Unwritten};
use crate::key::InstanceKey;
use crate::phase::{Happened, Phase};
use crate::unix_ms::UnixMs;

/// Generations that a cluster may make at once, as its instances come.
const RENEWALS: u32 = 3;

/// After those, one per this time.
const RENEWAL_MS: UnixMs = 3_000;

/// How long an instance that was sent cluster facts may take to write them before others do not wait for it any more.
const PATIENCE_MS: UnixMs = 60_000;

impl World {
    pub(super) fn facts_reported(&mut self, at: &InstanceKey, facts: NodeFacts) -> Answer {
        let now = self.now;
        // Facts have a record of their own.
        let Some(instance) = self.unrecorded_mut(at) else {
            return Answer::Ack;
        };
        instance.last_seen_ms = now;
        if instance.facts.as_deref() != Some(&facts) {
            let is_new = instance.facts.replace(facts.into()).is_none();
            self.dirty.facts.insert(at.clone());
            let members = self.stale.entry(at.cluster.clone()).or_default();
            *members |= is_new;
            self.emit(at, "facts-reported", "facts reported");
        }
        self.mark_due(&at.cluster);
        Answer::Ack
    }

    pub(super) fn facts_applied(
        &mut self,
        at: &InstanceKey,
        generation: u64,
        error: &str,
    ) -> Answer {
        let sent = self.instance(at).map_or(0, |i| i.sent_generation);
        if generation == 0 || generation > sent {
            return Answer::NotItsOwn; // it was not given these: a later one would never be sent
        }
        let now = self.now;
        let has = |i: &Instance| i.applied_generation == generation && i.phase != Phase::Enrolled;
        if error.is_empty() && self.instance(at).is_some_and(has) {
            return Answer::Ack; // said once more
        }
        let Some(instance) = self.instance_mut(at) else {
            return Answer::Ack;
        };
        instance.facts_sent_ms = 0;
        if error.is_empty() {
            instance.unwritten = None;
            instance.applied_generation = generation;
            instance.happen(Happened::FactsApplied);
            if instance.phase == Phase::Configured {
                instance.note.clear();
            }
            self.emit(
                at,
                "cluster-facts-applied",
                format!("has cluster facts of generation {generation}"),
            );
        } else {
            instance.note = could_not(error);
            instance.sent_generation = 0;
            let before = instance.unwritten.take();
            let failures = before.as_ref().map_or(0, |before| before.failures);
            instance.unwritten = Some(Box::new(Unwritten {
                generation,
                failures: failures.saturating_add(1),
                next_ms: now + again_ms(failures),
                error: error.to_owned(),
            }));
            if before.is_none() {
                self.emit(at, "notice", could_not(error));
            }
        }
        self.mark_due(&at.cluster);
        Answer::Ack
    }

    /// A new generation, when the content changed and enough instances have reported.
    pub(super) fn renew_facts(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        if !self.stale.contains_key(name) || !barrier_met(cluster) {
            return;
        }
        let now = self.now;
        let renewals = &mut self.calls(name).renewals;
        if !renewals.has_one(now) {
            return; // soon: time alone brings it back here
        }
        self.stale.remove(name);
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let now_facts = facts::of(cluster);
        if now_facts.content_sha256 == cluster.facts_sha256 || now_facts.peers.is_empty() {
            return;
        }
        self.calls(name).renewals.left -= 1;
        let cluster = self.cluster_mut(name).expect("found above");
        cluster.generation += 1;
        cluster.facts_sha256 = now_facts.content_sha256;
        let generation = cluster.generation;
        let text = format!(
            "cluster facts, generation {generation}: {}",
            plural::count(now_facts.peers.len(), "instance")
        );
        self.emit_cluster(name, "cluster-facts-renewed", text);
    }

    /// Gives the newest generation to every session that has not been sent it.
    pub(super) fn hand_out_facts(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let (now, generation) = (self.now, cluster.generation);
        let behind: Vec<(InstanceKey, u64)> = cluster
            .instances
            .values()
            .filter(|i| {
                i.sent_generation < generation
                    && i.applied_generation < generation
                    && counts(i)
                    && may_try(i, generation, now)
            })
            .filter_map(|i| {
                Some((
                    InstanceKey {
                        cluster: name.clone(),
                        instance: i.name.clone(),
                    },
                    i.session?,
                ))
            })
            .collect();
        if behind.is_empty() {
            return;
        }
        // Packed once: all sessions share the pieces.
        let pieces = pieces(&to_wire(generation, facts::of(cluster)));
        for (at, session) in behind {
            for piece in &pieces {
                let body = v1::master_message::Body::ClusterFacts(piece.clone());
                self.send(&at, session, body);
            }
            let instance = self.unrecorded_mut(&at).expect("listed above");
            instance.sent_generation = generation;
            instance.facts_sent_ms = now;
        }
    }

    /// Whether every instance that is there has the newest cluster facts: only then may a stage 0 start. One that says that
    /// it cannot write them, or does not answer, is not waited for: it starts no stage 0 itself, see [`has_newest`].
    pub(super) fn barrier_open(&self, cluster: &Cluster) -> bool {
        let members_change = self.stale.get(&cluster.spec.name).copied();
        cluster.generation > 0
            && !members_change.unwrap_or(false)
            && cluster
                .instances
                .values()
                .filter(|i| counts(i) && i.may_be_up() && !self.is_lost(i))
                .all(|i| has_newest(cluster, i) || hinders(i, self.now))
    }

    /// When a launch's time is up: instances that get no further since they do not write cluster facts.
    pub(super) fn fail_unwritten(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let launch = cluster.launch.as_ref().filter(|_| cluster.launching());
        if launch.is_none_or(|launch| now < launch.deadline_ms) {
            return;
        }
        let waits = |i: &&Instance| match i.phase {
            Phase::Enrolled => true,
            Phase::Configured => i.next_stage() == Some(0),
            _ => false,
        };
        let stuck = cluster.wanted().filter(waits);
        let stuck = stuck.filter(|i| !has_newest(cluster, i) && hinders(i, now));
        let stuck: Vec<(InstanceKey, String)> = stuck
            .map(|i| {
                let why = i.unwritten.as_ref().map(|it| could_not(&it.error));
                let why = why.unwrap_or_else(|| "did not acknowledge cluster facts".to_owned());
                let (cluster, instance) = (name.clone(), i.name.clone());
                (InstanceKey { cluster, instance }, why)
            })
            .collect();
        for (at, why) in stuck {
            if let Some(instance) = self.instance_mut(&at)
                && instance.happen(Happened::FactsFailed)
            {
                instance.note.clone_from(&why);
                self.emit(&at, "instance-failed", why);
                self.mark_due(&at.cluster);
            }
        }
    }
}

/// Whether it has the newest cluster facts.
pub(super) fn has_newest(cluster: &Cluster, instance: &Instance) -> bool {
    instance.applied_generation == cluster.generation
}

/// It said that it cannot write cluster facts, or has not answered for too long.
fn hinders(instance: &Instance, now: UnixMs) -> bool {
    let sent = instance.facts_sent_ms;
    instance.unwritten.is_some() || (sent > 0 && now.saturating_sub(sent) >= PATIENCE_MS)
}

/// Whether it may be sent this generation now, after those that it could not write.
fn may_try(instance: &Instance, generation: u64, now: UnixMs) -> bool {
    let unwritten = instance.unwritten.as_ref();
    unwritten.is_none_or(|it| it.generation < generation || now >= it.next_ms)
}

fn could_not(error: &str) -> String {
    format!("could not write cluster facts: {error}")
}

/// Milliseconds until cluster facts are sent again to an instance that could not write them: 1 s to 60 s.
fn again_ms(failures: u32) -> UnixMs {
    (1_000_u64 << failures.min(6)).min(60_000)
}

/// Generations of cluster facts that a cluster may make now. Each goes to every instance, which writes and syncs files: a
/// machine whose facts change all the time must not keep the others busy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewals {
    left: u32,
    since_ms: UnixMs,
}

impl Default for Renewals {
    fn default() -> Self {
        Self {
            left: RENEWALS,
            since_ms: 0,
        }
    }
}

impl Renewals {
    fn has_one(&mut self, now: UnixMs) -> bool {
        let more = now.abs_diff(self.since_ms) / RENEWAL_MS; // however the clock is set
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(RENEWALS);
            self.since_ms = now;
        }
        self.left > 0
    }
}

/// Whether enough instances have reported for the first generation; later ones follow every change.
fn barrier_met(cluster: &Cluster) -> bool {
    let wanted = cluster.wanted().count();
    let reported = cluster.wanted().filter(|i| counts(i)).count();
    cluster.generation > 0 || reported >= cluster.spec.launch.min_ready.of(wanted)
}

fn to_wire(generation: u64, facts: ClusterFacts) -> v1::ClusterFacts {
    v1::ClusterFacts {
        generation,
        sha256: facts.json_sha256,
        complete: facts.missing.is_empty(),
        missing: facts.missing,
        facts_json: facts.json,
        peers: facts.peers,
        ssh: facts.ssh.to_owned(),
    }
}
