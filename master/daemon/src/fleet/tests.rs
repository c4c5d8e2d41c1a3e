use aot_store::fleet::{ClusterOwner, FixedFleet, sample_view};

use super::*;

fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

fn finder(view: FleetView) -> (ClusterFinder, Arc<FixedFleet>) {
    let fleet = Arc::new(FixedFleet::new(view));
    (ClusterFinder::new(Some(fleet.clone())), fleet)
}

#[tokio::test]
async fn a_master_alone_has_every_cluster() {
    let alone = ClusterFinder::new(None);
    let found = alone.find(&name("web"), Duration::ZERO).await;
    assert_eq!(found, Whereabouts::Here);
    assert!(alone.is_alone() && alone.others().is_empty());
    assert_eq!(alone.cluster_of_route(&Route::of(&name("web"))).await, None);
}

#[tokio::test]
async fn each_cluster_is_found_with_its_master() {
    let (finder, _) = finder(sample_view("a", &[("web", "a"), ("db", "b"), ("old", "")]));
    let at = |cluster| finder.whereabouts(&name(cluster));
    assert_eq!(at("web"), Whereabouts::Here);
    assert!(matches!(at("db"), Whereabouts::Elsewhere(master) if master.id == "b"));
    assert_eq!(at("old"), Whereabouts::Nowhere);
    assert_eq!(at("none"), Whereabouts::Unknown);
    let others: Vec<_> = finder.others().into_iter().map(|it| it.id).collect();
    assert_eq!(others, ["b"]);
    let route = Route::of(&name("db"));
    assert_eq!(finder.cluster_of_route(&route).await, Some(name("db")));
}

#[test]
fn what_is_here_is_known_before_it_is_read() {
    let (finder, _) = finder(sample_view("a", &[("old", "a"), ("new", "b")]));
    finder.ask_here(|cluster| cluster.as_str() == "new");
    assert_eq!(finder.whereabouts(&name("new")), Whereabouts::Here);
    assert_eq!(finder.whereabouts(&name("old")), Whereabouts::Nowhere);
}

#[test]
fn what_another_says_it_has_taken_is_believed_until_more_is_read() {
    let (finder, fleet) = finder(sample_view("a", &[("web", "a"), ("db", "a")]));
    let web = name("web");
    finder.ask_here(|_| false);
    assert_eq!(finder.whereabouts(&web), Whereabouts::Nowhere);
    finder.note_taken(&web, "b", 7);
    assert!(matches!(finder.whereabouts(&web), Whereabouts::Elsewhere(it) if it.id == "b"));
    assert_eq!(finder.whereabouts(&name("db")), Whereabouts::Nowhere);
    fleet.change(|view| {
        let owner = view.owners.get_mut(&web).expect("is there");
        (owner.epoch, owner.master) = (8, String::new());
    });
    assert_eq!(finder.whereabouts(&web), Whereabouts::Nowhere);
    finder.note_taken(&web, "nobody/1", 9);
    assert_eq!(finder.whereabouts(&web), Whereabouts::Nowhere);
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_has_is_waited_for() {
    let (finder, fleet) = finder(sample_view("a", &[("web", "")]));
    let never = finder.find(&name("web"), Duration::from_secs(2)).await;
    assert_eq!(never, Whereabouts::Nowhere);
    let (web, within) = (name("web"), Duration::from_secs(20));
    let (found, ()) = tokio::join!(finder.find(&web, within), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet.change(|view| {
            let owner = ClusterOwner {
                master: "b".to_owned(),
                epoch: 2,
                ..ClusterOwner::default()
            };
            view.owners.insert(name("web"), owner);
        });
    });
    assert!(matches!(found, Whereabouts::Elsewhere(master) if master.id == "b"));
}

#[tokio::test]
async fn machines_are_given_this_masters_addresses_first_each_once_and_not_without_end() {
    let own = ["a:1".to_owned(), "lb:1".to_owned()];
    assert_eq!(ClusterFinder::new(None).addresses(&own), own);
    let (finder, fleet) = finder(sample_view("a", &[]));
    fleet.change(|view| {
        for (id, agents) in [("a", vec!["a:1"]), ("b", vec!["b:1", "lb:1", "b:1"])] {
            let master = view.masters.get_mut(id).expect("is there");
            master.says.agents = agents.into_iter().map(str::to_owned).collect();
        }
    });
    assert_eq!(finder.addresses(&own), ["a:1", "lb:1", "b:1"]);
    fleet.change(|view| {
        let many = (0..100).map(|n| format!("b:{n}")).collect();
        view.masters.get_mut("b").expect("is there").says.agents = many;
    });
    assert_eq!(finder.addresses(&own).len(), MAX_MASTERS);
    fleet.change(|view| view.masters.get_mut("b").expect("is there").is_alive = false);
    assert_eq!(finder.addresses(&own), own, "those that live");
}
