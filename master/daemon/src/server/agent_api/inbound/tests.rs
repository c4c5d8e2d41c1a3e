use std::collections::VecDeque;

use aot_proto::v1::{FactsReport, Heartbeat, SpoolData, agent_message};
use futures::{FutureExt, StreamExt};
use hyper::body::Frame;
use proptest::prelude::*;

use super::*;

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn beat(seq: u64) -> AgentMessage {
    message(agent_message::Body::Heartbeat(Heartbeat { seq, echo: 0 }))
}

fn facts(len: usize) -> AgentMessage {
    message(agent_message::Body::Facts(FactsReport {
        node_json: "f".repeat(len),
        ..FactsReport::default()
    }))
}

fn output(len: usize) -> AgentMessage {
    message(agent_message::Body::Spool(SpoolData {
        run_id: "run".to_owned(),
        data: vec![7; len].into(),
        ..SpoolData::default()
    }))
}

/// As an agent sends them.
fn framed(messages: &[AgentMessage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.push(0);
        bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        message.encode(&mut bytes).expect("a Vec has room");
    }
    bytes
}

/// A body of these frames, which then ends, breaks or waits.
struct Frames(VecDeque<Bytes>, BodyEnd);

#[derive(Clone, Copy)]
enum BodyEnd {
    Ends,
    Waits,
    IsCancelled,
    Breaks,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match (self.0.pop_front(), self.1) {
            (Some(frame), _) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            (None, BodyEnd::Ends) => Poll::Ready(None),
            (None, BodyEnd::Waits) => Poll::Pending,
            (None, BodyEnd::IsCancelled) => Poll::Ready(Some(Err(Status::cancelled("gone")))),
            (None, BodyEnd::Breaks) => Poll::Ready(Some(Err(Status::unknown("cut")))),
        }
    }
}

fn inbound(frames: Vec<Bytes>, then: BodyEnd) -> Inbound<Frames> {
    Inbound::new(Frames(frames.into(), then))
}

/// All that comes, until it ends; of a fault its code.
fn all(inbound: Inbound<Frames>) -> Vec<Result<AgentMessage, Code>> {
    let all = inbound.map(|it| it.map_err(|status| status.code()));
    all.collect().now_or_never().expect("it ends")
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_sent_however_it_was_cut(
        sizes in prop::collection::vec(0..3_000_usize, 0..8),
        cuts in prop::collection::vec(0..20_000_usize, 0..12),
    ) {
        let kinds = [facts, output, |len: usize| beat(len as u64)];
        let sent: Vec<_> = sizes.iter().map(|size| kinds[size % 3](*size)).collect();
        let bytes = Bytes::from(framed(&sent));
        let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        let frames = cuts.iter().map(|at| bytes.slice(std::mem::replace(&mut from, *at)..*at));
        let read = all(inbound(frames.collect(), BodyEnd::Ends));
        prop_assert_eq!(read, sent.into_iter().map(Ok).collect::<Vec<_>>());
    }
}

/// Reads these frames; gives the messages, and what the session has then.
fn read_and_wait(frames: Vec<Bytes>) -> (Vec<AgentMessage>, Inbound<Frames>) {
    let mut inbound = inbound(frames, BodyEnd::Waits);
    let mut read = Vec::new();
    while let Some(next) = inbound.next().now_or_never() {
        read.push(next.expect("it waits").expect("a message"));
    }
    (read, inbound)
}

#[test]
fn a_session_that_waits_for_its_agent_holds_no_buffer() {
    let long = [beat(1), facts(6 << 10), output(200 << 10), beat(2)];
    let bytes = Bytes::from(framed(&long));
    // As h2 gives them: no frame is longer than that.
    let frames = (0..bytes.len()).step_by(64 << 10);
    let frames = frames.map(|at| bytes.slice(at..bytes.len().min(at + (64 << 10))));
    let (read, inbound) = read_and_wait(frames.collect());
    assert_eq!(read, long);
    assert_eq!(inbound.unframed.begun.capacity(), 0);
    // Neither in the session nor in the output that is kept is there a part of the connection's.
    assert!(bytes.is_unique(), "something holds on to it");
    assert!(
        matches!(&read[2].body, Some(agent_message::Body::Spool(it)) if it.data.len() == 200 << 10)
    );
}

#[test]
fn of_a_message_that_is_on_its_way_only_its_own_bytes_are_held() {
    let bytes = Bytes::from(framed(&[beat(1), facts(6 << 10)]));
    let (read, inbound) = read_and_wait(vec![bytes.slice(..bytes.len() - 1)]);
    assert_eq!(read, [beat(1)]);
    let whole = framed(&[facts(6 << 10)]).len();
    assert_eq!(inbound.unframed.begun.capacity(), whole);
    assert!(bytes.is_unique());
}

#[test]
fn what_is_no_message_ends_it_with_a_reason() {
    let long = u32::try_from(MAX_MESSAGE_BYTES + 1)
        .expect("fits")
        .to_be_bytes();
    let too_long = [&[0][..], &long].concat();
    let torn = framed(&[facts(100)])[..50].to_vec();
    for (bytes, code) in [
        (too_long, Code::OutOfRange),
        (vec![1, 0, 0, 0, 0], Code::Internal),
        (vec![0, 0, 0, 0, 1, 0xff], Code::Internal),
        (torn, Code::Internal),
        (vec![0, 0], Code::Internal),
    ] {
        let before = framed(&[beat(1)]);
        let bytes = Bytes::from([before, bytes].concat());
        let read = all(inbound(vec![bytes], BodyEnd::Ends));
        assert_eq!(read, [Ok(beat(1)), Err(code)]);
    }
}

#[test]
fn an_agent_that_gives_it_up_just_ends_and_a_cut_is_a_fault() {
    let frames = || vec![Bytes::from(framed(&[beat(1)]))];
    assert_eq!(all(inbound(frames(), BodyEnd::Ends)), [Ok(beat(1))]);
    assert_eq!(all(inbound(frames(), BodyEnd::IsCancelled)), [Ok(beat(1))]);
    let cut = all(inbound(frames(), BodyEnd::Breaks));
    assert_eq!(cut, [Ok(beat(1)), Err(Code::Unknown)]);
}
