//! What the account shows against what the store holds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aot_model::batch::BatchState;
use aot_model::cluster::Cluster;
use aot_model::machine::MachineState;
use aot_proto::v1::OrphanReason;
use aot_proto::v1::orphans_reply::Entry;
use aot_provider::Tagged;

/// What the store holds of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredCluster {
    pub name: String,
    /// The region where its machines are; `local` for this host.
    pub region: String,
    /// State by id of its instances' machines that are not terminated.
    pub living: BTreeMap<String, String>,
    /// Ids of all machines that it knows: its instances' and the strays.
    pub known: BTreeSet<String>,
    /// A call for machines has no answer yet: they may be there, and will be known by it.
    pub calling: bool,
}

/// What the store holds, by cluster uuid.
pub(super) type Book = BTreeMap<String, StoredCluster>;

impl StoredCluster {
    /// Of a cluster whose machines are in `region`.
    pub(super) fn of(cluster: &Cluster, region: &str) -> Self {
        let machines = || {
            cluster
                .instances
                .values()
                .filter_map(|instance| instance.machine.as_ref())
        };
        Self {
            name: cluster.spec.name.to_string(),
            region: region.to_owned(),
            living: machines()
                .filter(|machine| machine.state != MachineState::Terminated)
                .map(|machine| (machine.id.to_string(), machine.state.to_string()))
                .collect(),
            known: machines()
                .map(|machine| machine.id.to_string())
                .chain(cluster.strays.keys().map(ToString::to_string))
                .collect(),
            calling: cluster
                .batches
                .values()
                .any(|batch| batch.state == BatchState::Requested),
        }
    }
}

/// What one region shows that the store does not have, and the other way round. `before` was read before the region
/// was asked, `after` after it: what changed meanwhile is not an orphan.
pub(super) fn entries(region: &str, tagged: &[Tagged], before: &Book, after: &Book) -> Vec<Entry> {
    let mut found: Vec<Entry> = tagged
        .iter()
        .filter(|thing| !thing.gone)
        .filter_map(|thing| Some((thing, why(thing, after)?)))
        // A cluster that was cleaned up meanwhile took its things along.
        .filter(|(thing, why)| {
            *why != OrphanReason::UnknownCluster || !before.contains_key(&thing.uuid)
        })
        .map(|(thing, why)| Entry {
            kind: thing.kind.to_owned(),
            id: thing.id.clone(),
            state: thing.state.clone(),
            cluster: thing.cluster.clone(),
            uuid: thing.uuid.clone(),
            region: region.to_owned(),
            why: why.into(),
        })
        .collect();
    found.sort_by(|a, b| {
        (&a.cluster, &a.uuid, &a.kind, &a.id).cmp(&(&b.cluster, &b.uuid, &b.kind, &b.id))
    });
    found.extend(missing(region, tagged, before, after));
    found
}

fn why(thing: &Tagged, book: &Book) -> Option<OrphanReason> {
    match book.get(&thing.uuid) {
        None => Some(OrphanReason::UnknownCluster),
        Some(held)
            if thing.kind == "instance" && !held.calling && !held.known.contains(&thing.id) =>
        {
            Some(OrphanReason::NotAnInstanceOfIt)
        }
        Some(_) => None,
    }
}

/// Machines of the region's clusters that it does not show.
fn missing(region: &str, tagged: &[Tagged], before: &Book, after: &Book) -> Vec<Entry> {
    let shown: BTreeSet<&str> = tagged.iter().map(|thing| thing.id.as_str()).collect();
    let mut found = Vec::new();
    for (uuid, held) in after.iter().filter(|(_, held)| held.region == region) {
        let Some(earlier) = before.get(uuid) else {
            continue;
        };
        for (id, state) in &held.living {
            if earlier.living.contains_key(id) && !shown.contains(id.as_str()) {
                found.push(Entry {
                    kind: "instance".to_owned(),
                    id: id.clone(),
                    state: state.clone(),
                    cluster: held.name.clone(),
                    uuid: String::new(),
                    region: region.to_owned(),
                    why: OrphanReason::NotInTheAccount.into(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(kind: &'static str, id: &str, uuid: &str) -> Tagged {
        Tagged {
            kind,
            id: id.to_owned(),
            state: "running".to_owned(),
            gone: false,
            cluster: format!("c-{uuid}"),
            uuid: uuid.to_owned(),
        }
    }

    fn held(region: &str, living: &[&str], strays: &[&str]) -> StoredCluster {
        StoredCluster {
            name: "hadoop".to_owned(),
            region: region.to_owned(),
            living: living
                .iter()
                .map(|id| ((*id).to_owned(), "running".to_owned()))
                .collect(),
            known: living
                .iter()
                .chain(strays)
                .map(|id| (*id).to_owned())
                .collect(),
            calling: false,
        }
    }

    fn book(held: StoredCluster) -> Book {
        BTreeMap::from([("ours".to_owned(), held)])
    }

    fn told(tagged: &[Tagged], before: &Book, after: &Book) -> Vec<String> {
        entries("r1", tagged, before, after)
            .into_iter()
            .map(|entry| {
                format!(
                    "{} {} {}: {}",
                    entry.kind,
                    entry.id,
                    entry.cluster,
                    entry.why()
                )
            })
            .collect()
    }

    #[test]
    fn what_matches_is_no_orphan() {
        let held = book(held("r1", &["i-1"], &["i-2"]));
        let tagged = [
            thing("instance", "i-1", "ours"),
            thing("instance", "i-2", "ours"),
            thing("volume", "vol-1", "ours"),
        ];
        assert_eq!(told(&tagged, &held, &held), [""; 0]);
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let held = book(held("r1", &["i-1", "i-9"], &[]));
        let tagged = [
            thing("security-group", "sg-1", "theirs"),
            thing("instance", "i-7", "theirs"),
            thing("instance", "i-5", "ours"),
            thing("instance", "i-1", "ours"),
        ];
        assert_eq!(
            told(&tagged, &held, &held),
            [
                "instance i-5 c-ours: not an instance of it",
                "instance i-7 c-theirs: unknown cluster",
                "security-group sg-1 c-theirs: unknown cluster",
                "instance i-9 hadoop: not in the account",
            ]
        );
    }

    #[test]
    fn what_is_gone_already_is_no_orphan_but_still_in_the_account() {
        let held = book(held("r1", &["i-1"], &[]));
        let gone = |id: &str, uuid: &str| Tagged {
            gone: true,
            ..thing("instance", id, uuid)
        };
        let tagged = [gone("i-1", "ours"), gone("i-2", "ours"), gone("i-3", "x")];
        assert_eq!(told(&tagged, &held, &held), [""; 0]);
    }

    #[test]
    fn another_regions_clusters_are_not_missed_here() {
        let held = book(held("r2", &["i-1"], &[]));
        assert_eq!(told(&[], &held, &held), [""; 0]);
    }

    #[test]
    fn a_call_without_an_answer_keeps_its_machines() {
        let calling = book(StoredCluster {
            calling: true,
            ..held("r1", &[], &[])
        });
        let tagged = [thing("instance", "i-5", "ours")];
        assert_eq!(told(&tagged, &calling, &calling), [""; 0]);
        let answered = book(held("r1", &[], &[]));
        assert_eq!(told(&tagged, &answered, &answered).len(), 1);
    }

    #[test]
    fn what_changed_while_the_account_was_asked_is_no_orphan() {
        let (none, with) = (Book::new(), book(held("r1", &["i-1"], &[])));
        // Launched meanwhile: neither unknown nor missed.
        assert_eq!(
            told(&[thing("instance", "i-1", "ours")], &none, &with),
            [""; 0]
        );
        assert_eq!(told(&[], &none, &with), [""; 0]);
        let grown = book(held("r1", &["i-1", "i-2"], &[]));
        assert_eq!(
            told(&[thing("instance", "i-1", "ours")], &with, &grown),
            [""; 0]
        );
        // Cleaned up meanwhile.
        assert_eq!(
            told(&[thing("instance", "i-1", "ours")], &with, &none),
            [""; 0]
        );
        // Terminated meanwhile.
        let ended = book(StoredCluster {
            known: BTreeSet::from(["i-1".to_owned()]),
            ..held("r1", &[], &[])
        });
        assert_eq!(told(&[], &with, &ended), [""; 0]);
    }
}
