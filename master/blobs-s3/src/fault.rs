//! What S3 says, and what can be done about it.

use std::error::Error as StdError;

use aot_aws::AwsFault;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// Why a call failed.
pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> AwsFault
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    AwsFault::new(&error, hint)
}

/// The file that was to be put can't be read.
pub(super) fn of_file(source: impl StdError + Send + Sync + 'static) -> AwsFault {
    AwsFault {
        hint: "check the disk of the state folder",
        source: Box::new(source),
    }
}

/// What S3 has is not what it was given.
pub(super) fn other_content(text: String) -> AwsFault {
    AwsFault {
        hint: "it will be put again",
        source: text.into(),
    }
}

fn hint(code: &str, status: u16) -> &'static str {
    match (code, status) {
        ("NoSuchBucket", _) => "make the bucket, or name another with AOT_BLOBS",
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301) => {
            "start the master with AWS_REGION set to the bucket's region"
        }
        (_, 401 | 403) => "give the master's credentials the rights that docs/settings.md lists",
        _ => "try again later",
    }
}

/// Whether the answer is that there is no such object. That there is no such bucket is an error.
pub(super) fn is_missing<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error.code() {
        Some("NoSuchKey" | "NotFound") => true,
        Some(_) => false,
        // An answer to HEAD has no body that could say it.
        None => error
            .raw_response()
            .is_some_and(|answer| answer.status().as_u16() == 404),
    }
}
