//! Names of machines.

use super::*;

#[test]
fn names_of_machines_are_good_for_every_member_and_lead_to_one() {
    let text = |rest: &str| format!("{{cluster: c, provider: local, {rest}}}");
    let label = "x".repeat(62);
    let long = format!("{}.{}", "x".repeat(40), "y".repeat(40));
    for (rest, what, other) in [
        (
            format!("pools: [{{name: w, size: 12, hostname: '{label}{{id}}'}}]"),
            "63 characters between dots",
            false,
        ),
        (
            format!("instances: [{{name: w, hostname: {long}}}]"),
            "64 characters",
            false,
        ),
        ("instances: [{name: web-}]".to_owned(), "hyphen", false),
        (
            "pools: [{name: 'w{id}-', size: 2}]".to_owned(),
            "hyphen",
            false,
        ),
        (
            "instances: [{name: localhost}]".to_owned(),
            "machine itself",
            false,
        ),
        (
            "instances: [{name: a, hostname: LOCALHOST.localdomain}]".to_owned(),
            "machine itself",
            false,
        ),
        (
            "instances: [{name: a, hostname: 10.0.0.1}]".to_owned(),
            "address",
            false,
        ),
        (
            "instances: [{name: a, hostname: b}, {name: b}]".to_owned(),
            "a name of both b and a",
            true,
        ),
        (
            "instances: [{name: b}, {name: a, hostname: B}]".to_owned(),
            "a name of both a and b",
            true,
        ),
        (
            "instances: [{name: a, hostname: x}, {name: b, hostname: X}]".to_owned(),
            "a name of both b and a",
            true,
        ),
        (
            "instances: [{name: a, hostname: w2}], pools: [{name: w, size: 3}]".to_owned(),
            "a name of both w2 and a",
            true,
        ),
        (
            "pools: [{name: v, size: 2, hostname: 'n{id}'}, {name: w, size: 2, hostname: 'n{id}'}]"
                .to_owned(),
            "a name of both w1 and v1",
            true,
        ),
    ] {
        let report = parse(&text(&rest)).expect_err(&rest);
        let [problem] = report.problems() else {
            panic!("{rest}: {report}");
        };
        assert!(problem.message.contains(what), "{rest}: {report}");
        assert_eq!(problem.other.is_some(), other, "{rest}: both places");
        assert!(problem.span.start > 0, "{rest}");
    }
    for good in [
        "instances: [{name: a, hostname: a}, {name: b, hostname: A.example.com}]",
        "pools: [{name: w, size: 12, hostname: 'n{id}.example.com'}]",
    ] {
        assert!(parse(&text(good)).is_ok(), "{good}");
    }
}
