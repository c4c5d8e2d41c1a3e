//! Cluster facts as they were handed out last: an entry for each instance, and the generation since which it is as it is. So
//! a new generation costs what has changed, and whoever has an earlier one is sent just that. In memory only: after a restart
//! it is made anew, and is the same generation when it has the same digest.

use std::collections::{BTreeMap, BTreeSet};

use aot_host::hash::hex;
use aot_proto::facts::{self, Hash, Pieces, pieces};
use aot_proto::ids::InstanceName;
use aot_proto::v1;
use prost::bytes::Bytes;

use super::{counts, handed_out, missing, peer};
use crate::cluster::Cluster;
use crate::instance::Instance;

/// Changes that are kept packed, of as many bases; who has yet another generation is sent the whole.
const CHANGES: usize = 16;

/// One generation of the cluster facts, by its number.
#[derive(Debug)]
pub(crate) struct Generation {
    number: u64,
    /// Changes can be told from this generation on.
    since: u64,
    ssh: &'static str,
    entries: BTreeMap<InstanceName, Entry>,
    /// Who is not in it any more, and since which generation.
    removed: BTreeMap<InstanceName, u64>,
    /// Wanted instances that are not in it.
    missing: Vec<String>,
    /// What is being handed out, by the generation that it changes.
    packed: BTreeMap<u64, Pieces>,
}

#[derive(Debug)]
struct Entry {
    /// A `FactsEntry`.
    bytes: Bytes,
    hash: Hash,
    /// Generation since which it is as it is.
    since: u64,
}

impl Generation {
    /// The cluster facts as they are now, as this generation.
    pub(crate) fn of(cluster: &Cluster, number: u64) -> Self {
        let mut entries = BTreeMap::new();
        for instance in cluster.instances.values() {
            if let Some(entry) = entry_of(cluster, instance, number) {
                entries.insert(instance.name.clone(), entry);
            }
        }
        Self {
            number,
            since: number,
            ssh: cluster.spec.ssh.as_str(),
            entries,
            removed: BTreeMap::new(),
            missing: missing(cluster),
            packed: BTreeMap::new(),
        }
    }

    /// The same content as the next generation: nobody is known to have any part of it.
    pub(crate) fn into_next(mut self) -> Self {
        self.number += 1;
        self.since = self.number;
        for entry in self.entries.values_mut() {
            entry.since = self.number;
        }
        self
    }

    /// SHA-256 of all of it, hex.
    pub(crate) fn digest(&self) -> String {
        hex(&self.hash())
    }

    fn hash(&self) -> Hash {
        facts::digest(self.ssh, self.entries.values().map(|entry| &entry.hash))
    }

    /// How many instances are in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes the next generation of it, when these instances (`None` = all) are not as they are in it; says whether it did.
    pub(crate) fn renew(
        &mut self,
        cluster: &Cluster,
        names: Option<&BTreeSet<InstanceName>>,
    ) -> bool {
        let number = self.number + 1;
        let all = || cluster.instances.keys().chain(self.entries.keys());
        let names = names.cloned().unwrap_or_else(|| all().cloned().collect());
        let mut changed = self.ssh != cluster.spec.ssh.as_str();
        self.ssh = cluster.spec.ssh.as_str();
        for name in names {
            let instance = cluster.instances.get(&name);
            let entry = instance.and_then(|instance| entry_of(cluster, instance, number));
            changed |= self.replace(name, entry, number);
        }
        if changed {
            self.number = number;
            self.missing = missing(cluster);
            self.packed.clear();
            self.forget_long_removed();
        }
        changed
    }

    fn replace(&mut self, name: InstanceName, entry: Option<Entry>, number: u64) -> bool {
        let old = self.entries.get(&name).map(|it| it.hash);
        if old == entry.as_ref().map(|it| it.hash) {
            return false;
        }
        if let Some(entry) = entry {
            self.removed.remove(&name);
            self.entries.insert(name, entry);
        } else {
            self.entries.remove(&name);
            self.removed.insert(name, number);
        }
        true
    }

    /// Of a cluster whose instances come and go under new names, those that went first are forgotten.
    fn forget_long_removed(&mut self) {
        while self.removed.len() > self.entries.len() + CHANGES {
            let oldest = self.removed.values().min().copied().unwrap_or_default();
            self.removed.retain(|_, since| *since > oldest);
            self.since = self.since.max(oldest);
        }
    }

    /// What is to be sent to an instance that has the generation `base` (0 = none), packed once for all that have it.
    pub(crate) fn pieces(&mut self, base: u64) -> Pieces {
        let base = self.told_from(base);
        if let Some(pieces) = self.packed.get(&base) {
            return Pieces::clone(pieces);
        }
        let pieces = pieces(&self.change(base));
        self.packed.insert(base, Pieces::clone(&pieces));
        pieces
    }

    /// The generation whose change is sent to whoever has `base`; 0 = the whole.
    fn told_from(&self, base: u64) -> u64 {
        let is_known = (self.since.max(1)..self.number).contains(&base);
        if !is_known {
            return 0;
        }
        if self.packed.len() < CHANGES {
            return base;
        }
        // A change of an earlier one has all that is new as well.
        let earlier = self.packed.range(1..=base).next_back();
        earlier.map_or(0, |(base, _)| *base)
    }

    /// Nobody is being sent anything of it: what was packed is dropped.
    pub(crate) fn unpack(&mut self) {
        self.packed.clear();
    }

    /// Whether something is being handed out.
    #[cfg(test)]
    pub(crate) fn is_packed(&self) -> bool {
        !self.packed.is_empty()
    }

    /// What has changed in it since the generation `base`; the whole when that is 0.
    pub(super) fn change(&self, base: u64) -> v1::ClusterFacts {
        let entries = self.entries.values().filter(|entry| entry.since > base);
        let removed = self.removed.iter();
        let removed = removed.filter(|(_, since)| base > 0 && **since > base);
        v1::ClusterFacts {
            generation: self.number,
            base,
            complete: self.missing.is_empty(),
            missing: self.missing.clone(),
            ssh: self.ssh.to_owned(),
            entries: entries.map(|entry| entry.bytes.clone()).collect(),
            removed: removed.map(|(name, _)| name.to_string()).collect(),
            digest: self.hash().to_vec(),
        }
    }
}

fn entry_of(cluster: &Cluster, instance: &Instance, number: u64) -> Option<Entry> {
    let facts = instance.facts.as_ref().filter(|_| counts(instance))?;
    let value = handed_out(cluster, instance, facts);
    let peer = peer(instance, facts, cluster.spec.ssh);
    let bytes = facts::entry(instance.name.as_str(), &value, peer);
    Some(Entry {
        hash: facts::hash(&bytes),
        bytes,
        since: number,
    })
}

#[cfg(test)]
mod tests;
