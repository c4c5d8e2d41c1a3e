//! Masters among themselves: a port that only masters of the fleet get into, and calls on those of others. Operators' calls
//! are passed on by them, as `door` says; nothing else is served or asked there.

mod identity;
mod passed;
mod pool;
mod port;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub(crate) use identity::PeerIdentity;
pub(crate) use pool::{CONNECT, PeerChannel, Peers};
pub(crate) use port::serve;

/// The master on the other side of a connection on the masters' port; in every request of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerMaster(pub Arc<str>);
