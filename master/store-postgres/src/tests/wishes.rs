//! Where clusters are to be: by operators, and by masters that have fewer than others.

use super::fleet::{join, name};
use super::*;

#[tokio::test]
async fn a_wish_for_a_cluster_and_a_drain_are_seen_by_all_until_they_are_met() {
    let Some(server) = server("wishes of operators") else {
        return;
    };
    let url = server.url(&server.database());
    let (a, b) = (join(Master::of(&url)).await, join(Master::of(&url)).await);
    let web = a.has("web").await;
    let id_of_b = b.fleet.view().borrow().me.clone();
    let (wish, none) = (name("web"), name("none"));
    assert!(b.fleet.prefer(&wish, &id_of_b).await.expect("asks"));
    assert!(!b.fleet.prefer(&none, &id_of_b).await.expect("asks"));
    a.fleet.refresh().await.expect("looks");
    let seen = a.fleet.view().borrow().owners[&wish].preferred.clone();
    assert_eq!(seen, id_of_b);
    a.fleet.give_back(&web.hold, false).await;
    b.has("web").await;
    b.fleet.refresh().await.expect("looks");
    let seen = b.fleet.view().borrow().owners[&wish].preferred.clone();
    assert_eq!(seen, "", "it is met");
    assert!(a.fleet.drain(&id_of_b, true).await.expect("asks"));
    assert!(!a.fleet.drain("nobody/1", true).await.expect("asks"));
    b.fleet.refresh().await.expect("looks");
    assert!(b.fleet.view().borrow().is_draining());
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_master_asks_for_what_no_operator_has_put_elsewhere() {
    let Some(server) = server("shares of masters") else {
        return;
    };
    let url = server.url(&server.database());
    let (a, b) = (join(Master::of(&url)).await, join(Master::of(&url)).await);
    let [id_of_a, id_of_b] = [&a, &b].map(|it| it.fleet.view().borrow().me.clone());
    let (web, wish) = (a.has("web").await, name("web"));
    assert!(
        !a.fleet.ask_for(&wish).await.expect("asks"),
        "it is its own"
    );
    assert!(b.fleet.ask_for(&wish).await.expect("asks"));
    assert!(!b.fleet.ask_for(&name("none")).await.expect("asks"));
    a.fleet.refresh().await.expect("looks");
    let seen = a.fleet.view().borrow().owners[&wish].clone();
    assert_eq!((&*seen.preferred, &*seen.placed), (&*id_of_b, ""));
    a.fleet.give_back(&web.hold, false).await;
    let web = b.has("web").await;
    // Put there by an operator, it stays there whoever asks, also when its master was away for a while.
    assert!(a.fleet.prefer(&wish, &id_of_b).await.expect("asks"));
    assert!(!a.fleet.ask_for(&wish).await.expect("asks"));
    b.fleet.give_back(&web.hold, false).await;
    let web = a.has("web").await;
    a.fleet.refresh().await.expect("looks");
    let seen = a.fleet.view().borrow().owners[&wish].clone();
    assert_eq!((&seen.master, &seen.placed), (&id_of_a, &id_of_b));
    a.fleet.give_back(&web.hold, false).await;
    // What has clones for machines is its host's, though that is not noted yet.
    let clones_of_a = a.has("c").await;
    let mut clones = cluster();
    clones.spec.provider = aot_model::spec::ProviderKind::Local;
    let changes = Changes {
        clusters: vec![clones],
        ..Changes::default()
    };
    let written = a.store.commit(&clones_of_a.hold, changes, Vec::new()).await;
    written.expect("commits");
    assert!(!b.fleet.ask_for(&name("c")).await.expect("asks"));
    a.close().await;
    b.close().await;
}
