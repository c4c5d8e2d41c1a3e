//! The library behind `aot-master`: daemon and command line. See ARCHITECTURE.md for the map.

pub mod cli;
pub mod model;
pub mod provider;
pub mod view;
