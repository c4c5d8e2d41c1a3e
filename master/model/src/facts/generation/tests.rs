//! Whatever happened between two generations, a change makes the one of the other, and tells what is needed alone.

use aot_proto::facts::{Content, Joiner};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::facts::digest;
use crate::instance::NodeFacts;
use crate::samples;

fn received(pieces: &Pieces) -> v1::ClusterFacts {
    let mut joiner = Joiner::default();
    let joined = pieces
        .iter()
        .map(|piece| joiner.step(piece).expect("follows"));
    joined.flatten().last().expect("it is whole")
}

fn facts(text: &str) -> NodeFacts {
    NodeFacts {
        node: json!({"text": text}),
        root_public_key: "root's".to_owned(),
        ..samples::node_facts()
    }
}

/// A cluster of instances that run, of which these have facts.
fn cluster_of(names: &[&str]) -> Cluster {
    let mut cluster = samples::cluster();
    let like = cluster.instances.values().find(|it| counts(it)).cloned();
    let like = like.expect("one has facts");
    cluster.instances.clear();
    for name in names {
        let mut instance = like.clone();
        instance.name = name.parse().expect("a name");
        instance.facts = Some(facts("old").into());
        cluster.instances.insert(instance.name.clone(), instance);
    }
    cluster
}

fn set(cluster: &mut Cluster, name: &str, text: Option<&str>) {
    let name: InstanceName = name.parse().expect("a name");
    let instance = cluster.instances.get_mut(&name).expect("is there");
    instance.facts = text.map(|text| facts(text).into());
}

fn names(names: &[&str]) -> BTreeSet<InstanceName> {
    names
        .iter()
        .map(|name| name.parse().expect("a name"))
        .collect()
}

proptest! {
    /// A step sets or takes away facts of some instances; whether the master is told which does not matter.
    #[test]
    fn a_change_from_any_generation_comes_to_the_newest(
        steps in prop::collection::vec(prop::collection::vec((0..5usize, prop::option::of(0..3u8)), 1..4), 1..12),
        told in any::<bool>(),
    ) {
        let all = ["a", "b", "c", "d", "e"];
        let mut cluster = cluster_of(&all);
        let mut published = Generation::of(&cluster, 1);
        let mut agents = vec![Content::from_whole(received(&published.pieces(0, &[]))).expect("fits")];
        for step in steps {
            let mut touched = Vec::new();
            for (which, text) in step {
                let text = text.map(|text| text.to_string());
                set(&mut cluster, all[which], text.as_deref());
                touched.push(all[which]);
            }
            let touched = names(&touched);
            let before = published.digest();
            let renewed = published.renew(&cluster, told.then_some(&touched));
            prop_assert_eq!(renewed, before != published.digest());
            prop_assert_eq!(published.digest(), digest(&cluster));
            let whole = Content::from_whole(received(&published.pieces(0, &[]))).expect("fits");
            for agent in &mut agents {
                let base = agent.message().generation;
                if base < published.number {
                    *agent = agent.clone().changed(received(&published.pieces(base, &[]))).expect("fits");
                }
                prop_assert_eq!(&*agent, &whole);
            }
            // Half of them miss this step.
            let behind = agents.len() / 2;
            agents.truncate(behind.max(1));
            agents.push(whole);
        }
    }
}

#[test]
fn a_change_tells_what_has_changed_and_nothing_else() {
    let mut cluster = cluster_of(&["a", "b", "c", "d"]);
    let mut published = Generation::of(&cluster, 4);
    set(&mut cluster, "b", Some("new"));
    set(&mut cluster, "c", None);
    assert!(published.renew(&cluster, Some(&names(&["a", "b", "c"]))));
    let change = received(&published.pieces(4, &["c".to_owned()]));
    assert_eq!((change.base, change.generation), (4, 5));
    assert_eq!(
        (change.entries.len(), &change.removed[..]),
        (1, &["c".to_owned()][..])
    );
    assert_eq!(
        (change.complete, &change.missing[..]),
        (false, &["c".to_owned()][..])
    );
    // It came back before anybody asked: it is an entry like any other.
    set(&mut cluster, "c", Some("old"));
    assert!(published.renew(&cluster, Some(&names(&["c"]))));
    let change = received(&published.pieces(4, &[]));
    assert_eq!((change.entries.len(), change.removed.len()), (2, 0));
    assert!(change.complete);
    assert!(!published.renew(&cluster, None), "nothing has changed");
    // Keys are part of each entry.
    cluster.spec.ssh = crate::spec::SshAccess::None;
    assert!(published.renew(&cluster, None));
    let change = received(&published.pieces(6, &[]));
    assert_eq!((change.ssh.as_str(), change.entries.len()), ("none", 4));
}

#[test]
fn whoever_has_another_generation_is_sent_the_whole() {
    let mut cluster = cluster_of(&["a"]);
    let mut published = Generation::of(&cluster, 40);
    for text in 0..3 {
        set(&mut cluster, "a", Some(&text.to_string()));
        assert!(published.renew(&cluster, None));
    }
    let base = |published: &mut Generation, has: u64| received(&published.pieces(has, &[])).base;
    assert_eq!(
        [0, 39, 43, 44, u64::MAX].map(|has| base(&mut published, has)),
        [0; 5]
    );
    assert_eq!(
        [40, 41, 42].map(|has| base(&mut published, has)),
        [40, 41, 42]
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut cluster = cluster_of(&["a", "b"]);
    let mut published = Generation::of(&cluster, 1);
    let like = cluster
        .instances
        .values()
        .next()
        .cloned()
        .expect("there is one");
    for n in 0..100 {
        let mut instance = like.clone();
        instance.name = format!("n{n}").parse().expect("a name");
        let name = instance.name.clone();
        cluster.instances.insert(name.clone(), instance);
        assert!(published.renew(&cluster, None));
        cluster.instances.remove(&name);
        assert!(published.renew(&cluster, None));
    }
    assert!(published.removed.len() <= published.len() + CHANGES);
    let newest = published.number;
    for base in 1..newest {
        published.pieces(base, &[]);
    }
    assert!(published.packed.len() <= CHANGES + 1, "and the whole");
    // From before the first that is remembered, nothing is left out.
    let whole = received(&published.pieces(0, &[]));
    assert_eq!(received(&published.pieces(1, &[])), whole);
    published.unpack();
    assert!(published.packed.is_empty());
}

#[test]
fn what_is_packed_is_shared_until_it_says_something_else() {
    let cluster = cluster_of(&["a", "b"]);
    let mut published = Generation::of(&cluster, 1);
    let first = published.pieces(0, &[]);
    assert!(Pieces::ptr_eq(&first, &published.pieces(0, &[])));
    let missing = ["c".to_owned()];
    let other = published.pieces(0, &missing);
    assert_eq!(received(&other).missing, missing);
    assert!(!Pieces::ptr_eq(&first, &other));
}
