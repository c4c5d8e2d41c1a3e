//! Tests of `error`: codes and what they mean.

use super::*;

#[test]
fn codes_and_what_they_mean() {
    use ErrorKind::*;
    for (code, status, kind, leftovers) in [
        (
            "InsufficientInstanceCapacity",
            500,
            NoCapacity,
            Leftovers::None,
        ),
        (
            "InsufficientFreeAddressesInSubnet",
            400,
            NoCapacity,
            Leftovers::None,
        ),
        ("Unsupported", 400, NoCapacity, Leftovers::None),
        ("SpotMaxPriceTooLow", 400, NoCapacity, Leftovers::None),
        (
            "InsufficientVolumeCapacity",
            500,
            NoCapacity,
            Leftovers::None,
        ),
        (
            "ReservationCapacityExceeded",
            400,
            NoCapacity,
            Leftovers::None,
        ),
        ("AddressLimitExceeded", 400, Quota, Leftovers::None),
        ("TagLimitExceeded", 400, Invalid, Leftovers::None),
        (
            "InsufficientAddressCapacity",
            500,
            NoCapacity,
            Leftovers::None,
        ),
        ("InstanceLimitExceeded", 400, Quota, Leftovers::None),
        ("VcpuLimitExceeded", 400, Quota, Leftovers::None),
        ("MaxSpotInstanceCountExceeded", 400, Quota, Leftovers::None),
        ("RequestLimitExceeded", 503, Throttled, Leftovers::None),
        ("Throttling", 400, Throttled, Leftovers::None),
        ("UnauthorizedOperation", 403, Denied, Leftovers::None),
        ("AuthFailure", 401, Denied, Leftovers::None),
        ("InvalidClientTokenId", 403, Denied, Leftovers::None),
        (
            "IdempotentParameterMismatch",
            400,
            Invalid,
            Leftovers::Unknown,
        ),
        (
            "IdempotentInstanceTerminated",
            400,
            TokenSpent,
            Leftovers::Unknown,
        ),
        ("InvalidAMIID.NotFound", 400, Invalid, Leftovers::None),
        ("InvalidParameterValue", 400, Invalid, Leftovers::None),
        ("MissingParameter", 400, Invalid, Leftovers::None),
        ("InternalError", 500, Unavailable, Leftovers::Unknown),
        ("Unavailable", 503, Unavailable, Leftovers::Unknown),
        ("SomethingNew", 502, Unavailable, Leftovers::Unknown),
        ("IncorrectInstanceState", 400, Other, Leftovers::None),
        ("ServiceQuotaExceeded", 400, Quota, Leftovers::None),
        ("OptInRequired", 401, Denied, Leftovers::None),
        (
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            403,
            Denied,
            Leftovers::None,
        ),
        ("ExpiredToken", 400, NoCredentials, Leftovers::None),
        ("RequestExpired", 400, NoCredentials, Leftovers::None),
        (
            "InvalidPlacementGroup.InUse",
            400,
            OtherZone,
            Leftovers::None,
        ),
        ("InvalidParameterValue", 500, Invalid, Leftovers::None),
        ("VolumeLimitExceeded", 500, Quota, Leftovers::None),
    ] {
        assert_eq!(
            classify(Failure::Refused(Some(code), status)),
            (kind, leftovers),
            "{code}"
        );
    }
    for code in [
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "AddressLimitExceeded",
        "VolumeLimitExceeded",
    ] {
        assert!(way_out(Quota, code).contains("Service Quotas"), "{code}");
    }
    assert_eq!(way_out(NoCapacity, "InsufficientInstanceCapacity"), "");
    assert_eq!(
        classify(Failure::Refused(None, 500)),
        (Unavailable, Leftovers::Unknown)
    );
    assert_eq!(
        classify(Failure::Refused(None, 200)),
        (Unavailable, Leftovers::Unknown)
    );
    assert_eq!(
        classify(Failure::NoAnswer),
        (Unavailable, Leftovers::Unknown)
    );
    assert_eq!(classify(Failure::NotSent), (NoCredentials, Leftovers::None));
}

#[test]
fn what_lasts_is_not_repeated_whatever_its_status() {
    for (code, status) in [
        ("InsufficientInstanceCapacity", 500),
        ("InsufficientAddressCapacity", 500),
        ("InsufficientVolumeCapacity", 503),
        ("UnauthorizedOperation", 403),
        ("InvalidAMIID.NotFound", 500),
        ("InstanceLimitExceeded", 500),
    ] {
        assert!(!is_worth_repeating(code, status), "{code}");
    }
    for (code, status) in [
        ("InternalError", 500),
        ("Unavailable", 503),
        ("RequestLimitExceeded", 503),
        ("SomethingNew", 502),
        ("", 500),
    ] {
        assert!(is_worth_repeating(code, status), "{code}");
    }
}

#[test]
fn an_encoded_message_is_cut_and_the_rest_stays() {
    let code = "6g8KJmcoYD09-_".repeat(100);
    let text = format!("You are not authorized to do that. {ENCODED}{code}");
    let cut = without_encoded(&text);
    assert!(
        cut.starts_with("You are not authorized to do that. "),
        "{cut}"
    );
    assert!(cut.contains("decode-authorization-message"), "{cut}");
    assert!(cut.len() < 250, "{cut}");
    for whole in ["plain", &format!("{ENCODED}short")] {
        assert_eq!(without_encoded(whole), whole);
    }
}

#[test]
fn what_an_account_lacks_is_not_blamed_on_its_credentials() {
    for code in ["OptInRequired", "PendingVerification", "Blocked"] {
        let hint = way_out(ErrorKind::Denied, code);
        assert!(
            !hint.is_empty() && !hint.contains("credentials"),
            "{code}: {hint}"
        );
    }
    assert_eq!(lacks(Some("AuthFailure")), None);
}
