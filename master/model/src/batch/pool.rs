//! A pool's part of the file as its calls were planned from it: one copy for all batches that say the same, in memory and on
//! record. Made by `world` when it plans calls, and by `record` when they are read.

use std::ops::Deref;
use std::sync::Arc;

use crate::hash::sha256_hex;
use crate::spec::PoolSpec;

/// A pool as it was when calls were planned, with the hash by which its batches name it on record.
#[derive(Debug, Clone)]
pub struct PlannedPool {
    sha256: Arc<str>,
    spec: Arc<PoolSpec>,
}

impl PlannedPool {
    /// Hashes the pool: once for all calls that are planned together.
    pub fn new(spec: PoolSpec) -> Self {
        let text = serde_json::to_vec(&spec).expect("a pool has string keys only");
        Self::on_record(&sha256_hex(&text), spec)
    }

    /// One that was on record under this name.
    pub(super) fn on_record(sha256: &str, spec: PoolSpec) -> Self {
        Self {
            sha256: sha256.into(),
            spec: Arc::new(spec),
        }
    }

    /// SHA-256 of its record when it was planned, hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Deref for PlannedPool {
    type Target = PoolSpec;

    fn deref(&self) -> &PoolSpec {
        &self.spec
    }
}

/// By what they say: the hash is of how it was once written.
impl PartialEq for PlannedPool {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec
    }
}
