//! The contract between aot's master, its agents and its command line: messages, ids, limits, the spool's frames, and the
//! words that all of them use.
//!
//! Used by every other crate of the workspace; depends on none of them. Does no I/O.

#![warn(unreachable_pub)]

pub mod aws;
pub mod builtin;
pub mod codec;
mod enum_names;
pub mod facts;
pub mod fault;
mod finding;
pub mod frame;
pub mod headers;
pub mod hostname;
pub mod ids;
pub mod limits;
pub mod pace;
pub mod plural;
pub mod route;
pub mod secret;
pub mod status;
pub mod version;

/// The descriptors of all of `proto/aot/v1/*.proto`, a `google.protobuf.FileDescriptorSet`: for tests that must not miss a
/// field.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Messages and services generated from `proto/aot/v1/*.proto`; their comments are in those files.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated; the documentation is in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("aot.v1");
}
