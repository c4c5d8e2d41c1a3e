//! What measures time or memory, fills a disk, or needs the whole machine: one test after the other, however many threads
//! there are. Each begins with `let _turn = crate::turn();`.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod ec2_scale;
mod ec2_silent;
mod fleet_chaos;
mod fleet_facts;
mod fleet_outputs;
mod fleet_sessions;
mod liar_shut_out;
mod liar_words;
mod local_chaos;
mod starve;
mod timed;

/// Held for as long as a test runs; another that has failed is no reason to fail.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
