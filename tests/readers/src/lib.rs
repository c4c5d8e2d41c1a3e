//! Where bytes of others are read, as functions of these bytes. `cargo fuzz` drives them with bytes of its own making
//! (`tests/fuzz.sh`), the tests of this crate with the seeds of each. A function panics when a promise does not hold; else
//! it has no result.

#[cfg(feature = "master")]
pub mod master;
pub mod wire;
