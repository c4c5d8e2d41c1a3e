//! The barrier: facts come up, generations of cluster facts go down, acknowledgements come back.

use aot_proto::facts::pieces;
use aot_proto::ids::ClusterName;
use aot_proto::v1;

use super::World;
use super::input::Answer;
use crate::model::cluster::{Cluster, Key, NodeFacts};
use crate::model::facts::{self, ClusterFacts, counts};
use crate::model::phase::{Happened, Phase};

impl World {
    pub(super) fn facts_reported(&mut self, at: &Key, session: u64, facts: NodeFacts) -> Answer {
        let now = self.now;
        let Some(instance) = self.instance_mut(at).filter(|i| i.session == Some(session)) else {
            return Answer::None;
        };
        instance.last_seen_ms = now;
        if instance.facts.as_deref() != Some(&facts) {
            instance.facts = Some(facts.into());
            self.dirty.facts.insert(at.clone());
            self.stale_facts(&at.cluster);
            self.tell(at, "facts-reported", "facts reported");
        }
        self.mark_due(&at.cluster);
        Answer::None
    }

    pub(super) fn facts_applied(
        &mut self,
        at: &Key,
        session: u64,
        generation: u64,
        error: &str,
    ) -> Answer {
        let Some(instance) = self.instance_mut(at).filter(|i| i.session == Some(session)) else {
            return Answer::None;
        };
        if error.is_empty() {
            instance.applied_generation = generation;
            instance.happen(Happened::FactsApplied);
            if instance.phase == Phase::Configured {
                instance.note.clear();
            }
            self.tell(
                at,
                "cluster-facts-applied",
                format!("has cluster facts of generation {generation}"),
            );
        } else {
            instance.note = format!("could not write cluster facts: {error}");
            instance.sent_generation = 0; // once more with the next heartbeat of the world
            let note = instance.note.clone();
            self.tell(at, "notice", note);
        }
        self.mark_due(&at.cluster);
        Answer::None
    }

    /// A new generation, when the content changed and enough instances have reported.
    pub(super) fn renew_facts(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        if !self.stale.contains(name) || !barrier_met(cluster) {
            return;
        }
        self.stale.remove(name);
        let now_facts = facts::of(cluster);
        if now_facts.content_sha256 == cluster.facts_sha256 || now_facts.peers.is_empty() {
            return;
        }
        let cluster = self.cluster_mut(name).expect("found above");
        cluster.generation += 1;
        cluster.facts_sha256 = now_facts.content_sha256;
        let generation = cluster.generation;
        let text = format!(
            "cluster facts, generation {generation}: {} instances",
            now_facts.peers.len()
        );
        self.tell_cluster(name, "cluster-facts-renewed", text);
    }

    /// Gives the newest generation to every session that has not been sent it.
    pub(super) fn hand_out_facts(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let generation = cluster.generation;
        let behind: Vec<(Key, u64)> = cluster
            .instances
            .values()
            .filter(|i| {
                i.sent_generation < generation && i.applied_generation < generation && counts(i)
            })
            .filter_map(|i| {
                Some((
                    Key {
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
        let pieces = pieces(&to_wire(generation, facts::of(cluster)));
        for (at, session) in behind {
            for piece in &pieces {
                let body = v1::master_message::Body::ClusterFacts(piece.clone());
                self.send(&at, session, body);
            }
            let instance = self
                .clusters
                .get_mut(name)
                .and_then(|c| c.instances.get_mut(&at.instance));
            instance.expect("listed above").sent_generation = generation;
        }
    }

    /// Whether every instance that is there has the newest cluster facts: only then may a stage 0 start.
    pub(super) fn barrier_open(&self, cluster: &Cluster) -> bool {
        cluster.generation > 0
            && cluster
                .instances
                .values()
                .filter(|i| counts(i) && i.may_be_up() && !self.is_lost(i))
                .all(|i| i.applied_generation == cluster.generation)
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
    }
}
