//! What both programs need of the machine that they run on. Knows nothing of clusters, messages or masters.

#![warn(unreachable_pub)]

pub mod boot_id;
pub mod chain;
pub mod clock;
pub mod core_dumps;
pub mod descriptors;
pub mod environment;
pub mod files;
pub mod hash;
pub mod holders;
pub mod in_a_row;
pub mod log;
pub mod removal;
pub mod share;
pub mod users;
