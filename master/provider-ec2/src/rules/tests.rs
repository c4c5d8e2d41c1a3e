//! Rules in one form, and what covers what.

use aot_model::spec::GroupAction;
use proptest::prelude::*;

use super::*;

fn rule(protocol: i32, ports: (i32, i32), source: &str) -> Rule {
    let source = network(source).unwrap_or_else(|_| RuleSource::Group(source.into()));
    Rule {
        protocol,
        ports,
        source,
    }
}

fn inbound_rule(
    protocol: &str,
    ports: Option<(u16, u16)>,
    ip: Option<&str>,
    group: Option<&str>,
) -> InboundRule {
    InboundRule {
        protocol: protocol.into(),
        from_port: ports.map(|it| it.0),
        to_port: ports.map(|it| it.1),
        ip: ip.map(str::to_owned),
        group: group.map(str::to_owned),
    }
}

#[test]
fn the_file_s_rules_in_one_form() {
    let spec = SecurityGroupSpec {
        name: "p-1".into(),
        action: GroupAction::Create,
        allow_all_own_traffic: true,
        allow_ssh_from: vec!["10.1.2.3/8".into(), "2001:db8::1/32".into()],
        allow_inbound: vec![
            inbound_rule("TCP", Some((80, 81)), Some("1.2.3.4"), None),
            inbound_rule("udp", None, None, Some("web")),
            InboundRule {
                from_port: Some(8),
                ..inbound_rule("icmp", None, Some("0.0.0.0/0"), None)
            },
            inbound_rule("-1", None, Some("::/0"), None),
            inbound_rule("50", None, Some("0.0.0.0/0"), None),
        ],
    };
    let rules = wanted(&spec, "sg-own", |text| format!("sg-{text}")).unwrap();
    let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "all traffic from sg-own",
            "tcp 22 from 10.0.0.0/8",
            "tcp 22 from 2001:db8::/32",
            "tcp 80-81 from 1.2.3.4/32",
            "all udp from sg-web",
            "icmp type 8 from 0.0.0.0/0",
            "all traffic from ::/0",
            "all 50 from 0.0.0.0/0",
        ]
    );
    // What is sent comes back as what was meant.
    let mut sorted = rules.clone();
    sorted.sort();
    let mut back = shown(&permissions(&rules));
    back.sort();
    assert_eq!(back, sorted);
    assert!(missing(&rules, &back).is_empty());
}

#[test]
fn what_cannot_be_read_is_said() {
    for (bad, error) in [
        (
            inbound_rule("tcp", None, Some("10.0.0.0/33"), None),
            Error::Network("10.0.0.0/33".into()),
        ),
        (
            inbound_rule("tcp", None, Some("host"), None),
            Error::Network("host".into()),
        ),
        (
            inbound_rule("tpc", None, Some("::/0"), None),
            Error::Protocol("tpc".into()),
        ),
        (
            inbound_rule("256", None, Some("::/0"), None),
            Error::Protocol("256".into()),
        ),
        (inbound_rule("tcp", None, None, None), Error::NoSource),
    ] {
        assert_eq!(inbound(&bad, &str::to_owned), Err(error));
    }
}

#[test]
fn a_wider_rule_of_the_same_source_covers() {
    let any = "0.0.0.0/0";
    for (have, want, covered) in [
        (rule(ALL, ANY, any), rule(6, (22, 22), any), true),
        (rule(6, (0, 65_535), any), rule(6, (22, 22), any), true),
        (rule(6, (20, 25), any), rule(6, (22, 22), any), true),
        (rule(6, (22, 22), any), rule(6, (20, 25), any), false),
        (rule(17, (20, 25), any), rule(6, (22, 22), any), false),
        (
            rule(6, (22, 22), "10.0.0.0/8"),
            rule(6, (22, 22), any),
            false,
        ),
        (rule(ALL, ANY, "sg-1"), rule(ALL, ANY, "sg-2"), false),
        (rule(1, ANY, any), rule(1, (8, 0), any), true),
        (rule(1, (8, -1), any), rule(1, (8, 0), any), true),
        (rule(1, (8, 0), any), rule(1, (8, -1), any), false),
        (rule(6, (22, 22), any), rule(ALL, ANY, any), false),
        (rule(50, ANY, any), rule(50, ANY, any), true),
    ] {
        assert_eq!(have.covers(&want), covered, "{have} / {want}");
        assert_eq!(
            missing(std::slice::from_ref(&want), &[have]).is_empty(),
            covered
        );
    }
}

#[test]
fn what_ec2_shows_is_read() {
    let permission = IpPermission::builder()
        .ip_protocol("6")
        .from_port(80)
        .to_port(80)
        .ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build())
        .ipv6_ranges(Ipv6Range::builder().cidr_ipv6("::/0").build())
        .user_id_group_pairs(UserIdGroupPair::builder().group_id("sg-1").build())
        .build();
    let odd = IpPermission::builder().ip_protocol("x").build();
    assert_eq!(
        shown(&[permission, odd]),
        [
            rule(6, (80, 80), "0.0.0.0/0"),
            rule(6, (80, 80), "::/0"),
            rule(6, (80, 80), "sg-1")
        ]
    );
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        Just("0.0.0.0/0"),
        Just("10.0.0.0/8"),
        Just("::/0"),
        Just("sg-1")
    ];
    let what = prop_oneof![
        Just((ALL, ANY)),
        (0..4, 0..4).prop_map(|(from, more)| (6, (from, from + more))),
        (0..4, 0..4).prop_map(|(from, more)| (17, (from, from + more))),
        (-1..3).prop_map(|code| (1, (8, code))),
    ];
    (what, source).prop_map(|((protocol, ports), source)| rule(protocol, ports, source))
}

proptest! {
    #[test]
    fn once_added_nothing_is_missing(
        wanted in prop::collection::vec(any_rule(), 0..8),
        have in prop::collection::vec(any_rule(), 0..8),
    ) {
        let added = missing(&wanted, &have);
        let mut after = have.clone();
        after.extend(shown(&permissions(&added)));
        prop_assert!(missing(&wanted, &after).is_empty());
        for rule in &added {
            prop_assert!(wanted.contains(rule) && !have.iter().any(|it| it.covers(rule)));
        }
    }
}
