//! What providers answer, in the model's terms.

use aot_model::world::{CallFailure, ReceiptLine, Terminations};
use aot_provider::{Changed, ProviderError, Receipt};

pub(super) fn receipt_lines(receipts: Vec<Receipt>) -> Vec<ReceiptLine> {
    let line = |it: Receipt| (it.kind, it.id, it.state, it.left);
    receipts.into_iter().map(line).collect()
}

pub(super) fn terminations(changed: Changed) -> Terminations {
    let refused = changed.refused.into_iter();
    Terminations {
        unknown: changed.unknown,
        terminated: changed.terminated,
        refused: refused.map(|(id, error)| (id, failure(error))).collect(),
    }
}

pub(super) fn failure(error: ProviderError) -> CallFailure {
    CallFailure {
        kind: error.kind,
        leftovers: error.leftovers,
        message: error.to_string(),
    }
}
