//! Files and folders as one tar stream, for both sides of a copy and for bundles. Used by the agent and the command line.
//!
//! Packed are regular files, folders and links, with their mode bits and times; no owner, no setuid bit, no device.
//! Unpacking never writes outside the one folder that it is given, whatever the stream says: names are taken apart and
//! opened one by one, never through a link, and a file has its name only once it is whole. Never touches the network.

mod digest;
mod folder;
mod merge;
mod pack;
mod place;
mod unpack;

#[cfg(test)]
mod tests;

pub use digest::{Digest, Digesting};
pub use folder::Folder;
pub use merge::merge;
pub use pack::{PackError, Source, pack, sources};
pub use place::{Place, PlaceError, place};
pub use unpack::{Error, Limits, Rules, unpack};

/// Begins the names of files that are not whole yet. One that a killed copy left is of no use and may be removed.
pub const PART: &str = ".aot-part-";

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
