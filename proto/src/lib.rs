//! The contract between aot's master, its agents and its command line: messages, ids, limits, the spool's frames and the
//! archives that both sides pack and unpack.
//!
//! Used by every other crate of the workspace; depends on none of them. Only `archive` does I/O.

pub mod archive;
pub mod builtin;
pub mod codec;
pub mod facts;
pub mod frame;
pub mod ids;
pub mod limits;

/// Messages and services generated from `proto/aot/v1/*.proto`; their comments are in those files.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated; the documentation is in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("aot.v1");
}
