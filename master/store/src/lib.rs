//! What survives a restart: records in SQLite, outputs and bundles as files. The only crate that knows SQL.
//!
//! One thread (`writer`) owns the writing connection and commits what waits in one transaction (WAL, synchronous=FULL), so a
//! write that was acknowledged is on disk. Readers have connections of their own. Nothing outside learns that it is SQLite.

#![warn(unreachable_pub)]

mod error;
pub mod fatal;
mod load;
mod prune;
mod read;
mod record;
pub mod room;
mod rows;
mod schema;
pub mod spool;
mod store;
mod targets;
mod writer;

pub use error::Error;
pub use load::Loaded;
pub use store::Store;
