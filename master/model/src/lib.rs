//! What is wanted, what is there, and every decision between the two. Pure: no clock, no I/O, no tokio.

#![warn(unreachable_pub)]

pub mod attestation;
mod backoff;
pub mod batch;
pub mod beyond;
pub mod cluster;
pub mod event;
pub mod facts;
pub mod hash;
pub mod health;
pub mod identity;
pub mod instance;
pub mod job;
pub mod json_text;
pub mod key;
pub mod launch;
pub mod level;
pub mod machine;
pub mod machine_rights;
mod needs;
pub mod outcome;
pub mod pace;
pub mod phase;
pub mod plan;
pub mod prerequisites;
pub mod problem;
mod random;
pub mod retention;
pub mod rolling;
pub mod run;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod secret;
pub mod selector;
pub mod spec;
pub mod stage;
pub mod task;
pub mod text;
mod turn_queue;
pub mod unix_ms;
pub mod view;
pub mod wire;
pub mod world;

pub use aot_proto::plural;
