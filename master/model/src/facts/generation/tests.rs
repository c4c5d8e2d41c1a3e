//! Whatever happened between two generations, a change makes the one of the other, and tells what is needed alone.

use aot_proto::facts::{Content, Joiner};
use aot_proto::limits::MAX_CLUSTER_FACTS_BYTES;
use proptest::prelude::*;
use prost::Message;
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
        node: json!({"text": text}).into(),
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
        let mut agents = vec![Content::from_whole(received(&published.pieces(0))).expect("fits")];
        for (at, step) in steps.into_iter().enumerate() {
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
            let whole = Content::from_whole(received(&published.pieces(0))).expect("fits");
            // Some miss this step, and some of those the next ones as well.
            for agent in agents.iter_mut().skip(at % 3).step_by(3) {
                let base = agent.message().generation;
                if base < published.number {
                    *agent = agent.clone().changed(received(&published.pieces(base))).expect("fits");
                }
                prop_assert_eq!(&*agent, &whole);
            }
            agents.push(whole);
        }
        let whole = Content::from_whole(received(&published.pieces(0))).expect("fits");
        for agent in agents {
            let base = agent.message().generation;
            let last = match base < published.number {
                true => agent.changed(received(&published.pieces(base))).expect("fits"),
                false => agent,
            };
            prop_assert_eq!(&last, &whole);
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
    let change = received(&published.pieces(4));
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
    let change = received(&published.pieces(4));
    assert_eq!((change.entries.len(), change.removed.len()), (2, 0));
    assert!(change.complete);
    assert!(!published.renew(&cluster, None), "nothing has changed");
    // Keys are part of each entry.
    cluster.spec.ssh = crate::spec::SshAccess::None;
    assert!(published.renew(&cluster, None));
    let change = received(&published.pieces(6));
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
    let base = |published: &mut Generation, has: u64| received(&published.pieces(has)).base;
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
        let told_from = received(&published.pieces(base)).base;
        assert!(told_from <= base);
        assert_eq!(
            told_from == 0,
            base < published.since,
            "{base} from {told_from}"
        );
    }
    assert!(published.packed.len() <= CHANGES + 1, "and the whole");
    // From before the first that is remembered, nothing is left out.
    let whole = received(&published.pieces(0));
    assert_eq!(received(&published.pieces(1)), whole);
    published.unpack();
    assert!(published.packed.is_empty());
}

#[test]
fn what_is_packed_is_shared() {
    let mut cluster = cluster_of(&["a", "b"]);
    let mut published = Generation::of(&cluster, 1);
    let first = published.pieces(0);
    assert!(Pieces::ptr_eq(&first, &published.pieces(0)));
    set(&mut cluster, "a", Some("new"));
    assert!(published.renew(&cluster, None));
    assert!(!Pieces::ptr_eq(&first, &published.pieces(0)));
}

#[test]
fn who_is_missing_belongs_to_a_generation_as_its_entries_do() {
    let mut cluster = samples::cluster();
    let wanted = |cluster: &Cluster| {
        cluster
            .wanted()
            .map(|it| it.name.to_string())
            .collect::<BTreeSet<_>>()
    };
    let mut published = Generation::of(&cluster, 1);
    let told = |published: &mut Generation| {
        let facts = received(&published.pieces(0));
        assert_eq!(facts.complete, facts.missing.is_empty());
        let has = Content::from_whole(facts.clone()).expect("fits");
        let has = has.peers().map(|peer| peer.name.clone());
        has.chain(facts.missing).collect::<BTreeSet<_>>()
    };
    assert_eq!(told(&mut published), wanted(&cluster));
    // One more has facts, and is in no generation yet: it is still said to be missing.
    let name = published.missing[0].clone();
    let like = cluster
        .instances
        .values()
        .find(|it| counts(it))
        .cloned()
        .expect("one has facts");
    let instance = cluster
        .instances
        .get_mut(&name.parse().expect("a name"))
        .expect("is there");
    (instance.machine, instance.facts) = (like.machine, like.facts);
    assert!(received(&published.pieces(0)).missing.contains(&name));
    assert!(published.renew(&cluster, None));
    assert!(!received(&published.pieces(0)).missing.contains(&name));
    assert_eq!(told(&mut published), wanted(&cluster));
}

/// With facts of 4 KiB each, and none that can be packed, an agent takes those of the largest cluster with as much again.
#[test]
fn the_cluster_facts_of_the_largest_cluster_are_taken() {
    const LARGEST: u64 = 20_000;
    let mut cluster = cluster_of(&["a"]);
    set(&mut cluster, "a", Some(&"t".repeat(4 << 10)));
    let whole = Generation::of(&cluster, 1).change(0).encoded_len() as u64 * LARGEST;
    assert!(whole < MAX_CLUSTER_FACTS_BYTES / 2, "{whole} bytes");
}
