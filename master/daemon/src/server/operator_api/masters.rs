//! `Masters`: who shares this master's records, and who has what. Each of those that live is asked for what only it knows.

use std::collections::BTreeMap;

use super::others::{KNOWN, here};
use super::{Asker, OperatorApi};
use aot_proto::v1;
use aot_proto::v1::masters_reply::Entry;
use aot_store::fleet::{FleetMaster, FleetView};

impl OperatorApi {
    pub(super) async fn do_masters(&self, asker: &Asker) -> v1::MastersReply {
        let Some(view) = self.ways.finder.known() else {
            return self.alone();
        };
        let mut said = BTreeMap::from([(view.me.clone(), self.sessions())]);
        if !asker.here {
            let ask = |mut other: super::others::Other| async move {
                other.masters(here(v1::MastersRequest {})).await
            };
            let others = self.ask_others(asker, KNOWN, ask).await;
            said.extend(others.given.into_iter().filter_map(|(id, reply)| {
                let mut masters = reply.masters.into_iter();
                let own = masters.find(|entry| entry.answers && entry.id == id)?;
                Some((id, own.sessions?))
            }));
        }
        masters(&view, &said)
    }

    /// A master that shares its records with no other.
    fn alone(&self) -> v1::MastersReply {
        let info = &self.info;
        let entry = Entry {
            id: info.state_dir.clone(),
            build: info.build.clone(),
            agents: info.advertise.clone(),
            alive: true,
            answers: true,
            clusters: self
                .engine
                .clusters()
                .iter()
                .map(ToString::to_string)
                .collect(),
            sessions: Some(self.sessions()),
            ..Entry::default()
        };
        v1::MastersReply {
            masters: vec![entry],
            alone: true,
            nobodys: Vec::new(),
        }
    }

    fn sessions(&self) -> u64 {
        self.registry.len() as u64
    }
}

fn masters(view: &FleetView, said: &BTreeMap<String, u64>) -> v1::MastersReply {
    let clusters = |id: &str| {
        let owners = view.owners.iter().filter(|(_, owner)| owner.master == id);
        owners.map(|(name, _)| name.to_string()).collect()
    };
    let entry = |master: &FleetMaster| Entry {
        id: master.id.clone(),
        build: master.says.build.clone(),
        agents: master.says.agents.clone(),
        peer: master.says.peer.clone(),
        silent_ms: u64::try_from(master.silent_for.as_millis()).unwrap_or(u64::MAX),
        alive: master.is_alive,
        draining: master.is_draining,
        answers: master.id == view.me,
        clusters: clusters(&master.id),
        sessions: said.get(&master.id).copied(),
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
        let reply = masters(&view, &BTreeMap::from([("a".to_owned(), 3)]));
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
