//! What survives a restart: records in SQLite or another engine, outputs and bundles as files. With the crates of other
//! engines the only one that knows SQL.
//!
//! `blobs` is a place for what is long and must outlive the master's own disk.
//!
//! `data_keys` is a service that seals what masters share.
//!
//! `store` is what a master needs of an engine, `hold` the right to write, `contract` what every engine must do; `sqlite` is
//! the one that is always there. Nothing outside learns which it is.

#![warn(unreachable_pub)]

pub mod blobs;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod data_keys;
mod error;
pub mod fatal;
pub mod fleet;
mod hold;
mod kept;
pub mod record;
pub mod room;
pub mod spool;
pub mod sqlite;
mod store;
mod store_clock;

pub use data_keys::{DataKey, DataKeyError, DataKeys};
pub use error::Error;
pub use hold::{Hold, HoldPosition};
pub use kept::kept;
pub use store::{
    Backend, ClosedJob, Loaded, OpenStore, Pending, SharedSecrets, Store, StoredOutputs,
};
pub use store_clock::{StoreClock, WallClock};
