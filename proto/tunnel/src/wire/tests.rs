use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aot_proto::v1::{TunnelAnswer, TunnelReset, tunnel_piece::Body};
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Frame;
use proptest::prelude::*;
use tonic::{Code, Status};

use super::*;

const LONG: usize = aot_proto::limits::TUNNEL_DATA_BYTES;

fn piece(body: Body) -> TunnelPiece {
    TunnelPiece { body: Some(body) }
}

fn data(len: usize) -> TunnelPiece {
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    piece(Body::Data(bytes.into()))
}

fn output(piece: TunnelPiece) -> TunnelOutput {
    TunnelOutput {
        body: Some(tunnel_output::Body::Piece(piece)),
    }
}

/// As tonic sends them.
fn framed<T: Message>(messages: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        begin(message.encoded_len(), &mut bytes);
        message.encode(&mut bytes).expect("a Vec has room");
    }
    bytes
}

/// A body of these frames.
struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn body(frames: impl IntoIterator<Item = Bytes>) -> Frames {
    let frames = frames.into_iter().map(|frame| Ok(Frame::data(frame)));
    Frames(frames.collect())
}

/// All that comes on a stream, and how it ends.
fn all<T>(messages: Messages<T>) -> (Vec<T>, Option<Status>) {
    let (mut got, mut fault) = (Vec::new(), None);
    let read = messages.for_each(|next| {
        match next {
            Ok(message) => got.push(message),
            Err(status) => fault = Some(status),
        }
        std::future::ready(())
    });
    read.now_or_never().expect("nothing is waited for");
    (got, fault)
}

/// The frames of a body.
fn frames(
    body: impl hyper::body::Body<Data = Bytes, Error = Infallible>,
) -> (Vec<Bytes>, Option<HeaderMap>) {
    let mut body = Box::pin(body);
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut context = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
        match frame.into_data() {
            Ok(bytes) => data.push(bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (data, trailers)
}

fn said<T: TunnelMessage + Send>(messages: Vec<T>) -> (Vec<Bytes>, Option<HeaderMap>) {
    let messages = stream::iter(messages).map(Ok);
    frames(response(messages).into_body())
}

fn some_piece() -> impl Strategy<Value = TunnelPiece> {
    prop_oneof![
        (1..200_usize).prop_map(data),
        (COPIED_BYTES - 2..COPIED_BYTES + 2).prop_map(data),
        (LONG - 3..LONG + 1).prop_map(data),
        any::<u32>().prop_map(|more| piece(Body::Granted(more))),
        Just(piece(Body::End(true))),
        Just(TunnelPiece::default()),
        "[a-z]{0,20}".prop_map(|detail| piece(Body::Reset(TunnelReset { detail }))),
    ]
}

/// All that is said of these, in one; what comes of it in frames of these lengths.
fn there_and_back<T>(messages: Vec<T>, cuts: &[usize]) -> Result<(), TestCaseError>
where
    T: TunnelMessage + Send + PartialEq + Clone,
{
    let mut rest = Bytes::from(said(messages.clone()).0.concat());
    prop_assert!(rest == framed(&messages), "as everybody says it");
    let mut parts = Vec::new();
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        parts.push(rest.split_to(rest.len().min(*cut)));
    }
    let (got, fault) = all(requests::<T, _>(body(parts)));
    prop_assert!(fault.is_none(), "{fault:?}");
    prop_assert!(got == messages);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_said_is_heard_however_it_is_cut(
        pieces in proptest::collection::vec(some_piece(), 0..6),
        cuts in proptest::collection::vec(prop_oneof![1..100_usize, 1000..80_000_usize], 1..5),
    ) {
        let up = |piece| TunnelUp { body: Some(tunnel_up::Body::Piece(piece)) };
        let input = |piece| TunnelInput { body: Some(tunnel_input::Body::Piece(piece)) };
        there_and_back(pieces.iter().cloned().map(up).collect(), &cuts)?;
        there_and_back(pieces.iter().cloned().map(input).collect(), &cuts)?;
        there_and_back(pieces.iter().cloned().map(output).collect(), &cuts)?;
        there_and_back(pieces, &cuts)?;
    }

    #[test]
    fn bytes_that_are_no_messages_are_refused_and_nothing_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        all(requests::<TunnelUp, _>(body([Bytes::from(bytes)])));
    }
}

#[test]
fn a_long_piece_is_passed_on_where_it_lies_and_a_short_one_holds_on_to_nothing() {
    let whole = Bytes::from(framed(&[output(data(LONG)), output(data(100))]));
    let (heard, _) = all(requests::<TunnelOutput, _>(body([whole.clone()])));
    let place = |bytes: &Bytes| whole.as_ptr_range().contains(&bytes.as_ptr());
    let pieces = heard.into_iter().map(|mut output| output.piece().cloned());
    let pieces: Vec<TunnelPiece> = pieces.map(|piece| piece.expect("one")).collect();
    let lies: Vec<bool> = pieces
        .iter()
        .map(|piece| matches!(&piece.body, Some(Body::Data(data)) if place(data)))
        .collect();
    assert_eq!(lies, [true, false]);
    let (frames, _) = said(pieces);
    let lies: Vec<bool> = frames.iter().map(place).collect();
    assert_eq!(
        lies,
        [false, true, false],
        "its head, its bytes, the other one"
    );
}

#[test]
fn what_is_ready_at_once_goes_together() {
    let granted = || piece(Body::Granted(7));
    let (frames, trailers) = said(vec![granted(), data(30), granted(), data(LONG), granted()]);
    let lens: Vec<usize> = frames.iter().map(Bytes::len).collect();
    assert_eq!((lens.len(), lens[1]), (3, LONG), "{lens:?}");
    let status = trailers.as_ref().and_then(Status::from_header_map);
    assert_eq!(status.expect("one").code(), Code::Ok);
}

#[test]
fn what_is_not_whole_or_too_long_ends_a_stream_and_its_messages_before_count() {
    let good = framed(&[data(10)]);
    let with = |more: &[u8]| Bytes::from([&good, more].concat());
    for (bytes, wanted) in [
        (with(&[]), None),
        (with(&[0, 0]), Some("it ends amid a message")),
        (with(&[0, 0, 0, 0, 2, 10]), Some("it ends amid a message")),
        (
            with(&[1, 0, 0, 0, 0]),
            Some("a message that is compressed, or is none"),
        ),
        (
            with(&[0, 0, 2, 0, 1]),
            Some("a message of 131073 bytes, the limit is 131072"),
        ),
    ] {
        let (got, fault) = all(requests::<TunnelPiece, _>(body([bytes])));
        assert_eq!(got.len(), 1);
        assert_eq!(fault.as_ref().map(Status::message), wanted);
    }
}

/// A master that answers so.
#[derive(Clone)]
struct FakeMaster(fn() -> Response<Frames>);

impl tonic::client::GrpcService<tonic::body::Body> for FakeMaster {
    type ResponseBody = Frames;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<Frames>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        assert_eq!(request.uri().path(), AGENTS_CALL);
        assert_eq!(request.headers()["te"], "trailers");
        std::future::ready(Ok((self.0)()))
    }
}

/// What an agent hears of this master.
fn heard(answer: fn() -> Response<Frames>) -> Result<(Vec<TunnelPiece>, Option<Status>), Status> {
    let said = stream::empty::<TunnelUp>();
    let opened = open(FakeMaster(answer), AGENTS_CALL, said);
    opened.now_or_never().expect("it answers at once").map(all)
}

fn trailing(code: &'static str) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Ok(Frame::trailers(trailers))
}

/// An answer of one piece, and this after it.
fn with(last: Option<Result<Frame<Bytes>, Status>>) -> Response<Frames> {
    let mut body = body([Bytes::from(framed(&[data(10)]))]);
    body.0.extend(last);
    Response::new(body)
}

#[test]
fn how_a_call_ends_is_what_its_master_says() {
    let (pieces, fault) = heard(|| with(Some(trailing("0")))).expect("let in");
    assert_eq!((pieces.len(), fault.map(|it| it.code())), (1, None));
    for (answer, wanted) in [
        (
            (|| with(Some(trailing("7")))) as fn() -> _,
            Code::PermissionDenied,
        ),
        (
            || with(Some(Err(Status::cancelled("reset")))),
            Code::Cancelled,
        ),
        (|| with(None), Code::Unknown),
    ] {
        let (pieces, fault) = heard(answer).expect("let in");
        assert_eq!((pieces.len(), fault.map(|it| it.code())), (1, Some(wanted)));
    }
    let refused = heard(|| {
        Status::not_found("nobody waits")
            .into_http::<String>()
            .map(|_| body([]))
    });
    assert_eq!(refused.expect_err("refused").message(), "nobody waits");
    let other = heard(|| {
        let mut response = Response::new(body([]));
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    });
    assert!(other.is_err());
}

#[test]
fn an_answer_that_is_no_piece_is_said_whole() {
    let refused = "x".repeat(2 * COPIED_BYTES);
    let answer = TunnelUp {
        body: Some(tunnel_up::Body::Answer(TunnelAnswer { refused })),
    };
    let (frames, _) = said(vec![answer.clone()]);
    let (got, fault) = all(requests::<TunnelUp, _>(body(frames)));
    assert!(fault.is_none() && got == [answer]);
}
