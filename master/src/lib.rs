//! The library behind `aot-master`: daemon and command line. See ARCHITECTURE.md for the map.

pub mod bundle;
pub mod config;
pub mod model;
pub mod offline;
pub mod provider;
