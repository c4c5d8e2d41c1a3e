//! What cluster facts say: an entry for each instance, and a digest of all. The master makes entries and digests, an agent
//! applies changes to the whole that it has; both have `/etc/cluster_facts.json` and the digest from here, so they agree.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, digest as sha256};
use prost::Message;
use prost::bytes::Bytes;

use crate::limits::MAX_FACTS_BYTES;
use crate::v1::{ClusterFacts, FactsEntry, Peer};

/// SHA-256 of an entry's bytes.
pub type Hash = [u8; 32];

/// Cluster facts that can't be put together: the whole is to be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// They are a change of something that is not here.
    #[error("the cluster facts are a change of generation {base}, and generation {have} is here")]
    Base {
        /// What they change.
        base: u64,
        /// What is here; 0 = none.
        have: u64,
    },
    /// What they come to is not what the master has.
    #[error("the cluster facts do not have the digest that was announced")]
    Digest,
    /// An entry is none.
    #[error("an entry of the cluster facts is garbled")]
    Garbled,
}

/// An entry as it travels. `value` is the instance's object in `/etc/cluster_facts.json`.
pub fn entry(name: &str, value: &serde_json::Value, peer: Peer) -> Bytes {
    // In the file it stands one level deep; no text of JSON contains a bare line feed (RFC 8259, section 7).
    let mut json = format!("{value:#}").replace('\n', "\n  ");
    // Deeply nested, it would be a hundred times as long as what its machine has reported.
    if json.len() > 2 * MAX_FACTS_BYTES {
        json = value.to_string();
    }
    let entry = FactsEntry {
        name: name.to_owned(),
        json: json.into_bytes(),
        peer: Some(peer),
    };
    entry.encode_to_vec().into()
}

/// SHA-256 of an entry.
pub fn hash(entry: &[u8]) -> Hash {
    sha256(&SHA256, entry)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// Digest of cluster facts: SHA-256 over whose keys are exchanged, a zero byte, and the hash of each entry, by name. Who is missing
/// is not part of it: an instance that joins makes one new generation, not two.
pub fn digest<'a>(ssh: &str, hashes: impl Iterator<Item = &'a Hash>) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(ssh.as_bytes());
    context.update(&[0]);
    for hash in hashes {
        context.update(hash);
    }
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// `/etc/cluster_facts.json`: an object with the entries in the order of their names.
pub fn json<'a>(entries: impl Iterator<Item = &'a FactsEntry>) -> Vec<u8> {
    let mut file = b"{".to_vec();
    for entry in entries {
        if file.len() > 1 {
            file.push(b',');
        }
        file.extend_from_slice(b"\n  \"");
        file.extend_from_slice(entry.name.as_bytes());
        file.extend_from_slice(b"\": ");
        file.extend_from_slice(&entry.json);
    }
    file.extend_from_slice(if file.len() > 1 { b"\n}\n" } else { b"}\n" });
    file
}

/// Cluster facts of one generation, whole and checked against their digest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    whole: ClusterFacts,
    /// Those of `whole.entries`, in the same order.
    entries: Vec<FactsEntry>,
}

impl Content {
    /// From a whole, as [`Content::message`] gave it or as the master sends it.
    ///
    /// # Errors
    /// When it is a change, garbled, or has another digest.
    pub fn from_whole(facts: ClusterFacts) -> Result<Self, BadChange> {
        Self::default().changed(facts)
    }

    /// What is here with `facts` applied: a change of it, or another whole. A change of an earlier generation than the one that
    /// is here fits as well, since it has each entry as it is now: its sender may not know yet how far this one has come.
    ///
    /// # Errors
    /// When they are a change of a later generation, or do not come to the digest they announce.
    pub fn changed(self, mut facts: ClusterFacts) -> Result<Self, BadChange> {
        let have = self.whole.generation;
        if facts.base > have {
            let base = facts.base;
            return Err(BadChange::Base { base, have });
        }
        let mut entries = BTreeMap::new();
        if facts.base != 0 {
            for (entry, bytes) in self.entries.into_iter().zip(self.whole.entries) {
                entries.insert(entry.name.clone(), (entry, bytes));
            }
        }
        for name in &facts.removed {
            entries.remove(name);
        }
        for bytes in std::mem::take(&mut facts.entries) {
            let entry = FactsEntry::decode(bytes.clone()).map_err(|_| BadChange::Garbled)?;
            if !is_name(&entry.name) {
                return Err(BadChange::Garbled);
            }
            entries.insert(entry.name.clone(), (entry, bytes));
        }
        let (entries, bytes): (Vec<FactsEntry>, Vec<Bytes>) = entries.into_values().unzip();
        let hashes: Vec<Hash> = bytes.iter().map(|bytes| hash(bytes)).collect();
        if digest(&facts.ssh, hashes.iter())[..] != facts.digest {
            return Err(BadChange::Digest);
        }
        let whole = ClusterFacts {
            base: 0,
            removed: Vec::new(),
            entries: bytes,
            ..facts
        };
        Ok(Self { whole, entries })
    }

    /// The whole, to be kept.
    pub fn message(&self) -> &ClusterFacts {
        &self.whole
    }

    /// `/etc/cluster_facts.json`.
    pub fn json(&self) -> Vec<u8> {
        json(self.entries.iter())
    }

    /// Every instance of it, in the order of their names.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.entries.iter().filter_map(|entry| entry.peer.as_ref())
    }
}

/// A name of an instance needs no escapes in JSON.
fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    !name.is_empty() && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    /// What a master would have: a value for each name.
    type Truth = BTreeMap<String, Value>;

    fn entry_of(name: &str, value: &Value) -> Bytes {
        let peer = Peer {
            name: name.to_owned(),
            ..Peer::default()
        };
        entry(name, value, peer)
    }

    /// `now` as a change of `before`, which is generation `base`; as a whole when that is 0.
    fn change(base: u64, before: &Truth, generation: u64, now: &Truth) -> ClusterFacts {
        let all: Vec<Hash> = now
            .iter()
            .map(|(name, it)| hash(&entry_of(name, it)))
            .collect();
        let is_new =
            |(name, value): &(&String, &Value)| base == 0 || before.get(*name) != Some(*value);
        ClusterFacts {
            generation,
            base,
            ssh: "root".to_owned(),
            entries: now
                .iter()
                .filter(is_new)
                .map(|(name, it)| entry_of(name, it))
                .collect(),
            removed: before
                .keys()
                .filter(|name| !now.contains_key(*name))
                .cloned()
                .collect(),
            digest: digest("root", all.iter()).to_vec(),
            ..ClusterFacts::default()
        }
    }

    fn truth(names: &[&str], text: &str) -> Truth {
        let value = |name: &&str| {
            (
                (*name).to_owned(),
                json!({"name": name, "node": {"text": text}, "keys": []}),
            )
        };
        names.iter().map(value).collect()
    }

    fn pretty(truth: &Truth) -> Vec<u8> {
        let map: Map<String, Value> = truth.clone().into_iter().collect();
        let mut text = serde_json::to_vec_pretty(&map).expect("writes");
        text.push(b'\n');
        text
    }

    proptest! {
        #[test]
        fn changes_come_to_the_same_file_as_the_whole(
            steps in prop::collection::vec(prop::collection::btree_map("[a-z][a-z0-9-]{0,3}", ".{0,20}", 0..8), 1..6),
        ) {
            let mut content = Content::default();
            let mut before = Truth::new();
            for (at, step) in steps.into_iter().enumerate() {
                let generation = at as u64 + 1;
                let now: Truth = step.into_iter().map(|(name, text)| (name, json!({"text": text, "list": [1, {}]}))).collect();
                content = content.changed(change(generation - 1, &before, generation, &now)).expect("fits");
                let whole = Content::from_whole(change(0, &Truth::new(), generation, &now)).expect("fits");
                prop_assert_eq!(&content, &whole);
                prop_assert_eq!(content.json(), pretty(&now));
                let names: BTreeSet<&str> = content.peers().map(|peer| peer.name.as_str()).collect();
                prop_assert_eq!(names, now.keys().map(String::as_str).collect());
                before = now;
            }
            prop_assert_eq!(Content::from_whole(content.message().clone()), Ok(content));
        }
    }

    #[test]
    fn a_change_of_something_else_is_refused() {
        let (old, new) = (truth(&["a", "b"], "1"), truth(&["a", "b", "c"], "1"));
        let first = Content::from_whole(change(0, &Truth::new(), 4, &old)).expect("fits");
        let next = change(4, &old, 5, &new);
        assert_eq!(
            Content::default().changed(next.clone()),
            Err(BadChange::Base { base: 4, have: 0 })
        );
        assert_eq!(
            first.clone().changed(change(5, &old, 6, &new)),
            Err(BadChange::Base { base: 5, have: 4 })
        );
        // The same number, and other content, as after a master's state was put back.
        let other = Content::from_whole(change(0, &Truth::new(), 4, &truth(&["a", "b"], "2")));
        assert_eq!(
            other.expect("fits").changed(next.clone()),
            Err(BadChange::Digest)
        );
        assert!(first.changed(next).is_ok());
    }

    #[test]
    fn a_change_fits_what_has_been_changed_already() {
        let steps = [
            truth(&["a", "b"], "1"),
            truth(&["b", "c"], "2"),
            truth(&["c", "d"], "3"),
        ];
        let first = Content::from_whole(change(0, &Truth::new(), 1, &steps[0])).expect("fits");
        let last = change(1, &steps[0], 3, &steps[2]);
        let direct = first.clone().changed(last.clone()).expect("fits");
        let second = first
            .changed(change(1, &steps[0], 2, &steps[1]))
            .expect("fits");
        // As from one who has learnt nothing of the second; and once more.
        let mut last = last;
        last.removed.push("b".to_owned());
        let again = second.changed(last.clone()).expect("fits");
        assert_eq!(again, direct);
        assert_eq!(again.changed(last), Ok(direct));
    }

    #[test]
    fn what_is_garbled_is_refused() {
        let good = change(0, &Truth::new(), 1, &truth(&["a"], "1"));
        let mut garbled = good.clone();
        garbled.entries = vec![Bytes::from_static(b"\xff")];
        assert_eq!(Content::from_whole(garbled), Err(BadChange::Garbled));
        for name in ["", "a\"", "a\n", "a b"] {
            let mut named = good.clone();
            named.entries = vec![entry_of(name, &json!({}))];
            assert_eq!(
                Content::from_whole(named),
                Err(BadChange::Garbled),
                "{name:?}"
            );
        }
        for change in [
            |it: &mut ClusterFacts| it.ssh = "none".to_owned(),
            |it: &mut ClusterFacts| it.entries.clear(),
            |it: &mut ClusterFacts| it.digest.clear(),
        ] {
            let mut other = good.clone();
            change(&mut other);
            assert_eq!(Content::from_whole(other), Err(BadChange::Digest));
        }
    }

    #[test]
    fn what_is_nested_deeply_is_not_indented() {
        let mut value = json!([vec![1; 20_000]]);
        for _ in 0..100 {
            value = json!([value]);
        }
        let bytes = entry_of("a", &value);
        let written = value.to_string().len();
        assert!(bytes.len() < written + 100, "{} of {written}", bytes.len());
        let file = super::json([FactsEntry::decode(bytes).expect("an entry")].iter());
        let read: Value = serde_json::from_slice(&file).expect("JSON");
        assert_eq!(read["a"], value);
    }

    /// Another value here makes a new generation on every cluster at the first start of a new version.
    #[test]
    fn the_digest_stays_the_same() {
        let peer = Peer {
            name: "web1".to_owned(),
            hostname: "web1.example".to_owned(),
            addresses: vec!["10.0.0.1".to_owned()],
            ssh_host_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            public_keys: vec!["root key".to_owned()],
            main_user: "admin".to_owned(),
            user_keys: Vec::new(),
        };
        let entry = entry("web1", &json!({"name": "web1"}), peer);
        let digest = digest("root", [hash(&entry)].iter());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "2224037c579dfabdfd066c6626dc93aea236790c118fecd989ed69372c9f6320"
        );
    }
}
