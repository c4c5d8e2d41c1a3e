//! Answers by a gRPC status that the other side acts on, not only prints. Made by the master; read by the command line.

use tonic::Status;

const STOPPING: &str = "the master is stopping";

/// UNAVAILABLE: the master ends in an orderly way, and another one may be asked the same again.
#[must_use]
pub fn stopping() -> Status {
    Status::unavailable(STOPPING)
}

/// UNAVAILABLE: the master ends for this reason, which another one would meet as well.
#[must_use]
pub fn stopping_because(why: &str) -> Status {
    Status::unavailable(format!("{STOPPING}: {why}"))
}

/// Whether it is that of [`stopping`].
#[must_use]
pub fn is_stopping(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable && status.message() == STOPPING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stop_without_a_reason_lets_another_master_be_asked() {
        assert!(is_stopping(&stopping()));
        assert!(!is_stopping(&stopping_because(
            "no space left in /var/lib/aot"
        )));
        assert!(!is_stopping(&Status::internal(STOPPING)));
    }
}
