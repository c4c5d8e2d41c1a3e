//! What a service, or the way to it, says.

use std::error::Error as StdError;

use aot_host::chain::Chain;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Why a call failed, and the way out.
#[derive(Debug)]
pub struct AwsFault {
    /// What to do about it.
    pub hint: &'static str,
    /// What was said, with the service's code where it gave one.
    pub source: Box<dyn StdError + Send + Sync>,
}

impl AwsFault {
    /// With the service's own hint, by its code (empty without one) and the HTTP status, if it answered at all.
    pub fn new<E>(
        error: &SdkError<E, HttpResponse>,
        hint: impl FnOnce(&str, u16) -> &'static str,
    ) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let code = error.code().unwrap_or_default();
        let said = match (code, error.message(), status) {
            ("", _, Some(status)) => format!("HTTP status {status}"),
            ("", ..) => Chain(error).to_string(),
            (code, Some(message), _) => format!("{code}: {message}"),
            (code, None, _) => code.to_owned(),
        };
        let hint = status.map_or(
            "check the network, the AWS credentials, AWS_REGION and AWS_ENDPOINT_URL",
            |status| hint(code, status),
        );
        Self {
            hint,
            source: said.into(),
        }
    }
}
