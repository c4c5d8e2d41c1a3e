//! `Masters`: who shares this master's records, and who has what. Each of those that live is asked for what only it knows.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::v1;
use aot_proto::v1::masters_reply::Entry;
use aot_store::fleet::{FleetView, Master};
use tonic::Status;

use super::others::{KNOWN, here};
use super::{Asker, OperatorApi};

/// What a master says of itself, besides what the records say of it.
struct Own {
    sessions: u64,
    uuids: BTreeMap<String, String>,
}

impl OperatorApi {
    pub(super) async fn do_masters(&self, asker: &Asker) -> v1::MastersReply {
        let Some(view) = self.ways.finder.known() else {
            return self.alone();
        };
        let mut said = BTreeMap::from([(view.me.clone(), self.of_itself())]);
        if !asker.here {
            let ask = |mut other: super::others::Other| async move {
                other.masters(here(v1::MastersRequest {})).await
            };
            let others = self.ask_others(asker, KNOWN, ask).await;
            said.extend(others.given.into_iter().filter_map(|(id, reply)| {
                let mut masters = reply.masters.into_iter();
                let own = masters.find(|entry| entry.answers && entry.id == id)?;
                let (sessions, uuids) = (own.sessions?, own.uuids.into_iter().collect());
                Some((id, Own { sessions, uuids }))
            }));
        }
        masters(&view, said)
    }

    /// A master that shares its records with no other.
    fn alone(&self) -> v1::MastersReply {
        let Own { sessions, uuids } = self.of_itself();
        let info = &self.info;
        let entry = Entry {
            id: info.state_dir.clone(),
            build: info.build.clone(),
            agents: info.advertise.clone(),
            alive: true,
            answers: true,
            clusters: uuids.keys().cloned().collect(),
            sessions: Some(sessions),
            uuids: uuids.into_iter().collect(),
            ..Entry::default()
        };
        v1::MastersReply {
            masters: vec![entry],
            alone: true,
            nobodys: Vec::new(),
        }
    }

    fn of_itself(&self) -> Own {
        let uuids = self.engine.read_each(|world| {
            let uuid = |cluster: &aot_model::cluster::Cluster| {
                (cluster.spec.name.to_string(), cluster.uuid.to_string())
            };
            world.clusters.values().map(uuid).collect::<Vec<_>>()
        });
        Own {
            sessions: self.registry.len() as u64,
            uuids: uuids.into_iter().flatten().collect(),
        }
    }

    /// The uuids of this master's clusters.
    pub(super) fn uuids(&self) -> BTreeSet<String> {
        self.of_itself().uuids.into_values().collect()
    }

    /// The uuids of the other masters' clusters; the names of clusters of which that is not known, and who did not answer.
    pub(super) async fn uuids_elsewhere(
        &self,
        asker: &Asker,
    ) -> (BTreeSet<String>, BTreeSet<String>, Vec<(String, String)>) {
        let ask = |mut other: super::others::Other| async move {
            other.masters(here(v1::MastersRequest {})).await
        };
        let others = self.ask_others(asker, KNOWN, ask).await;
        let (mut uuids, mut unsure) = (BTreeSet::new(), BTreeSet::new());
        let all = self.every_cluster().into_iter();
        unsure.extend(all.map(|name| name.to_string()));
        for name in self.engine.clusters() {
            unsure.remove(name.as_str());
        }
        for (_, reply) in others.given {
            for (name, uuid) in reply.masters.into_iter().flat_map(|it| it.uuids) {
                unsure.remove(&name);
                uuids.insert(uuid);
            }
        }
        (uuids, unsure, others.silent)
    }

    /// Refuses the uuid of a cluster that another master has, and any while it can't be known whether one has it.
    pub(super) async fn refuse_others(&self, uuid: &str, asker: &Asker) -> Result<(), Status> {
        if self.ways.finder.is_alone() || asker.is_master {
            return Ok(());
        }
        let (uuids, unsure, silent) = self.uuids_elsewhere(asker).await;
        if uuids.contains(uuid) {
            return Err(Status::failed_precondition(format!(
                "{uuid} is a cluster of another master of this fleet: `aot-master masters` says whose; aot-master cleanup deletes it"
            )));
        }
        let missing: Vec<String> = silent.into_iter().map(|(id, _)| id).chain(unsure).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Status::unavailable(format!(
                "whether {uuid} belongs to a cluster of another master is not known, as no answer came from or for: {}; try again once `aot-master masters` shows them all",
                missing.join(", ")
            ))),
        }
    }
}

fn masters(view: &FleetView, mut said: BTreeMap<String, Own>) -> v1::MastersReply {
    let clusters = |id: &str| {
        let owners = view.owners.iter().filter(|(_, owner)| owner.master == id);
        owners.map(|(name, _)| name.to_string()).collect()
    };
    let entry = |master: &Master| {
        let own = said.remove(&master.id);
        let (sessions, uuids) = own.map(|own| (own.sessions, own.uuids)).unzip();
        Entry {
            id: master.id.clone(),
            build: master.says.build.clone(),
            agents: master.says.agents.clone(),
            peer: master.says.peer.clone(),
            silent_ms: u64::try_from(master.silent_for.as_millis()).unwrap_or(u64::MAX),
            alive: master.is_alive,
            draining: master.is_draining,
            answers: master.id == view.me,
            clusters: clusters(&master.id),
            sessions,
            uuids: uuids.unwrap_or_default().into_iter().collect(),
        }
    };
    let masters = view.masters.values().map(entry).collect();
    let nobodys = view.owners.iter();
    let nobodys = nobodys.filter(|(_, owner)| !view.masters.contains_key(&owner.master));
    v1::MastersReply {
        masters,
        alone: false,
        nobodys: nobodys.map(|(name, _)| name.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use aot_store::fleet::sample_view;

    use super::*;

    #[test]
    fn each_master_is_shown_with_what_it_has_and_what_it_says() {
        let view = sample_view("a", &[("web", "a"), ("db", "b"), ("old", "")]);
        let own = Own {
            sessions: 3,
            uuids: BTreeMap::new(),
        };
        let reply = masters(&view, BTreeMap::from([("a".to_owned(), own)]));
        let [a, b] = &reply.masters[..] else {
            panic!("{reply:?}");
        };
        assert_eq!(
            (a.answers, a.sessions, &a.clusters[..]),
            (true, Some(3), &["web".to_owned()][..])
        );
        assert_eq!(
            (b.answers, b.sessions, &b.clusters[..]),
            (false, None, &["db".to_owned()][..])
        );
        assert_eq!(
            (reply.nobodys, reply.alone),
            (vec!["old".to_owned()], false)
        );
    }
}
