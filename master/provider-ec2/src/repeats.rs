//! Which refusals the SDK repeats by itself: none that will be the same the next time. EC2 says that there is no capacity
//! with HTTP 500, which the SDK's own rules take for trouble that passes. Called by `client`.

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

use super::error::is_worth_repeating;

/// Forbids the repeat of what lasts; has no opinion on the rest.
#[derive(Debug)]
pub(super) struct LastingRefusals;

impl ClassifyRetry for LastingRefusals {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(answer) = context.response() else {
            return RetryAction::NoActionIndicated;
        };
        let status = answer.status().as_u16();
        match answer.body().bytes().and_then(code) {
            Some(code) if !is_worth_repeating(code, status) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "lasting refusals"
    }
}

/// The code in EC2's XML of an error.
fn code(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.trim())
}

#[cfg(test)]
mod tests {
    use crate::client::call;
    use crate::fake::Replay;
    use aot_provider::ErrorKind;

    async fn asked(code: &str, status: u16) -> (usize, ErrorKind) {
        let fake = Replay::default();
        fake.refuse("RunInstances", status, code, "no");
        let client = fake.client().await;
        let answer = call("RunInstances", client.run_instances().send()).await;
        let kind = answer.unwrap_err().kind;
        (fake.asked("RunInstances").len(), kind)
    }

    #[tokio::test(start_paused = true)]
    async fn no_capacity_is_heard_once_and_trouble_is_tried_again() {
        for code in ["InsufficientInstanceCapacity", "InsufficientHostCapacity"] {
            assert_eq!(asked(code, 500).await, (1, ErrorKind::NoCapacity), "{code}");
        }
        let (times, kind) = asked("InternalError", 500).await;
        assert!(times > 1, "{times}");
        assert_eq!(kind, ErrorKind::Unavailable);
    }
}
