//! Connections of machines to two masters, of which each has some clusters.

use aot_store::fleet::{FixedFleet, sample_view};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::fake_fleet::{
    FakeFleet, PATIENCE, asked, get_request, give, join_key, name, sni,
};
use super::super::strangers::ConnectionLimits;
use super::*;

const OWNERS: &[(&str, &str)] = &[("web", "a"), ("db", "b"), ("old", "")];

/// No test is given that port.
const NO_PORT: &str = "127.0.0.1:1";

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

async fn fleet() -> FakeFleet {
    FakeFleet::new(OWNERS, ConnectionLimits::of(1024)).await
}

/// Who answers a connection that names this server; none when it is closed.
async fn who(fleet: &FakeFleet, door: &str, server_name: &str) -> Option<String> {
    let answer = fleet
        .ask(door, server_name, &get_request("/who", ""))
        .await?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

#[tokio::test]
async fn each_connection_gets_to_the_master_that_has_its_cluster_with_the_machines_address() {
    let fleet = fleet().await;
    for (door, server_name, wanted) in [
        ("a", sni("web"), "a 127.0.0.1 false"),
        ("a", sni("db"), "b 127.0.0.1 true"),
        ("b", sni("web"), "a 127.0.0.1 true"),
        ("b", sni("db"), "b 127.0.0.1 false"),
        // Of a machine that knows no route.
        ("b", "master.example".to_owned(), "b 127.0.0.1 false"),
    ] {
        let answer = who(&fleet, door, &server_name).await;
        assert_eq!(answer.as_deref(), Some(wanted), "{door} {server_name}");
    }
    let stream = fleet.dial("a", [127, 0, 0, 9], &sni("db")).await;
    let answer = asked(stream.expect("connects"), &get_request("/who", "")).await;
    let answer = answer.expect("is answered");
    assert!(answer.ends_with("b 127.0.0.9 true"), "{answer}");
}

#[tokio::test]
async fn a_cluster_that_nobody_has_is_waited_for_and_not_without_end() {
    let fleet = fleet().await;
    let began = Instant::now();
    assert_eq!(who(&fleet, "a", &sni("old")).await, None);
    assert!(began.elapsed() >= PATIENCE);
    assert_eq!(
        who(&fleet, "a", &sni("none")).await,
        None,
        "there is no such cluster"
    );
    for (owner, wanted) in [("b", "b 127.0.0.1 true"), ("a", "a 127.0.0.1 false")] {
        fleet.change(|view| give(view, "old", ""));
        let old = sni("old");
        let (answer, ()) = tokio::join!(who(&fleet, "a", &old), async {
            tokio::time::sleep(PATIENCE / 5).await;
            fleet.change(|view| give(view, "old", owner));
        });
        assert_eq!(answer.as_deref(), Some(wanted));
    }
}

#[tokio::test]
async fn what_was_passed_on_once_is_passed_on_no_further_and_soon_told_so() {
    let fleet = fleet().await;
    // Each takes the other for the owner.
    fleet.master("a").fleet.change(|view| give(view, "db", "b"));
    fleet.master("b").fleet.change(|view| give(view, "db", "a"));
    let began = Instant::now();
    assert_eq!(who(&fleet, "a", &sni("db")).await, None);
    assert!(began.elapsed() >= PATIENCE / MOVED_PART);
    assert!(began.elapsed() < PATIENCE, "it dials again sooner");
    // The one that it was passed on to learns of its own cluster a little later.
    let db = sni("db");
    let (answer, ()) = tokio::join!(who(&fleet, "a", &db), async {
        tokio::time::sleep(PATIENCE / MOVED_PART / 5).await;
        fleet.master("b").fleet.change(|view| give(view, "db", "b"));
    });
    assert_eq!(answer.as_deref(), Some("b 127.0.0.1 true"));
}

#[tokio::test]
async fn a_master_that_does_not_answer_is_tried_at_its_next_address() {
    let fleet = fleet().await;
    fleet.change(|view| {
        let b = view.masters.get_mut("b").expect("is there");
        b.says.agents.insert(0, NO_PORT.to_owned());
    });
    let answer = who(&fleet, "a", &sni("db")).await;
    assert_eq!(answer.as_deref(), Some("b 127.0.0.1 true"));
}

#[tokio::test]
async fn a_connection_for_a_master_that_died_waits_for_the_next_one() {
    let fleet = fleet().await;
    for addresses in [vec![NO_PORT.to_owned()], Vec::new()] {
        fleet.change(|view| {
            give(view, "db", "b");
            let b = view.masters.get_mut("b").expect("is there");
            b.says.agents.clone_from(&addresses);
        });
        let began = Instant::now();
        assert_eq!(who(&fleet, "a", &sni("db")).await, None);
        assert!(began.elapsed() >= PATIENCE, "it is held until then");
        let db = sni("db");
        let (answer, ()) = tokio::join!(who(&fleet, "a", &db), async {
            tokio::time::sleep(PATIENCE / 3).await;
            fleet.change(|view| give(view, "db", "a"));
        });
        assert_eq!(answer.as_deref(), Some("a 127.0.0.1 false"));
    }
}

#[tokio::test]
async fn a_master_that_is_there_again_is_dialled_again() {
    let fleet = Arc::new(FixedFleet::new(sample_view("a", OWNERS)));
    let guide = Guide::new(ClusterFinder::new(Some(fleet)), &join_key());
    let (began, until) = (Instant::now(), guide.deadline());
    guide.after_refusal(&name("db"), "b", until).await;
    assert!(began.elapsed() >= DIAL_AGAIN && Instant::now() < until);
    // Of a cluster that another one has there is nothing to wait for.
    let began = Instant::now();
    guide.after_refusal(&name("web"), "b", until).await;
    assert!(began.elapsed() < LOOK_AGAIN);
}

/// What a master answers a connection that begins with this header, and then as that of a machine.
async fn behind(fleet: &FakeFleet, header: &[u8]) -> Option<String> {
    let address = fleet.master("b").address;
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(header).await.expect("writes");
    let config = super::super::owner_tls::client(&fleet.ca).expect("is the authority's");
    let server_name = rustls_pki_types::ServerName::try_from(sni("db")).expect("a name");
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector.connect(server_name, stream).await.ok()?;
    let answer = asked(stream, &get_request("/who", "")).await?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[tokio::test]
async fn only_a_master_of_the_fleet_can_say_whose_a_connection_is() {
    let fleet = fleet().await;
    let machine = "10.9.8.7:1234".parse().expect("an address");
    let header = |key: &JoinKey, at_ms| {
        let door = fleet.master("a").address;
        proxy_header::written(machine, door, &proxy_header::key(key), at_ms)
    };
    let ours = behind(&fleet, &header(&join_key(), now_ms())).await;
    assert_eq!(ours.as_deref(), Some("b 10.9.8.7 true"));
    let theirs = JoinKey::new(&[2; 32]);
    for (what, header) in [
        ("forged", header(&theirs, now_ms())),
        ("old", header(&join_key(), now_ms() - 120_000)),
        ("twice", header(&join_key(), now_ms()).repeat(2)),
        (
            "in text",
            b"PROXY TCP4 10.9.8.7 10.0.0.1 1234 7440\r\n".to_vec(),
        ),
    ] {
        assert_eq!(behind(&fleet, &header).await, None, "{what}");
    }
}

#[tokio::test]
async fn machines_that_come_by_another_master_have_a_share_each() {
    let limits = ConnectionLimits {
        of_one: 1,
        ..ConnectionLimits::of(1024)
    };
    let fleet = FakeFleet::new(OWNERS, limits).await;
    let mut streams = Vec::new();
    for last in 2..6 {
        let stream = fleet.dial("a", [127, 0, 0, last], &sni("db")).await;
        streams.push(stream.expect("connects"));
    }
    for stream in streams {
        let answer = asked(stream, &get_request("/who", "")).await;
        assert!(answer.is_some(), "it had to go for another machine");
    }
}

#[tokio::test]
async fn where_too_many_are_passed_on_the_newest_waits() {
    let limits = ConnectionLimits {
        passed_on: 2,
        ..ConnectionLimits::of(1024)
    };
    let fleet = FakeFleet::new(OWNERS, limits).await;
    let mut streams = Vec::new();
    for last in [1, 2] {
        let stream = fleet.dial("a", [127, 0, 0, last], &sni("db")).await;
        streams.push(stream.expect("connects"));
    }
    let began = Instant::now();
    assert_eq!(who(&fleet, "a", &sni("db")).await, None);
    assert!(began.elapsed() >= PATIENCE);
    let first = streams.remove(0);
    let db = sni("db");
    let (late, ()) = tokio::join!(who(&fleet, "a", &db), async {
        tokio::time::sleep(PATIENCE / 5).await;
        drop(first);
    });
    assert_eq!(late.as_deref(), Some("b 127.0.0.1 true"));
    let second = asked(streams.remove(0), &get_request("/who", "")).await;
    assert!(second.is_some(), "nobody had to go");
}

#[tokio::test]
async fn a_master_that_stops_ends_what_it_passes_on_and_leaves_no_task() {
    let fleet = fleet().await;
    let stream = fleet.dial("a", [127, 0, 0, 1], &sni("db")).await;
    let mut stream = stream.expect("connects");
    let a = fleet.master("a");
    a.stop.cancel();
    a.tasks.close();
    let mut end = [0];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut end)).await;
    assert!(!matches!(read.expect("in time"), Ok(1..)));
    let ended = tokio::time::timeout(LIMIT, a.tasks.wait()).await;
    ended.expect("all of them have ended");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_no_hello_is_hung_up_on() {
    let fleet = fleet().await;
    for said in [&b""[..], b"\x16\x03\x01\x02", b"\r\n\r\n\0\r\nQUIT"] {
        let address = fleet.master("a").address;
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(said).await.expect("writes");
        let read = stream.read(&mut [0]).await;
        assert!(!matches!(read, Ok(1..)), "{said:?}");
    }
}

#[tokio::test]
async fn a_master_alone_serves_every_route_itself() {
    let guide = Guide::new(ClusterFinder::new(None), &join_key());
    let route = Route::of(&name("web"));
    assert_eq!(guide.cluster(Some(&route)).await, None);
    assert!(guide.is_here(&name("web")));
}

#[tokio::test]
async fn an_idle_connection_that_is_passed_on_is_small() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.as_ref().expect("binds").local_addr();
    let dial = async || TcpStream::connect(address.as_ref().expect("is bound")).await;
    let strangers = super::super::strangers::Strangers::new(ConnectionLimits::of(1024));
    let place = strangers.enter([127, 0, 0, 1].into());
    let (stay, evicted) = place.expect("there is room");
    let passed = Passed {
        machine: dial().await.expect("connects"),
        owner: dial().await.expect("connects"),
        stay,
        evicted,
    };
    // Beside it: what `copy_both` holds, and some 1 KiB of places in tables, timers and queues.
    let size = size_of_val(&passed.run(CancellationToken::new()));
    assert!(size < 1536, "{size}");
}
