//! Why an object could not be put, read or removed: what, where, and the way out.

use std::error::Error as StdError;

/// What another library says.
pub type BoxedSource = Box<dyn StdError + Send + Sync>;

/// A place that could not be used. Never that an object is missing, which is an answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {place}/{object} ({hint})")]
pub struct Error {
    /// What was tried.
    pub what: &'static str,
    /// Where.
    pub place: String,
    /// With which object or objects.
    pub object: String,
    /// The way out.
    pub hint: &'static str,
    /// Why not.
    pub source: BoxedSource,
}
