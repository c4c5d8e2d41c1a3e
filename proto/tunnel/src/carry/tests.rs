//! Two ends with channels between them, and one end with a peer that a test plays.

use aot_proto::limits::{TUNNEL_PIECE_COST, TUNNEL_WINDOW};
use tokio::io::{DuplexStream, duplex, split};
use tokio_stream::wrappers::ReceiverStream;

use super::*;

type Wire = ReceiverStream<Result<TunnelPiece, String>>;

/// A sender of what goes to the peer, and the stream that it reads.
fn wire(room: usize) -> (mpsc::Sender<Result<TunnelPiece, String>>, Wire) {
    let (sender, receiver) = mpsc::channel(room);
    (sender, ReceiverStream::new(receiver))
}

async fn one_end(
    local: DuplexStream,
    to_peer: mpsc::Sender<Result<TunnelPiece, String>>,
    mut pieces: Wire,
    leave: Leave,
) -> Carried {
    let (read, write) = split(local);
    carry(read, write, &mut pieces, to_peer, Ok, leave).await
}

/// Two ends, and the local streams of both.
fn connected(
    room: usize,
) -> (
    DuplexStream,
    DuplexStream,
    impl Future<Output = [Carried; 2]>,
) {
    let (here, near) = duplex(room);
    let (there, far) = duplex(room);
    let ((up, at_far), (down, at_near)) = (wire(4), wire(4));
    let both = async move {
        let near = one_end(near, up, at_near, Leave::BothOver);
        let far = one_end(far, down, at_far, Leave::BothOver);
        let (near, far) = tokio::join!(near, far);
        [near, far]
    };
    (here, there, both)
}

fn piece(body: Body) -> Result<TunnelPiece, String> {
    Ok(TunnelPiece { body: Some(body) })
}

fn data(bytes: usize) -> Result<TunnelPiece, String> {
    piece(Body::Data(vec![b'x'; bytes].into()))
}

/// More than several windows, each byte by its place.
fn long() -> Vec<u8> {
    (0..5 * TUNNEL_WINDOW).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn a_way_that_is_closed_leaves_the_other_open() {
    let (mut here, mut there, both) = connected(1 << 16);
    let talk = async move {
        here.write_all(b"question").await.unwrap();
        here.shutdown().await.unwrap();
        let mut asked = String::new();
        there.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        let answer = long();
        let told = async {
            there.write_all(&answer).await.unwrap();
            there.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (_, read) = tokio::join!(told, here.read_to_end(&mut heard));
        read.unwrap();
        assert!(heard == answer, "{} bytes", heard.len());
    };
    let ([near, far], ()) = tokio::join!(both, talk);
    let length = long().len() as u64;
    for (end, sent, received) in [(near, 8, length), (far, length, 8)] {
        assert!(matches!(end.close, Close::Whole), "{:?}", end.close);
        assert_eq!((end.sent, end.received), (sent, received));
    }
}

#[tokio::test]
async fn many_small_pieces_both_ways_arrive_whole() {
    let (here, there, both) = connected(64);
    let say = |stream: DuplexStream| async move {
        let (mut read, mut write) = split(stream);
        let said = async {
            for at in 0..4000_u32 {
                write.write_all(&at.to_be_bytes()).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (_, read) = tokio::join!(said, read.read_to_end(&mut heard));
        read.unwrap();
        let wanted: Vec<u8> = (0..4000_u32).flat_map(u32::to_be_bytes).collect();
        assert!(heard == wanted, "{} bytes", heard.len());
    };
    let ([near, far], (), ()) = tokio::join!(both, say(here), say(there));
    for end in [near, far] {
        assert!(matches!(end.close, Close::Whole), "{:?}", end.close);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_than_a_slow_reader_may_have_waiting() {
    let (here, near) = duplex(1 << 20);
    // The peer reads the wire and grants nothing, as one whose own stream stands still.
    let (up, mut at_peer) = wire(4);
    let (_down, at_near) = wire(4);
    let end = one_end(near, up, at_near, Leave::BothOver);
    let (_read, mut write) = split(here);
    let writer = async move {
        let more = [b'x'; 4096];
        while timeout(Duration::from_secs(1), write.write_all(&more))
            .await
            .is_ok()
        {}
    };
    let counted = async {
        let (mut bytes, mut cost) = (0, 0);
        while let Ok(Some(Ok(piece))) = timeout(Duration::from_secs(5), at_peer.next()).await {
            let Some(Body::Data(data)) = piece.body else {
                panic!("{piece:?}")
            };
            bytes += data.len();
            cost += data.len() as u32 + TUNNEL_PIECE_COST;
        }
        (bytes, cost)
    };
    tokio::select! {
        carried = end => panic!("{carried:?}"),
        ((), (bytes, cost)) = async { tokio::join!(writer, counted) } => {
            assert!(cost <= TUNNEL_WINDOW, "{cost}");
            assert!(bytes > TUNNEL_WINDOW as usize / 2, "{bytes}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_sends_more_than_it_may_is_cut_off() {
    // Nobody reads: nothing is passed on.
    let (_here, near) = duplex(1);
    let (up, mut at_peer) = wire(64);
    let (down, at_near) = wire(64);
    let flood = async move {
        let most = TUNNEL_WINDOW / (TUNNEL_PIECE_COST + 1) + 1;
        for _ in 0..most {
            down.send(data(1)).await.unwrap();
        }
        let last = at_peer.next().await.expect("it is told").unwrap();
        let Some(Body::Reset(reset)) = last.body else {
            panic!("{last:?}")
        };
        assert!(reset.detail.contains("rules"), "{}", reset.detail);
    };
    let (carried, ()) = tokio::join!(one_end(near, up, at_near, Leave::BothOver), flood);
    assert!(
        matches!(carried.close, Close::Breach),
        "{:?}",
        carried.close
    );
}

#[tokio::test]
async fn a_reset_is_told_and_heard() {
    let (here, near) = duplex(64);
    let ((up, mut at_peer), (down, at_near)) = (wire(4), wire(4));
    // A stream that nobody reads any more can't be written to.
    drop(here);
    let broken = async move {
        let first = at_peer.next().await;
        assert!(
            matches!(
                first,
                Some(Ok(TunnelPiece {
                    body: Some(Body::End(_))
                }))
            ),
            "{first:?}"
        );
        down.send(data(100)).await.unwrap();
        let last = at_peer.next().await;
        assert!(
            matches!(
                last,
                Some(Ok(TunnelPiece {
                    body: Some(Body::Reset(_))
                }))
            ),
            "{last:?}"
        );
    };
    let (carried, ()) = tokio::join!(one_end(near, up, at_near, Leave::BothOver), broken);
    assert!(
        matches!(carried.close, Close::ResetHere(_)),
        "{:?}",
        carried.close
    );

    let (_here, near) = duplex(64);
    let ((up, _at_peer), (down, at_near)) = (wire(4), wire(4));
    let detail = "connection reset by peer".to_owned();
    down.send(piece(Body::Reset(TunnelReset { detail })))
        .await
        .unwrap();
    drop(down);
    let carried = one_end(near, up, at_near, Leave::BothOver).await;
    match carried.close {
        Close::ResetThere(why) => assert!(why.contains("reset by peer"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_came_before_a_hang_up_is_written_and_a_hang_up_too_soon_is_a_loss() {
    let (mut here, near) = duplex(8);
    let ((up, mut at_peer), (down, at_near)) = (wire(4), wire(4));
    here.shutdown().await.unwrap();
    let peer = async move {
        let first = at_peer.next().await;
        assert!(
            matches!(
                first,
                Some(Ok(TunnelPiece {
                    body: Some(Body::End(_))
                }))
            ),
            "{first:?}"
        );
        down.send(data(1000)).await.unwrap();
        down.send(piece(Body::End(true))).await.unwrap();
        drop(down);
        let mut heard = Vec::new();
        here.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 1000);
    };
    let (carried, ()) = tokio::join!(one_end(near, up, at_near, Leave::BothOver), peer);
    assert!(matches!(carried.close, Close::Whole), "{:?}", carried.close);

    for last in [None, Some(Body::End(true))] {
        let (_here, near) = duplex(64);
        let ((up, _at_peer), (down, at_near)) = (wire(4), wire(4));
        if let Some(last) = last {
            down.send(piece(last)).await.unwrap();
        }
        drop(down);
        let carried = one_end(near, up, at_near, Leave::BothOver).await;
        assert!(
            matches!(carried.close, Close::Lost(_)),
            "{:?}",
            carried.close
        );
    }
}

#[tokio::test]
async fn one_that_leaves_when_nothing_comes_waits_for_no_end_of_its_own() {
    let (mut here, near) = duplex(64);
    let ((up, at_peer), (down, at_near)) = (wire(4), wire(4));
    down.send(data(3)).await.unwrap();
    down.send(piece(Body::End(true))).await.unwrap();
    drop((down, at_peer));
    let carried = one_end(near, up, at_near, Leave::NothingComes).await;
    let mut heard = Vec::new();
    here.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"xxx");
    assert!(
        matches!(carried.close, Close::Whole | Close::Lost(_)),
        "{:?}",
        carried.close
    );
    assert_eq!(carried.received, 3);
}
