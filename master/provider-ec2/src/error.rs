//! What an answer, or its absence, means: EC2's codes as kinds and leftovers. Pure.

use std::error::Error as StdError;

use aot_host::chain::Chain;
use aot_provider::{ErrorKind, Leftovers, ProviderError};
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

/// How a call failed, without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure<'a> {
    /// It was never sent.
    NotSent,
    /// It may have been sent; there is no usable answer.
    NoAnswer,
    /// EC2 said no: its code, and the HTTP status.
    Refused(Option<&'a str>, u16),
}

/// No machine of the wanted type can be had there now.
const NO_CAPACITY: [&str; 14] = [
    "InsufficientInstanceCapacity",
    "InsufficientAddressCapacity",
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
const DENIED: [&str; 14] = [
    "UnauthorizedOperation",
    "AuthFailure",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "AccessDenied",
    "AccessDeniedException",
    "Blocked",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSecurityToken",
    "MissingAuthenticationToken",
    "OptInRequired",
    "PendingVerification",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Credentials that were good and have run out: the next ones may be there in a moment.
const EXPIRED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

/// A placement group that has machines in another zone than this call would use.
const OTHER_ZONE: &str = "InvalidPlacementGroup.InUse";

/// EC2's own trouble.
const UNAVAILABLE: [&str; 5] = [
    "InternalError",
    "InternalFailure",
    "Unavailable",
    "ServiceUnavailable",
    "RequestTimeout",
];

/// What a failed launch call means (EC2 API Reference, "Error codes for the Amazon EC2 API").
pub(crate) fn classify(failure: Failure<'_>) -> (ErrorKind, Leftovers) {
    let (code, status) = match failure {
        Failure::NotSent => return (ErrorKind::NoCredentials, Leftovers::None),
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
    } else if is(&EXPIRED) {
        (ErrorKind::NoCredentials, Leftovers::None)
    } else if code == OTHER_ZONE {
        (ErrorKind::OtherZone, Leftovers::None)
    } else if code == "IdempotentInstanceTerminated" {
        // Others of the same batch may live.
        (ErrorKind::TokenSpent, Leftovers::Unknown)
    } else if code == "IdempotentParameterMismatch" {
        // An earlier call with this token worked, or may have.
        (ErrorKind::Invalid, Leftovers::Unknown)
    } else if is(&UNAVAILABLE) || code.is_empty() {
        (ErrorKind::Unavailable, Leftovers::Unknown)
    } else if is(&TOO_BIG) {
        (ErrorKind::Invalid, Leftovers::None)
    } else if is_quota(code) {
        (ErrorKind::Quota, Leftovers::None)
    } else if is_invalid(code) {
        (ErrorKind::Invalid, Leftovers::None)
    } else if status >= 500 {
        // After the codes: EC2 says some things that last with a 5xx.
        (ErrorKind::Unavailable, Leftovers::Unknown)
    } else {
        (ErrorKind::Other, Leftovers::None)
    }
}

/// Whether the same call may work by itself a moment later, so that trying it again at once is of use.
pub(crate) fn is_worth_repeating(code: &str, status: u16) -> bool {
    let (kind, _) = classify(Failure::Refused(Some(code), status));
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Throttled)
}

/// Codes of limits of the account.
fn is_quota(code: &str) -> bool {
    let ends = ["LimitExceeded", "CountExceeded", "QuotaExceeded"];
    ends.iter().any(|end| code.ends_with(end)) || code == "ServiceQuotaExceededException"
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
pub(crate) fn failure<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure<'_> {
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
pub(crate) fn provider_error<E>(
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
                (Some(code), Some(message)) => format!("{} ({code})", without_encoded(message)),
                (Some(code), None) => code.to_owned(),
                _ => format!("HTTP status {}", answer.raw().status()),
            };
            (code.map(str::to_owned), why)
        }
        other => (None, Chain(other).to_string()),
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

/// What EC2 puts before the encoded part of a refusal.
pub(super) const ENCODED: &str = "Encoded authorization failure message: ";

/// A message with its encoded part, over a thousand characters that say nothing to anybody, cut short.
fn without_encoded(message: &str) -> String {
    let Some((before, encoded)) = message.split_once(ENCODED) else {
        return message.to_owned();
    };
    let is_of_it = |c: char| c.is_ascii_alphanumeric() || "-_+/=".contains(c);
    let end = encoded.find(|c| !is_of_it(c)).unwrap_or(encoded.len());
    let (code, after) = encoded.split_at(end);
    if code.len() <= ENCODED_SHOWN {
        return message.to_owned();
    }
    format!(
        "{before}{ENCODED}{}...{after} (all of it is in the master's log; aws sts decode-authorization-message decodes it)",
        &code[..ENCODED_SHOWN]
    )
}

/// So much of an encoded part is shown.
const ENCODED_SHOWN: usize = 16;

/// What an account lacks when EC2 refuses it although the credentials are good; `None` for other codes.
pub(crate) fn lacks(code: Option<&str>) -> Option<&'static str> {
    Some(match code? {
        "OptInRequired" => {
            "subscribe the account to the image's product in AWS Marketplace, or enable what the message names"
        }
        "PendingVerification" => {
            "AWS is still verifying the account: wait for its mail, or ask AWS Support"
        }
        "Blocked" => "AWS has blocked the account: ask AWS Support",
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => {
            "make the role once: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
        }
        _ => return None,
    })
}

/// What to do about a limit of the account, or what it lacks. EC2's own text does not name the way out.
fn way_out(kind: ErrorKind, code: &str) -> String {
    let limit = limit(kind, code);
    match lacks(Some(code)) {
        Some(hint) => format!(": {hint}"),
        None => limit.to_owned(),
    }
}

fn limit(kind: ErrorKind, code: &str) -> &'static str {
    match (kind, code) {
        (ErrorKind::Quota, "AddressLimitExceeded") => {
            ": release unused addresses (`aot-master orphans` shows those of aot), or ask AWS for more (Service Quotas, \"EC2-VPC Elastic IPs\")"
        }
        (ErrorKind::Quota, "InstanceLimitExceeded" | "VcpuLimitExceeded") => {
            ": name other types or another region, or ask AWS for more (Service Quotas, \"Running On-Demand instances\")"
        }
        (ErrorKind::Quota, "MaxSpotInstanceCountExceeded") => {
            ": name other types, launch on demand, or ask AWS for more (Service Quotas, \"Spot Instance Requests\")"
        }
        (ErrorKind::Quota, _) => {
            ": delete what is not needed, or ask AWS for more (Service Quotas)"
        }
        _ => "",
    }
}

/// An error of the request itself, found before it was sent.
pub(crate) fn invalid(message: impl Into<String>) -> ProviderError {
    ProviderError {
        kind: ErrorKind::Invalid,
        leftovers: Leftovers::None,
        message: message.into(),
        code: None,
    }
}

/// An answer that can't be whole.
pub(crate) fn cut_off(message: impl Into<String>) -> ProviderError {
    ProviderError {
        kind: ErrorKind::Unavailable,
        leftovers: Leftovers::Unknown,
        message: message.into(),
        code: None,
    }
}

#[cfg(test)]
mod tests;
