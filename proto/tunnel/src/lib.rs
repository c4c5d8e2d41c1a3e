//! One end of a forwarded connection: copies between a local stream and the pieces of the wire until both ways are over. The
//! command line has one end, an agent the other; masters between them only pass pieces on.
//!
//! `window` decides what may be sent, `carry` moves. Bounded both ways: who does not read is not read from, and what may wait
//! meanwhile is [`aot_proto::limits::TUNNEL_WINDOW`].

#![warn(unreachable_pub)]

mod carry;
mod window;

pub use carry::{Carried, Close, Leave, carry};
