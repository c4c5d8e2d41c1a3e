//! Data keys of a service (KMS) that seals and opens them, and that no key of its own ever leaves. The masters of a fleet seal
//! what they share with one, and keep it beside that as the service sealed it.

use std::fmt;

use crate::Pending;
use crate::blobs::BoxedSource;

/// A new key.
pub struct DataKey {
    /// 32 bytes.
    pub plain: Vec<u8>,
    /// The same, as only the service opens it.
    pub sealed: Vec<u8>,
}

/// Never the key.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// Why there is no data key, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} with the key {key} of AOT_FLEET_KEY ({hint})")]
pub struct DataKeyError {
    /// What was tried.
    pub what: &'static str,
    /// The service's key, as it is set.
    pub key: String,
    /// What can be done.
    pub hint: &'static str,
    /// Why.
    pub source: BoxedSource,
}

/// The service, with one key of it.
pub trait DataKeys: Send + Sync {
    /// Its key, as it is set: `kms:...`.
    fn name(&self) -> &str;

    /// Makes a data key, which the service opens for this purpose alone.
    ///
    /// # Errors
    /// When the service does not.
    fn make<'a>(&'a self, purpose: &'a str) -> Pending<'a, Result<DataKey, DataKeyError>>;

    /// Opens one that it sealed for this purpose.
    ///
    /// # Errors
    /// When the service does not.
    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        purpose: &'a str,
    ) -> Pending<'a, Result<Vec<u8>, DataKeyError>>;
}
