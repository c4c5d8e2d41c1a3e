//! Requests of boot scripts, which name their cluster in a header.

use super::super::fake_fleet::{FakeFleet, LONG, get_request, give, name};
use super::super::strangers::ConnectionLimits;
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OWNERS: &[(&str, &str)] = &[("web", "a"), ("db", "b"), ("old", "")];

/// Boot scripts name no route in TLS.
const HOST_NAME: &str = "master.example";

async fn fleet() -> FakeFleet {
    FakeFleet::new(OWNERS, ConnectionLimits::of(1024)).await
}

fn route(cluster: &str) -> String {
    format!("X-Aot-Route: {}\r\n", Route::of(&name(cluster)))
}

fn report(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/boot HTTP/1.1\r\nHost: m\r\nConnection: close\r\nAuthorization: Bearer 70ken\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_report_gets_to_the_master_that_has_its_cluster_with_the_machines_address() {
    let fleet = fleet().await;
    for (headers, by) in [
        (route("db"), "b"),
        (route("web"), "a"),
        (String::new(), "a"),
        // As with a token that is not known: it is for the one who was asked to say so.
        (route("none"), "a"),
        ("X-Aot-Route: ../etc\r\n".to_owned(), "a"),
    ] {
        let answer = fleet.ask("a", HOST_NAME, &report(&headers, "{}")).await;
        let answer = answer.expect("is answered");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        let wanted = format!("{by} 127.0.0.1 Some(\"Bearer 70ken\") {{}}");
        assert!(answer.ends_with(&wanted), "{headers}: {answer}");
    }
}

#[tokio::test]
async fn a_long_answer_is_passed_on_whole() {
    let fleet = fleet().await;
    let request = get_request("/v1/agent/long", &route("db"));
    let answer = fleet.ask("a", HOST_NAME, &request).await;
    let answer = answer.expect("is answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
    assert!(head.contains(&format!("content-length: {LONG}")), "{head}");
    assert_eq!(body.len(), LONG);
}

#[tokio::test]
async fn who_cannot_be_reached_and_who_is_nobody_are_told_apart() {
    let fleet = fleet().await;
    let status = async |cluster: &str| {
        let request = report(&route(cluster), "{}");
        let answer = fleet.ask("a", HOST_NAME, &request).await;
        let answer = answer.expect("is answered");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(status("old").await.as_deref(), Some("503"));
    fleet.change(|view| {
        let b = view.masters.get_mut("b").expect("is there");
        b.says.agents = vec!["127.0.0.1:1".to_owned()];
    });
    assert_eq!(status("db").await.as_deref(), Some("502"));
}

#[tokio::test]
async fn a_request_is_passed_on_once() {
    let fleet = fleet().await;
    // Each takes the other for the owner. The connection that passes it on is refused for want of the cluster.
    fleet.master("b").fleet.change(|view| give(view, "db", "a"));
    let answer = fleet.ask("a", HOST_NAME, &report(&route("db"), "{}")).await;
    assert!(answer.expect("is answered").starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn a_master_of_another_authority_is_not_given_the_token() {
    let (ours, theirs) = (fleet().await, fleet().await);
    let address = theirs.master("b").address.to_string();
    ours.change(|view| {
        let b = view.masters.get_mut("b").expect("is there");
        b.says.agents = vec![address.clone()];
    });
    let answer = ours.ask("a", HOST_NAME, &report(&route("db"), "{}")).await;
    assert!(answer.expect("is answered").starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn one_address_is_slowed_down_for_a_cluster() {
    let fleet = fleet().await;
    let (a, known) = (fleet.master("a"), Route::of(&name("db")).to_string());
    let address = "127.0.0.1".parse().expect("an address");
    // In an hour: nothing is given back until then.
    let then = Instant::now() + Duration::from_secs(3600);
    while a.limit.admit(address, Some(&known), then) {}
    let answer = fleet.ask("a", HOST_NAME, &report(&route("db"), "{}")).await;
    assert!(answer.expect("is answered").starts_with("HTTP/1.1 429"));
}

/// Answers of so many bytes are under way while nobody reads them.
#[tokio::test]
async fn what_is_over_the_number_is_to_come_again_and_the_number_falls_with_the_askers() {
    let limits = ConnectionLimits {
        requests: 2,
        ..ConnectionLimits::of(1024)
    };
    let fleet = FakeFleet::new(OWNERS, limits).await;
    let request = get_request("/v1/agent/long", &route("db"));
    let mut reading = Vec::new();
    for _ in 0..2 {
        let machine = fleet.dial("a", [127, 0, 0, 1], HOST_NAME).await;
        let mut machine = machine.expect("is let in");
        machine.write_all(request.as_bytes()).await.expect("sends");
        machine.read_u8().await.expect("the answer begins");
        reading.push(machine);
    }
    let third = report(&route("db"), "{}");
    let answer = fleet.ask("a", HOST_NAME, &third).await;
    let answer = answer.expect("is answered");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    let here = report(&route("web"), "{}");
    let answer = fleet.ask("a", HOST_NAME, &here).await;
    assert!(answer.expect("is answered").starts_with("HTTP/1.1 202"));
    // They hang up amid their answers.
    drop(reading);
    let passed = async {
        loop {
            let answer = fleet.ask("a", HOST_NAME, &third).await;
            if answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 202")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let passed = timeout(Duration::from_secs(60), passed).await;
    passed.expect("there is room again");
}

#[test]
fn a_request_without_a_route_or_with_a_bad_one_is_served_as_before() {
    for text in ["", "web", "r0", "R0123456789abcdef0123"] {
        let mut request = Request::new(Body::empty());
        let value = HeaderValue::from_str(text).expect("is one");
        request.headers_mut().insert(ROUTE, value);
        assert!(asker(&request).is_none(), "{text}");
    }
}
