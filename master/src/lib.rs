//! The library behind `aot-master`: daemon and command line. See ARCHITECTURE.md for the map.

pub mod bundle;
pub mod cli;
pub mod config;
pub mod enrol;
pub mod files;
pub mod model;
pub mod offline;
pub mod provider;
pub mod run;
pub mod server;
pub mod session;
pub mod store;
pub mod view;
