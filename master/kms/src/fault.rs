//! What KMS says, and what can be done about it.

use std::error::Error as StdError;

use aot_aws::AwsFault;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

/// Why a call failed.
pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> AwsFault
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    AwsFault::new(&error, hint)
}

/// An answer without what was asked for.
pub(super) fn no_key() -> AwsFault {
    AwsFault {
        hint: "try again later",
        source: "the answer has no key".into(),
    }
}

fn hint(code: &str, status: u16) -> &'static str {
    match (code, status) {
        ("NotFoundException", _) => {
            "make the key, or name another; an id or alias is looked for in AWS_REGION"
        }
        ("DisabledException" | "KMSInvalidStateException", _) => {
            "enable the key, or cancel its deletion: nothing else opens the keys of the fleet"
        }
        ("IncorrectKeyException" | "InvalidCiphertextException", _) => {
            "name the key that the fleet's keys were sealed with; an alias may lead to another one by now"
        }
        ("InvalidKeyUsageException", _) => "name a symmetric key for encryption",
        (_, 401 | 403) | ("AccessDeniedException", _) => {
            "give the master's role kms:Decrypt and kms:GenerateDataKey on it: packaging/iam/aot-fleet.json"
        }
        _ => "try again later",
    }
}
