//! How calls of operators are refused: each reason with the code that its caller acts on. Called by every file of the
//! operators' service; nothing is decided here.

use aot_host::chain::Chain;
use aot_model::world::OpError;
use aot_proto::{fault, status};
use aot_store::blobs;
use tonic::Status;

use crate::run::{Unanswered, ask, prepare, stop};

/// Exhaustive: every refusal by the model has its code.
pub(super) fn refused(error: &OpError) -> Status {
    match error {
        OpError::NoCluster(_)
        | OpError::NoInstance(_)
        | OpError::NoMachine(_)
        | OpError::NoJob(_) => Status::not_found(error.to_string()),
        OpError::Conflict(_) => Status::failed_precondition(error.to_string()),
        OpError::Invalid(_) => Status::invalid_argument(error.to_string()),
    }
}

pub(super) fn unprepared(error: &prepare::Error) -> Status {
    if let prepare::Error::File(report) = error {
        return fault::file(&report.render_within(fault::MAX_REPORT_BYTES));
    }
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text.push_str(&format!(": {source}"));
        if let Some(cause) = source.source() {
            text.push_str(&format!(": {cause}"));
        }
    }
    Status::invalid_argument(text)
}

/// Why nothing was begun: what it needs could not be put where other masters find it.
pub(super) fn unput(error: &blobs::Error) -> Status {
    Status::unavailable(Chain(error).to_string())
}

/// Why a look at a provider showed nothing.
pub(super) fn unseen(error: &ask::Error) -> Status {
    match error {
        ask::Error::Refused(_) => Status::unavailable(error.to_string()),
        ask::Error::Late(_) => Status::unavailable("the provider does not answer"),
        ask::Error::Stopping => stopping(),
    }
}

/// What was said, if anything. A text that was given and is empty says nothing: most likely a variable that was never set,
/// so it is refused and never taken for "not said", which often means all.
pub(super) fn not_empty<'a>(what: &str, said: Option<&'a str>) -> Result<Option<&'a str>, Status> {
    match said {
        Some("") => Err(Status::invalid_argument(format!(
            "{what} is empty: leave it out, or give a value"
        ))),
        said => Ok(said),
    }
}

/// Why there is no answer of the loop's.
pub(super) fn unanswered(why: Unanswered) -> Status {
    match why {
        Unanswered::Stopping => stopping(),
        Unanswered::Away => status::store_away(),
        Unanswered::Unsure => status::store_unsure(),
        Unanswered::Elsewhere => status::moved(),
    }
}

pub(super) fn stopping() -> Status {
    stop::why().map_or_else(status::stopping, status::stopping_because)
}
