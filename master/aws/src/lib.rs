//! What calls to any service of AWS have in common: `client` makes the way there, `fault` says why a call failed. The crate of a
//! service says what can be done about it.

#![warn(unreachable_pub)]

mod client;
mod fault;

pub use client::{Patience, http_client, settings};
pub use fault::AwsFault;
