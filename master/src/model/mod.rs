//! What is wanted, what is there, and every decision between the two. Pure: no clock, no I/O, no tokio.

pub mod cluster;
pub mod event;
pub mod facts;
pub mod file;
pub mod ground;
pub mod hash;
pub mod job;
pub mod machine;
pub mod needs;
pub mod pace;
pub mod phase;
pub mod plan;
pub mod retention;
#[cfg(test)]
pub mod samples;
pub mod stage;
pub mod target;
pub mod view;
pub mod world;
