//! What an answer, or its absence, means: EC2's codes as kinds and leftovers. Pure.

use std::error::Error as StdError;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use crate::provider::{ErrorKind, Leftovers, ProviderError};

/// How a call failed, without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure<'a> {
    /// It was never sent.
    NotSent,
    /// It may have been sent; there is no usable answer.
    NoAnswer,
    /// EC2 said no: its code, and the HTTP status.
    Refused(Option<&'a str>, u16),
}

/// No machine of the wanted type can be had there now.
const NO_CAPACITY: [&str; 13] = [
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientCapacity",
    "InsufficientCapacityOnOutpost",
    "InsufficientCapacityOnHost",
    "InsufficientVolumeCapacity",
    "InsufficientFreeAddressesInSubnet",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",
    "VolumeTypeNotAvailableInZone",
];

/// Limits of one request, which stays too big.
const TOO_BIG: [&str; 2] = ["TagLimitExceeded", "FilterLimitExceeded"];

/// Asked too often.
const THROTTLED: [&str; 6] = [
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "RequestThrottled",
    "EC2ThrottledException",
    "TooManyRequestsException",
];

/// No right, or no good credentials.
const DENIED: [&str; 16] = [
    "UnauthorizedOperation",
    "AuthFailure",
    "AccessDenied",
    "AccessDeniedException",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSecurityToken",
    "MissingAuthenticationToken",
    "OptInRequired",
    "PendingVerification",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// EC2's own trouble.
const UNAVAILABLE: [&str; 5] = [
    "InternalError",
    "InternalFailure",
    "Unavailable",
    "ServiceUnavailable",
    "RequestTimeout",
];

/// What a failed launch call means (EC2 API Reference, "Error codes for the Amazon EC2 API").
pub fn classify(failure: Failure<'_>) -> (ErrorKind, Leftovers) {
    let (code, status) = match failure {
        Failure::NotSent => return (ErrorKind::Denied, Leftovers::None),
        Failure::NoAnswer => return (ErrorKind::Unavailable, Leftovers::Unknown),
        Failure::Refused(code, status) => (code.unwrap_or(""), status),
    };
    let is = |list: &[&str]| list.contains(&code);
    if is(&NO_CAPACITY) {
        (ErrorKind::NoCapacity, Leftovers::None)
    } else if is(&THROTTLED) {
        (ErrorKind::Throttled, Leftovers::None)
    } else if is(&DENIED) {
        (ErrorKind::Denied, Leftovers::None)
    } else if code == "IdempotentInstanceTerminated" {
        // Others of the same batch may live.
        (ErrorKind::TokenSpent, Leftovers::Unknown)
    } else if code == "IdempotentParameterMismatch" {
        // An earlier call with this token worked, or may have.
        (ErrorKind::Invalid, Leftovers::Unknown)
    } else if is(&UNAVAILABLE) || status >= 500 || code.is_empty() {
        (ErrorKind::Unavailable, Leftovers::Unknown)
    } else if is(&TOO_BIG) {
        (ErrorKind::Invalid, Leftovers::None)
    } else if code.ends_with("LimitExceeded") || code.ends_with("CountExceeded") {
        (ErrorKind::Quota, Leftovers::None)
    } else if is_invalid(code) {
        (ErrorKind::Invalid, Leftovers::None)
    } else {
        (ErrorKind::Other, Leftovers::None)
    }
}

/// Codes of requests that stay wrong.
fn is_invalid(code: &str) -> bool {
    let starts = [
        "Invalid",
        "Missing",
        "Malformed",
        "Unknown",
        "UnsupportedOperation",
        "VPC",
        "Validation",
    ];
    starts.iter().any(|start| code.starts_with(start))
        || code.ends_with("NotFound")
        || code.ends_with(".Malformed")
}

/// The failure of an SDK call, without the request.
pub fn failure<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure<'_> {
    match error {
        SdkError::ServiceError(answer) => {
            Failure::Refused(answer.err().code(), answer.raw().status().as_u16())
        }
        SdkError::ConstructionFailure(_) => Failure::NotSent,
        // The SDK reports missing credentials so.
        SdkError::DispatchFailure(lost)
            if lost.is_user() || lost.as_connector_error().is_none() =>
        {
            Failure::NotSent
        }
        _ => Failure::NoAnswer,
    }
}

/// For the trait: which operation, and what EC2 or the network said. Names no parameter.
pub fn provider_error<E>(
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> ProviderError
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    let failure = failure(error);
    let (kind, leftovers) = classify(failure);
    let (code, why) = match error {
        SdkError::ServiceError(answer) => {
            let (code, message) = (answer.err().code(), answer.err().message());
            let why = match (code, message) {
                (Some(code), Some(message)) => format!("{message} ({code})"),
                (Some(code), None) => code.to_owned(),
                _ => format!("HTTP status {}", answer.raw().status()),
            };
            (code.map(str::to_owned), why)
        }
        other => (None, chain(other)),
    };
    ProviderError {
        kind,
        leftovers,
        message: format!(
            "EC2 {operation}: {why}{}",
            way_out(kind, code.as_deref().unwrap_or(""))
        ),
        code,
    }
}

/// What to do about a limit of the account. EC2's own text names the limit, not the way out.
fn way_out(kind: ErrorKind, code: &str) -> &'static str {
    match (kind, code) {
        (ErrorKind::Quota, "AddressLimitExceeded") => {
            ": release addresses that nothing uses (`aot-master orphans` shows ours), or ask AWS for more (Service Quotas, \"EC2-VPC Elastic IPs\")"
        }
        (ErrorKind::Quota, "InstanceLimitExceeded" | "VcpuLimitExceeded") => {
            ": name other types or another region, or ask AWS for more (Service Quotas, \"Running On-Demand instances\")"
        }
        (ErrorKind::Quota, "MaxSpotInstanceCountExceeded") => {
            ": name other types, launch on demand, or ask AWS for more (Service Quotas, \"Spot Instance Requests\")"
        }
        (ErrorKind::Quota, _) => ": delete what nobody needs, or ask AWS for more (Service Quotas)",
        _ => "",
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An error of the request itself, found before it was sent.
pub fn invalid(message: impl Into<String>) -> ProviderError {
    ProviderError {
        kind: ErrorKind::Invalid,
        leftovers: Leftovers::None,
        message: message.into(),
        code: None,
    }
}

/// An answer that can't be whole.
pub fn cut_off(message: impl Into<String>) -> ProviderError {
    ProviderError {
        kind: ErrorKind::Unavailable,
        leftovers: Leftovers::Unknown,
        message: message.into(),
        code: None,
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
