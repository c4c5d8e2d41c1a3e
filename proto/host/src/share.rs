//! Our share of the processors.

/// Where each session has an equal share of the processors (sched(7), autogroup), that of every command and of every clone
/// would be as large as ours, and a busy machine would seem to be away. What is run has a session, and a share, of its own.
pub fn raise() {
    // Where it can't be had, nothing is lost but time.
    let _ = std::fs::write("/proc/self/autogroup", "-10");
}
