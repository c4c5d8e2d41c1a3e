//! Waits for conditions. Every wait polls a level that stays true, has a limit, and names what it waits for.

use std::time::{Duration, Instant};

/// Longest wait for what comes soon, and longest run of one command, unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` says true.
///
/// # Panics
/// When `limit` passes first; the message is `what`.
#[track_caller]
pub fn until(mut look: impl FnMut() -> bool, limit: Duration, what: &str) {
    some(|| look().then_some(()), limit, what);
}

/// Waits until `look` finds something, and gives it.
///
/// # Panics
/// When `limit` passes first; the message is `what`.
#[track_caller]
pub fn some<T>(mut look: impl FnMut() -> Option<T>, limit: Duration, what: &str) -> T {
    match maybe(&mut look, limit) {
        Some(found) => found,
        None => panic!("waited {} s in vain: {what}", limit.as_secs_f32()),
    }
}

/// Waits until `look` finds something; `None` when `limit` passes first.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that polls: other programs' state wakes nobody here"
)]
pub fn maybe<T>(mut look: impl FnMut() -> Option<T>, limit: Duration) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(EVERY);
    }
}
