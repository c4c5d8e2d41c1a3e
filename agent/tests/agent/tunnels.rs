//! Forwarded connections: the agent dials in for each, connects to what its settings allow, and copies both ways.

use std::time::Duration;

use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::tunnel_up::Body as Up;
use aot_proto::v1::{OpenTunnel, TunnelDestination, TunnelPiece, tunnel_piece::Body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use super::fake::{Rig, TunnelHalves};

const LIMIT: Duration = Duration::from_secs(60);

fn port(port: u16) -> TunnelDestination {
    TunnelDestination {
        port: port.into(),
        ..TunnelDestination::default()
    }
}

/// Asks for a connection, and waits for its stream and the agent's answer.
async fn open(rig: &Rig, to: TunnelDestination) -> (TunnelHalves, String) {
    rig.master
        .send(Down::OpenTunnel(OpenTunnel {
            tunnel_id: "5ec4e7".to_owned(),
            to: Some(to),
            job_id: "job-1".to_owned(),
        }))
        .await;
    let mut halves = loop {
        rig.master
            .until("a stream", |state| {
                (!state.tunnels.is_empty()).then_some(())
            })
            .await;
        if let Some(halves) = rig.master.change(|state| state.tunnels.pop()) {
            break halves;
        }
    };
    let hello = next(&mut halves).await;
    assert!(
        matches!(&hello, Up::Hello(hello) if hello.tunnel_id == "5ec4e7"),
        "{hello:?}"
    );
    let Up::Answer(answer) = next(&mut halves).await else {
        panic!("the second message is an answer")
    };
    (halves, answer.refused)
}

async fn next((up, _): &mut TunnelHalves) -> Up {
    let next = timeout(LIMIT, up.message()).await.expect("in time");
    next.expect("a message")
        .and_then(|up| up.body)
        .expect("one of ours")
}

/// What comes from the machine until it sends no more.
async fn all(halves: &mut TunnelHalves) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let Up::Piece(TunnelPiece { body }) = next(halves).await else {
            panic!("only pieces come")
        };
        match body.expect("one of ours") {
            Body::Data(data) => bytes.extend_from_slice(&data),
            Body::End(_) => return bytes,
            Body::Granted(_) => {}
            Body::Reset(reset) => panic!("{reset:?}"),
        }
    }
}

async fn say(halves: &TunnelHalves, body: Body) {
    let piece = TunnelPiece { body: Some(body) };
    halves.1.send(Ok(piece)).await.expect("the agent reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_copied_both_ways_and_each_way_is_closed_by_itself() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let (mut halves, refused) = open(&rig, port(here)).await;
    assert_eq!(refused, "");
    let (mut served, _) = listener.accept().await.unwrap();
    say(&halves, Body::Data(b"question".to_vec().into())).await;
    say(&halves, Body::End(true)).await;
    let mut asked = String::new();
    served.read_to_string(&mut asked).await.unwrap();
    assert_eq!(
        asked, "question",
        "its end is passed on while the answer is to come"
    );
    served.write_all(b"answer").await.unwrap();
    served.shutdown().await.unwrap();
    assert_eq!(all(&mut halves).await, b"answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_reached_and_a_reset_reaches_the_machine() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let path = rig.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let to = TunnelDestination {
        path: path.display().to_string(),
        ..TunnelDestination::default()
    };
    let (halves, refused) = open(&rig, to).await;
    assert_eq!(refused, "");
    let (mut served, _) = listener.accept().await.unwrap();
    // The master lets go of it: nothing is left open there.
    drop(halves);
    let mut rest = Vec::new();
    let end = timeout(LIMIT, served.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "it ends there too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_not_allowed_is_refused_with_the_way_out() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let (_, refused) = open(&rig, port(closed)).await;
    assert!(refused.contains("Connection refused"), "{refused}");
    let other = TunnelDestination {
        host: "192.0.2.1".to_owned(),
        ..port(80)
    };
    let (_, refused) = open(&rig, other).await;
    assert!(refused.contains("forward = \"any\""), "{refused}");
}
