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
            Unavailable,
            Leftovers::Unknown,
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
    assert_eq!(classify(Failure::NotSent).1, Leftovers::None);
}
