//! Records in PostgreSQL: the same as in `aot_store::sqlite`, for a master whose records must outlive its host.
//!
//! `url` is where, `connect` the way there, `schema` the tables, `take` who may write, `on_record` what there is to be
//! taken, `beat` the sign that it lives, `parts`
//! and `commit` how it writes, `read` and `load` how it reads. `store` puts them together.
//!
//! A master writes with a hold: the row of `owners` says by which epoch and sequence number. A write that does not fit changes
//! nothing, so that time alone, which may be wrong about who lives, never decides whether one counts.
//!
//! `state` ties a state folder to its database. `fleet` is what several masters of one database know of each other, `held` the
//! holds that this one has, `clocks` whether this host's can be relied on, `witnesses` what others have to say of that, `seen` what
//! is remembered of them from look to look, `silence` how long another was not heard of, `writers` and `loaders` the connections that are written
//! on and that clusters are loaded on.
//!
//! What is done once, by hand, without a master: `setup` looks at a database, `import` brings a folder's records into it, `level`
//! raises what records may have.

#![warn(unreachable_pub)]

mod beat;
mod clocks;
mod commit;
mod connect;
mod error;
mod fleet;
mod held;
mod import;
mod level;
mod load;
mod loaders;
mod on_record;
mod parts;
mod read;
mod schema;
mod seen;
#[cfg(any(test, feature = "server"))]
pub mod server;
mod setup;
mod silence;
mod state;
mod store;
mod take;
mod tls;
mod url;
mod witnesses;
mod writers;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use import::{ImportPlan, ImportedCluster};
pub use level::{LevelRaise, MasterLevel};
pub use setup::FoundDatabase;
pub use store::Postgres;
pub use take::Timing;
pub use url::{PostgresUrl, UrlError};
