//! A door and an owner over real sockets: what is passed on arrives as it was sent, and nothing else does.

mod fake;
mod rig;

use std::sync::Arc;
use std::time::Duration;

use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::v1::{self, job_event, shell_input, shell_output};
use aot_store::fleet::{FixedFleet, sample_view};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use super::*;
use crate::fleet::ClusterFinder;
use crate::server::peer::tests::{authority, master};

use fake::Fake;
pub(crate) use fake::asked_for;
pub(crate) use rig::Owner;
use rig::{both, door, led_to, peers};

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(120);

fn db_is_with(fleet: &FixedFleet, master: &str) {
    let db: ClusterName = "db".parse().expect("a name");
    fleet.change(|view| view.owners.get_mut(&db).expect("is there").master = master.to_owned());
}

fn of<T>(cluster: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    headers::set(request.metadata_mut(), headers::CLUSTER, cluster);
    request
}

fn facts(target: &str) -> v1::TargetRequest {
    v1::TargetRequest {
        target: Some(target.to_owned()),
        ..v1::TargetRequest::default()
    }
}

fn exec(target: &str) -> v1::ExecRequest {
    v1::ExecRequest {
        target: target.to_owned(),
        ..v1::ExecRequest::default()
    }
}

fn data(event: v1::JobEvent) -> Vec<u8> {
    match event.body {
        Some(job_event::Body::Output(output)) => output.data.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Waits until the owner has seen so many calls being given up.
async fn dropped(fake: &Fake, count: usize) {
    let mut seen = fake.dropped.subscribe();
    let seen = tokio::time::timeout(LIMIT, seen.wait_for(|seen| *seen == count));
    seen.await.expect("in time").expect("it lives");
}

#[tokio::test]
async fn a_call_goes_to_the_master_that_has_its_cluster_with_the_operators_name() {
    let (mut door, _owner) = both().await;
    let own = crate::server::operator_name::own().await;
    for (cluster, by, want) in [
        ("web", "a", own.clone()),
        ("db", "b", format!("{own} at a")),
        ("none", "a", own.clone()),
    ] {
        let mut request = of(cluster, facts("who"));
        // It is not for an operator to say who it is.
        headers::set(request.metadata_mut(), headers::OPERATOR, "root at b");
        let reply = door.client.facts(request).await.expect("is answered");
        assert_eq!(
            fake::who(reply.into_inner()),
            (want, by.to_owned()),
            "{cluster}"
        );
    }
}

#[tokio::test]
async fn without_a_name_the_only_cluster_is_meant_and_a_masters_own_calls_stay() {
    let (mut door, _owner) = both().await;
    let mut asked = async || {
        let reply = door.client.facts(facts("who")).await.expect("is answered");
        fake::who(reply.into_inner()).1
    };
    assert_eq!(asked().await, "a", "two clusters: the service says so");
    door.fleet
        .change(|view| drop(view.owners.remove(&"web".parse().expect("a name"))));
    assert_eq!(asked().await, "b");
    for path in [
        "Info",
        "Jobs",
        "Orphans",
        "DeleteOrphans",
        "ApiCalls",
        "Masters",
        "TakenOver",
        "MoveCluster",
        "DrainMaster",
    ] {
        assert_eq!(
            concern(&format!("/aot.v1.Operator/{path}")),
            Concern::Master
        );
    }
    for path in [
        "Exec",
        "Shell",
        "Forward",
        "Tunnel",
        "Upload",
        "Follow",
        "Logs",
        "Cleanup",
        "LastLines",
    ] {
        assert_eq!(
            concern(&format!("/aot.v1.Operator/{path}")),
            Concern::OneCluster
        );
    }
}

#[tokio::test]
async fn streams_of_either_side_are_passed_on_as_they_come() {
    let (mut door, _owner) = both().await;
    let events = door
        .client
        .exec(of("db", exec("all")))
        .await
        .expect("begins");
    let all: Vec<_> = events
        .into_inner()
        .map(|it| data(it.expect("comes")))
        .collect()
        .await;
    assert_eq!(all, [b"one", b"two"]);

    let piece = v1::UploadChunk {
        data: vec![7; 1 << 20].into(),
    };
    let pieces = tokio_stream::iter(vec![piece; 9]);
    let reply = door
        .client
        .upload(of("db", pieces))
        .await
        .expect("is taken")
        .into_inner();
    assert_eq!((reply.sha256.as_str(), reply.bytes), ("b", 9 << 20));

    let (typed, input) = mpsc::channel(1);
    let shell = door
        .client
        .shell(of("db", ReceiverStream::new(input)))
        .await;
    let mut shown = shell.expect("begins").into_inner();
    for text in [&b"ls"[..], b"exit"] {
        let body = Some(shell_input::Body::Data(text.to_vec()));
        typed.send(v1::ShellInput { body }).await.expect("is read");
        let back = shown
            .message()
            .await
            .expect("comes")
            .expect("a message")
            .body;
        assert_eq!(back, Some(shell_output::Body::Data(text.to_vec())));
    }
    drop(typed);
    assert!(shown.message().await.expect("ends well").is_none());
}

#[tokio::test]
async fn refusals_keep_their_code_text_and_details() {
    let (mut door, _owner) = both().await;
    let at_once = door.client.facts(of("db", facts("refuse"))).await;
    let at_once = at_once.expect_err("is refused");
    let mut events = door
        .client
        .exec(of("db", exec("refuse")))
        .await
        .expect("begins")
        .into_inner();
    for _ in 0..2 {
        events.message().await.expect("comes").expect("an event");
    }
    let later = events.message().await.expect_err("is refused");
    for status in [at_once, later] {
        assert_eq!(
            (status.code(), status.message()),
            (Code::Aborted, "in the middle: \u{e9}")
        );
        assert_eq!(status.details(), fake::DETAILS);
    }
}

#[tokio::test]
async fn what_is_given_up_is_given_up_at_the_owner() {
    let (mut door, owner) = both().await;
    let mut events = door
        .client
        .exec(of("db", exec("endless")))
        .await
        .expect("begins")
        .into_inner();
    events.message().await.expect("comes").expect("an event");
    drop(events);
    dropped(&owner.fake, 1).await;

    let mut never = of("db", facts("never"));
    never.set_timeout(Duration::from_millis(200));
    let late = door.client.facts(never).await.expect_err("is late");
    assert!(
        matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{late:?}"
    );
    dropped(&owner.fake, 2).await;
}

/// As when an operator stops the command line for a while.
#[tokio::test]
async fn small_pieces_that_nobody_reads_break_nothing() {
    let ca = authority();
    let owner = Owner::start(&ca, "b", &[]).await;
    let mut other = OperatorClient::new(peers(&ca, "a").channel(master("b", owner.port), "uid 0"));
    let events = other.exec(exec("many")).await.expect("begins").into_inner();
    let mut sent = owner.fake.sent.subscribe();
    let sent = tokio::time::timeout(LIMIT, sent.wait_for(|sent| *sent == fake::MANY));
    sent.await.expect("in time").expect("it lives");
    let all: Vec<_> = events.collect().await;
    assert_eq!(all.len(), 2 + fake::MANY);
    assert!(all.iter().all(Result::is_ok), "{:?}", all.last());
}

#[tokio::test]
async fn what_another_master_has_passed_on_is_never_passed_on_again() {
    let ca = authority();
    // It knows nothing of having the cluster, or knows better.
    let owner = Owner::start(&ca, "b", &[("db", "a"), ("web", "a")]).await;
    let mut door = door(&ca, owner.port).await;
    let moved = door
        .client
        .facts(of("db", facts("who")))
        .await
        .expect_err("is refused");
    assert!(status::is_moved(&moved), "{moved:?}");
    db_is_with(&owner.fleet, "b");
    let reply = door
        .client
        .facts(of("db", facts("who")))
        .await
        .expect("is answered");
    assert_eq!(fake::who(reply.into_inner()).1, "b");
    assert_eq!(*door.fake.dropped.borrow(), 0);
}

#[tokio::test]
async fn a_master_is_not_stopped_by_way_of_another() {
    let ca = authority();
    let owner = Owner::start(&ca, "b", &[]).await;
    let mut other = OperatorClient::new(peers(&ca, "a").channel(master("b", owner.port), "uid 0"));
    let refused = other.shutdown(v1::ShutdownRequest {}).await;
    assert_eq!(
        refused.expect_err("is refused").code(),
        Code::PermissionDenied
    );
    other
        .info(v1::InfoRequest::default())
        .await
        .expect("is answered");
}

#[tokio::test]
async fn a_broken_way_is_told_with_the_master_and_the_way_out() {
    let ca = authority();
    let owner = Owner::start(&ca, "b", &[("db", "b")]).await;
    let (port, way) = led_to(owner.port).await;
    let mut door = door(&ca, port).await;
    let events = door.client.exec(of("db", exec("endless"))).await;
    let mut events = events.expect("begins").into_inner();
    for _ in 0..2 {
        events.message().await.expect("comes").expect("an event");
    }
    drop(way);
    let broken = tokio::time::timeout(LIMIT, events.message()).await;
    let broken = broken.expect("in time").expect_err("breaks");
    assert_eq!(broken.code(), Code::Unavailable, "{broken:?}");
    assert!(status::is_owner_gone(&broken), "{broken:?}");
    assert!(broken.message().contains("the master b"), "{broken:?}");
    // The connection that was kept is of no use either, and that is told too.
    let refused = door.client.facts(of("db", facts("who"))).await;
    let refused = refused.expect_err("is not reached");
    assert!(refused.message().contains("is not reached"), "{refused:?}");
    assert!(status::is_owner_gone(&refused), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nobody_has_is_waited_for_and_then_told() {
    let ways = |owners: &[(&str, &str)], change: fn(&mut aot_store::fleet::FleetView)| {
        let mut view = sample_view("a", owners);
        change(&mut view);
        let finder = ClusterFinder::new(Some(Arc::new(FixedFleet::new(view))));
        Ways {
            finder,
            peers: None,
        }
    };
    let db = "db".parse().expect("a name");
    let nobodys = ways(&[("db", "")], |_| {});
    let begun = tokio::time::Instant::now();
    let status = nobodys.elsewhere(&db).await.expect_err("is refused");
    assert_eq!(begun.elapsed().as_secs(), 20);
    assert!(
        status.message().starts_with("no master has cluster db"),
        "{status:?}"
    );
    assert!(status::is_owner_gone(&status), "{status:?}");
    let silent = ways(&[("db", "b")], |view| {
        view.masters.get_mut("b").expect("is there").is_alive = false;
    });
    let status = silent.elsewhere(&db).await.expect_err("is refused");
    assert!(
        status
            .message()
            .starts_with("the master b, which has cluster db"),
        "{status:?}"
    );
    let keyless = ways(&[("db", "b")], |_| {});
    let master = keyless
        .elsewhere(&db)
        .await
        .expect("lives")
        .expect("another");
    let status = keyless.client(master, "uid 0").err().expect("no way");
    assert!(status.message().contains("AOT_FLEET_KEY"), "{status:?}");
}
