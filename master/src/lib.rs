//! The library behind `aot-master`: daemon and command line. See ARCHITECTURE.md for the map.

pub mod model;
pub mod provider;
