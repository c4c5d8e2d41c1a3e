//! Files and folders as one tar stream, for both sides of a copy and for bundles. Used by the agent, the master and the
//! command line.
//!
//! Packed are regular files, folders and links, with their mode bits and times; no owner, no setuid bit, no device.
//! Unpacking never writes outside the one folder that it is given, whatever the stream says: names are taken apart and
//! opened one by one, never through a link, and a file has its name only once it is whole. Never touches the network.
//!
//! Two kinds of archive are read, by the same first reading of every entry (`entry`):
//! - copies, made by [`pack`]: only the names that were asked for, each folder before what is in it (`unpack`);
//! - bundles, made by anyone with any tar: what their entries come to is decided in a model of the tree (`tree`), which
//!   inspecting one ([`inspect`]) and unpacking one ([`unpack_bundle`]) both ask.

#![warn(unreachable_pub)]

mod bundle;
mod destination;
mod digest;
mod entry;
mod error;
mod folder;
mod made;
mod merge;
mod pack;
mod packed;
mod source;
mod sparse;
mod stream;
mod tree;
mod unpack;
mod write;

#[cfg(test)]
mod samples;

pub use bundle::{Heads, inspect, unpack_bundle};
pub use destination::{Destination, DestinationError, Links, destination};
pub use digest::{Digest, Digesting};
pub use error::Error;
pub use folder::Folder;
pub use merge::merge;
pub use pack::pack;
pub use packed::{Unreadable, decompress};
pub use source::{PackError, Source, sources};
pub use tree::{NoScript, SCRIPT, TEMPLATE, Tree};
pub use unpack::{Rules, Tops, unpack};

/// Begins the names of files and folders that are not whole yet. One that a killed copy left is of no use and may be
/// removed. Such names are neither packed nor taken from an archive of a copy.
pub const PART: &str = ".aot-part-";

/// Most folders in folders, on both sides: deeper ones are neither packed nor unpacked.
pub const MAX_DEPTH: usize = 200;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Entries of any kind; also the names that they make, folders that no entry describes among them.
    pub entries: u64,
}

/// What was packed or unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of regular files.
    pub files: u64,
    /// Sum of their sizes, holes included.
    pub bytes: u64,
}
