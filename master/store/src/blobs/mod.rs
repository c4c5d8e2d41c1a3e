//! A place for what is long: outputs, bundles, agents, uploads. Records name what lies there; they are never in it. `key` has
//! the names, `folder` is one such place and the crate `aot-s3` another; `fetch` brings an object into a file, `contract` has
//! what every place must do.
//!
//! An object is there whole or not at all. A master without such a place keeps all of it in its state folder.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
mod fetch;
mod folder;
mod key;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;

pub use error::{BoxedSource, Error};
pub use fetch::fetch;
pub use folder::BlobFolder;
pub use key::{BlobKey, BlobKind};

use crate::Pending;

/// How long an object stays that nothing names: whoever put it may be about to name it.
pub const UNNAMED: Duration = Duration::from_secs(3600);

/// What a put that was cut off has left is removed after this: until then it may still be under way.
pub const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

/// An object as a place has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its name.
    pub key: BlobKey,
    /// Its length.
    pub bytes: u64,
    /// How long ago it was put last.
    pub age: Duration,
}

/// The bytes of an object, from where they were asked for.
pub struct BlobBytes {
    /// How long the whole object is.
    pub total: u64,
    /// From there on, to the end.
    pub rest: Pin<Box<dyn AsyncRead + Send>>,
}

/// Where long things are put. Each call tries a bounded number of times; who needs more tries again.
pub trait Blobs: Send + Sync {
    /// Where that is, for people: `s3://bucket/prefix`.
    fn place(&self) -> &str;

    /// Puts a file's content, in the place of what was there under that name. Done once all of it would survive; until then
    /// nobody sees any of it. The file must not change meanwhile.
    ///
    /// # Errors
    /// When the place does not take it, or the file can't be read. What was there before is there still.
    fn put<'a>(&'a self, key: &'a BlobKey, file: &'a Path) -> Pending<'a, Result<(), Error>>;

    /// The bytes from `from` on, none when that is the end or past it; `None` when there is no such object.
    ///
    /// # Errors
    /// When the place can't be asked.
    fn get<'a>(
        &'a self,
        key: &'a BlobKey,
        from: u64,
    ) -> Pending<'a, Result<Option<BlobBytes>, Error>>;

    /// What is there under a name; `None` when nothing is.
    ///
    /// # Errors
    /// When the place can't be asked.
    fn find<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<Option<StoredBlob>, Error>>;

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// When the place refuses, or can't be asked.
    fn delete<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<(), Error>>;

    /// All objects of a kind, in no order.
    ///
    /// # Errors
    /// When the place can't be asked.
    fn list(&self, kind: BlobKind) -> Pending<'_, Result<Vec<StoredBlob>, Error>>;

    /// Removes what puts that were cut off have left, once it is [`UNFINISHED`] old.
    ///
    /// # Errors
    /// When the place refuses, or can't be asked.
    fn drop_unfinished(&self) -> Pending<'_, Result<(), Error>>;
}

/// Somewhere that masters may put things, before it is known whose they are.
pub trait BlobPlace: Send + Sync {
    /// What belongs to the masters of this id: those of others are neither seen nor touched.
    fn of_masters(&self, id: &str) -> Arc<dyn Blobs>;
}
