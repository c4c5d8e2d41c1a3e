use aot_proto::v1::{Heartbeat, MasterGoingAway};
use futures::{FutureExt, StreamExt, stream};
use prost::Message;

use super::*;

fn message(body: master_message::Body) -> MasterMessage {
    MasterMessage { body: Some(body) }
}

fn beat(seq: u64) -> MasterMessage {
    message(master_message::Body::Heartbeat(Heartbeat { seq, echo: 0 }))
}

fn piece(data: &Bytes) -> MasterMessage {
    message(master_message::Body::ClusterFacts(ClusterFactsPiece {
        generation: 7,
        offset: 1 << 16,
        total_bytes: 1 << 20,
        data: data.clone(),
    }))
}

fn goodbye() -> MasterMessage {
    let reason = "r".repeat(40 << 10);
    message(master_message::Body::GoingAway(MasterGoingAway {
        reason,
        reconnect_after_ms: 1,
    }))
}

/// The next frame; `None` when nothing is ready, or all is over.
fn next(body: &mut Outgoing) -> Option<Frame<Bytes>> {
    let frame = futures::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    frame
        .now_or_never()
        .flatten()
        .map(|frame| frame.expect("never fails"))
}

fn data(body: &mut Outgoing) -> Bytes {
    next(body).expect("is ready").into_data().expect("is data")
}

fn code(body: &mut Outgoing) -> String {
    let trailers = next(body).expect("is ready").into_trailers();
    let trailers = trailers.expect("are trailers");
    trailers["grpc-status"].to_str().expect("digits").to_owned()
}

/// Messages as an agent reads them.
fn read(mut bytes: &[u8]) -> Vec<MasterMessage> {
    let mut read = Vec::new();
    while let [0, a, b, c, d, rest @ ..] = bytes {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        read.push(MasterMessage::decode(&rest[..len]).expect("a message"));
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    read
}

fn of(messages: Vec<Result<MasterMessage, Status>>) -> Outgoing {
    Outgoing::Open(Box::pin(stream::iter(messages)))
}

#[test]
fn what_goes_out_is_what_was_given() {
    let facts = Bytes::from(vec![5; 64 << 10]);
    let given = [
        beat(1),
        piece(&facts),
        goodbye(),
        piece(&Bytes::new()),
        beat(2),
    ];
    let mut body = of(given.iter().cloned().map(Ok).collect());
    let mut bytes = Vec::new();
    while !matches!(body, Outgoing::Ends(_)) {
        bytes.extend_from_slice(&data(&mut body));
    }
    assert_eq!(read(&bytes), given);
    assert_eq!(code(&mut body), "0");
    assert!(body.is_end_stream() && next(&mut body).is_none());
}

#[test]
fn the_bytes_of_a_piece_are_not_copied_and_messages_before_it_go_with_its_head() {
    let facts = Bytes::from(vec![5; 64 << 10]);
    let mut body = of(vec![Ok(beat(1)), Ok(piece(&facts)), Ok(beat(2))]);
    let head = data(&mut body);
    assert!(head.len() < 100, "{}", head.len());
    assert_eq!(data(&mut body).as_ptr(), facts.as_ptr());
    assert_eq!(read(&data(&mut body)), [beat(2)]);
}

#[test]
fn what_is_ready_goes_together_and_what_is_long_alone() {
    let pending = stream::pending::<Result<MasterMessage, Status>>();
    let ready = [beat(1), beat(2), goodbye(), beat(3)].map(Ok);
    let mut body = Outgoing::Open(Box::pin(stream::iter(ready).chain(pending)));
    assert_eq!(read(&data(&mut body)), [beat(1), beat(2), goodbye()]);
    assert_eq!(read(&data(&mut body)), [beat(3)]);
    assert!(next(&mut body).is_none(), "nothing is ready");
    assert!(!body.is_end_stream(), "and it is not over");
}

#[test]
fn an_end_with_a_reason_says_it_after_what_came_before() {
    let mut body = of(vec![Ok(beat(1)), Err(Status::permission_denied("gone"))]);
    assert_eq!(read(&data(&mut body)), [beat(1)]);
    assert_eq!(code(&mut body), "7");
    assert!(next(&mut body).is_none());
}
