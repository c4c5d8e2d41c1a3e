use aot_store::fleet::sample_view;

use super::*;

fn cluster(name: &str) -> v1::ClusterView {
    v1::ClusterView {
        name: name.to_owned(),
        ..v1::ClusterView::default()
    }
}

#[test]
fn what_masters_say_is_in_the_order_of_their_clusters_names() {
    let reply = |names: &[&str], note: &str| v1::StatusReply {
        clusters: names.iter().map(|name| cluster(name)).collect(),
        instances: names
            .iter()
            .map(|name| v1::InstanceView {
                cluster: (*name).to_owned(),
                ..v1::InstanceView::default()
            })
            .collect(),
        notes: vec![note.to_owned()],
        ..v1::StatusReply::default()
    };
    let others = vec![("b/1".to_owned(), reply(&["db", "zoo"], "full"))];
    let all = merged(reply(&["web"], "own"), others, vec!["left out".to_owned()]);
    let names: Vec<_> = all.clusters.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["db", "web", "zoo"]);
    let of: Vec<_> = all.instances.iter().map(|it| it.cluster.as_str()).collect();
    assert_eq!(of, names);
    assert_eq!(all.notes, ["own", "b/1: full"]);
    assert_eq!(all.absent, ["left out"]);
}

#[test]
fn who_did_not_answer_is_named_with_what_is_left_out() {
    let mut view = sample_view("a", &[("web", "a"), ("db", "b"), ("zoo", "b"), ("old", "")]);
    let silent = [("b".to_owned(), "late".to_owned())];
    let lines = absent(&view, &silent);
    assert_eq!(
        lines,
        [
            "the master b did not answer (late): its clusters are left out: db, zoo",
            "left out, as no master that lives has them at the moment: old",
        ]
    );
    assert_eq!(absent(&view, &[]).len(), 1, "only what nobody has");
    view.masters.get_mut("b").expect("is there").is_alive = false;
    let lines = absent(&view, &[]);
    assert!(lines[0].ends_with("db, old, zoo"), "{lines:?}");
}

#[test]
fn a_master_of_another_build_may_not_know_requests_that_are_repeated() {
    let mut view = sample_view("a", &[]);
    assert!(are_alike(&view));
    let b = view.masters.get_mut("b").expect("is there");
    b.says.build = "0.2.0".to_owned();
    assert!(!are_alike(&view));
    view.masters.get_mut("b").expect("is there").is_alive = false;
    assert!(are_alike(&view), "it is gone");
}
