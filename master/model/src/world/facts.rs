//! The barrier: facts come up, generations of cluster facts go down, acknowledgements come back.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::limits::{HAND_OUT_TURN, HAND_OUT_TURNS};
use aot_proto::plural;

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use crate::cluster::Cluster;
use crate::facts::{Generation, counts};
use crate::instance::{Instance, NodeFacts, Unwritten};
use crate::key::InstanceKey;
use crate::phase::{Happened, Phase};
use crate::unix_ms::UnixMs;

/// Generations that a cluster may make at once, as its instances come.
const RENEWALS: u32 = 3;

/// After those, one per this time.
const RENEWAL_MS: UnixMs = 3_000;

/// How long an instance that was sent cluster facts may take to write them before others do not wait for it any more, beside the
/// turns of those that are sent them before it.
const PATIENCE_MS: UnixMs = 60_000;

/// What may have changed in a cluster's facts since its newest generation.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Who is in them: no stage 0 starts before others have been told.
    members: bool,
    /// Whose entries; `None` = anybody's.
    of: Option<BTreeSet<InstanceName>>,
}

impl Stale {
    /// All of it.
    pub(super) fn all() -> Self {
        Self {
            members: true,
            of: None,
        }
    }
}

impl World {
    /// Anything may have changed in what the cluster facts say of any instance.
    pub(super) fn stale_facts(&mut self, name: &ClusterName) {
        self.stale.insert(name.clone(), Stale::all());
    }

    /// What the cluster facts say of one instance may have changed, and whether it is one of them when `members` is true.
    pub(super) fn stale_entry(&mut self, at: &InstanceKey, members: bool) {
        let none = || Stale {
            members: false,
            of: Some(BTreeSet::new()),
        };
        let stale = self.stale.entry(at.cluster.clone()).or_insert_with(none);
        stale.members |= members;
        if let Some(names) = &mut stale.of {
            names.insert(at.instance.clone());
        }
    }

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
            self.stale_entry(at, is_new);
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
        if generation == 0 || generation != sent {
            return Answer::NotItsOwn; // it was given another one last, and answers each once
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
        let stale = self.stale.remove(name).unwrap_or_else(Stale::all);
        let Some(instances) = self.publish(name, stale.of) else {
            return;
        };
        self.calls(name).renewals.left -= 1;
        let text = format!(
            "cluster facts, generation {}: {}",
            self.clusters
                .get(name)
                .map_or(0, |cluster| cluster.generation),
            plural::count(instances, "instance")
        );
        self.emit_cluster(name, "cluster-facts-renewed", text);
    }

    /// Makes a new generation of a cluster's facts when these entries (`None` = any) are not as they were handed out; says of how many
    /// instances it is.
    fn publish(&mut self, name: &ClusterName, of: Option<BTreeSet<InstanceName>>) -> Option<usize> {
        let cluster = self.clusters.get(name)?;
        if !cluster.instances.values().any(counts) {
            self.published.remove(name);
            return None;
        }
        let generation = cluster.generation + 1;
        let is_new = match self.published.get_mut(name) {
            Some(published) => published.renew(cluster, of.as_ref()),
            None => {
                // After a restart it is what all have, unless its digest is another.
                let found = Generation::of(cluster, cluster.generation);
                let is_new = found.digest() != cluster.facts_sha256;
                let found = if is_new { found.into_next() } else { found };
                self.published.insert(name.clone(), found);
                is_new
            }
        };
        let published = self.published.get(name).filter(|_| is_new)?;
        let (digest, instances) = (published.digest(), published.len());
        let cluster = self.cluster_mut(name)?;
        cluster.generation = generation;
        cluster.facts_sha256 = digest;
        Some(instances)
    }

    /// Gives the newest generation to every session that has not been sent it: what has changed since the one it has. One that was
    /// sent an earlier one is given this once it has acknowledged that, so that nothing is sent to it that it can't use.
    pub(super) fn hand_out_facts(&mut self, name: &ClusterName) {
        let (Some(cluster), Some(published)) =
            (self.clusters.get(name), self.published.get_mut(name))
        else {
            return;
        };
        let (now, generation) = (self.now, cluster.generation);
        let mut under_way = false;
        let mut given = Vec::new();
        for instance in cluster.instances.values().filter(|i| counts(i)) {
            let Some(session) = instance.session else {
                continue;
            };
            if instance.sent_generation > instance.applied_generation {
                under_way = true;
            } else if instance.applied_generation < generation && may_try(instance, generation, now)
            {
                // After a failure the whole: who knows what is there.
                let base = instance.applied_generation;
                let base = if instance.unwritten.is_some() {
                    0
                } else {
                    base
                };
                let facts = published.pieces(base);
                given.push((instance.name.clone(), session, facts));
            }
        }
        if given.is_empty() && !under_way {
            published.unpack();
        }
        for (instance, session, facts) in given {
            let at = InstanceKey {
                cluster: name.clone(),
                instance,
            };
            let instance = self.unrecorded_mut(&at).expect("listed above");
            instance.sent_generation = generation;
            instance.facts_sent_ms = now;
            self.do_later(Effect::HandOut { at, session, facts });
        }
    }

    /// Whether every instance that is there has the newest cluster facts: only then may a stage 0 start. One that says that
    /// it cannot write them, or does not answer, is not waited for: it starts no stage 0 itself, see [`has_newest`].
    pub(super) fn barrier_open(&self, cluster: &Cluster) -> bool {
        let stale = self.stale.get(&cluster.spec.name);
        let patience = patience_ms(cluster);
        cluster.generation > 0
            && !stale.is_some_and(|stale| stale.members)
            && cluster
                .instances
                .values()
                .filter(|i| counts(i) && i.may_be_up() && !self.is_lost(i))
                .all(|i| has_newest(cluster, i) || hinders(i, self.now, patience))
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
        let patience = patience_ms(cluster);
        let stuck = cluster.wanted().filter(waits);
        let stuck = stuck.filter(|i| !has_newest(cluster, i) && hinders(i, now, patience));
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
fn hinders(instance: &Instance, now: UnixMs, patience_ms: UnixMs) -> bool {
    let sent = instance.facts_sent_ms;
    instance.unwritten.is_some() || (sent > 0 && now.saturating_sub(sent) >= patience_ms)
}

/// How long one of them may take while so many are being sent cluster facts: it may be the last whose turn it is.
fn patience_ms(cluster: &Cluster) -> UnixMs {
    let under_way = |i: &&Instance| i.session.is_some() && i.sent_generation > i.applied_generation;
    let before = cluster.instances.values().filter(under_way).count() / HAND_OUT_TURNS;
    let turn = HAND_OUT_TURN.as_millis() as UnixMs;
    PATIENCE_MS + before as UnixMs * turn
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
