//! A connection's messages in gRPC's framing ("gRPC over HTTP2", Length-Prefixed-Message), by hand: tonic copies each message into a
//! buffer of its stream and out of another one, on every way between two processes. Here a piece's bytes go on as they came.
//!
//! `call` opens a stream of a master's; `incoming` and `outgoing` are its two halves, for whoever serves one too.

mod call;
mod incoming;
mod outgoing;

use aot_proto::v1::{
    TunnelInput, TunnelOutput, TunnelPiece, TunnelUp, tunnel_input, tunnel_output, tunnel_piece,
    tunnel_up,
};
use prost::bytes::{BufMut, Bytes};
use prost::{Message, encode_length_delimiter, length_delimiter_len};

pub use call::open;
pub use incoming::{Messages, requests};
pub use outgoing::response;

/// The call of a forwarded connection of an agent.
pub const AGENTS_CALL: &str = "/aot.v1.AgentLink/Tunnel";

/// The same of an operator.
pub const OPERATORS_CALL: &str = "/aot.v1.Operator/Tunnel";

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Before `TunnelPiece.data`, number 1: that a length follows ("Encoding", "Message Structure").
const DATA_KEY: u8 = 1 << 3 | 2;

/// Bytes of a piece that are not worth a frame of their own: they are copied.
const COPIED_BYTES: usize = 4 << 10;

/// A message that is a piece, or may have one.
pub trait TunnelMessage: Message + Default + Unpin + 'static {
    /// Number of the field that has the piece; `None` where the message itself is one.
    const PIECE: Option<u8>;

    /// Its piece, where it has one.
    fn piece(&mut self) -> Option<&mut TunnelPiece>;
}

impl TunnelMessage for TunnelPiece {
    const PIECE: Option<u8> = None;

    fn piece(&mut self) -> Option<&mut TunnelPiece> {
        Some(self)
    }
}

macro_rules! has_piece {
    ($message:ident, $body:ident, $number:literal) => {
        impl TunnelMessage for $message {
            const PIECE: Option<u8> = Some($number);

            fn piece(&mut self) -> Option<&mut TunnelPiece> {
                match &mut self.body {
                    Some($body::Body::Piece(piece)) => Some(piece),
                    _ => None,
                }
            }
        }
    };
}

has_piece!(TunnelInput, tunnel_input, 2);
has_piece!(TunnelOutput, tunnel_output, 2);
has_piece!(TunnelUp, tunnel_up, 3);

/// Appends a message with its prefix. Of a piece with many bytes only what goes before these: they are given back, and come right
/// after it.
fn append<T: TunnelMessage>(mut message: T, frame: &mut Vec<u8>) -> Option<Bytes> {
    let data = match message.piece().map(|piece| &mut piece.body) {
        Some(Some(tunnel_piece::Body::Data(data))) if data.len() >= COPIED_BYTES => data,
        _ => {
            begin(message.encoded_len(), frame);
            message.encode(frame).expect("a Vec has room");
            return None;
        }
    };
    let data = std::mem::take(data);
    let piece = field_len(data.len());
    match T::PIECE {
        Some(number) => {
            begin(field_len(piece), frame);
            field(number << 3 | 2, piece, frame);
        }
        None => begin(piece, frame),
    }
    field(DATA_KEY, data.len(), frame);
    Some(data)
}

/// Begins a message of this length.
fn begin(len: usize, frame: &mut Vec<u8>) {
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).expect("pieces have limits far below 4 GiB"));
}

/// Begins a field of this length.
fn field(key: u8, len: usize, frame: &mut Vec<u8>) {
    frame.put_u8(key);
    encode_length_delimiter(len, frame).expect("a Vec has room");
}

/// Length of a field whose content is so long: its key is one byte.
fn field_len(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

#[cfg(test)]
mod tests;
