//! The small service that aot runs on each machine: dials the master, runs stages and commands, loses nothing.
//!
//! Used by its own thin binary and by tests. It never listens on a port, never speaks to AWS (but for the machine's own
//! metadata service), and never runs a journalled run twice.

pub mod backoff;
pub mod blocks;
pub mod boot;
pub mod bundle;
pub mod config;
pub mod copy;
pub mod facts;
pub mod files;
pub mod hostname;
pub mod identity;
pub mod imds;
pub mod journal;
pub mod keys;
pub mod link;
pub mod look;
pub mod power;
pub mod runner;
pub mod service;
pub mod session;
pub mod shell;
pub mod sshkeys;
pub mod stop;
pub mod tls;
pub mod users;
pub mod volumes;

/// Version of this agent, as it tells the master.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
