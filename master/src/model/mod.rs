//! What is wanted, what is there, and every decision between the two. Pure: no clock, no I/O, no tokio.

pub mod file;
pub mod plan;
pub mod stage;
pub mod target;
