//! Answers by a gRPC status that the other side acts on, not only prints. Made by the master; read by the command line.

use tonic::Status;
use tonic::metadata::MetadataValue;

const STOPPING: &str = "the master is stopping";

const MOVED: &str = "the cluster has moved to another master, or is about to: nothing was begun; try again in a moment, `aot-master masters` shows who has it";

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

/// UNAVAILABLE: nothing can be put on record for now. What was asked for was not begun, and will not be.
#[must_use]
pub fn store_away() -> Status {
    Status::unavailable(
        "the master's database has not answered for a while: nothing was begun; what runs continues; try again, `aot-master status` says whether it is back",
    )
}

/// UNAVAILABLE: what was asked for was being put on record when that could not be done any more.
#[must_use]
pub fn store_unsure() -> Status {
    Status::unavailable(
        "the master's database stopped answering amid this: whether it was begun is known once it answers again, look at `aot-master jobs` then before you try again",
    )
}

/// UNAVAILABLE: the cluster has gone to another master since the request was passed on. Nothing was begun.
#[must_use]
pub fn moved() -> Status {
    Status::unavailable(MOVED)
}

/// In the metadata of a status: another master may answer the same in a moment.
const AGAIN: &str = "aot-again";

/// UNAVAILABLE: whoever has the cluster is not reached, or has it no more; another master takes it soon.
#[must_use]
pub fn owner_gone(text: String) -> Status {
    let mut status = Status::unavailable(text);
    let value = MetadataValue::from_static("1");
    status.metadata_mut().insert(AGAIN, value);
    status
}

/// UNAVAILABLE: what is followed is followed by another master now.
#[must_use]
pub fn left() -> Status {
    owner_gone("the cluster is with another master now: what was begun continues there".to_owned())
}

/// Whether it is that of [`owner_gone`].
#[must_use]
pub fn is_owner_gone(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable && status.metadata().contains_key(AGAIN)
}

/// Whether it is that of [`moved`].
#[must_use]
pub fn is_moved(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable && status.message() == MOVED
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
        assert!(
            is_owner_gone(&left()) && !is_owner_gone(&moved()) && !is_owner_gone(&store_away())
        );
        assert!(is_moved(&moved()) && !is_moved(&stopping()) && !is_stopping(&moved()));
    }
}
