//! Tests of the tables.

use aot_proto::v1::{OrphanReason, agents_reply, orphans_reply};

use super::*;
use crate::view::samples;

const PLAIN: Style = Style { colour: false };

#[test]
fn instances_with_every_choice_of_columns() {
    let views = [
        samples::view("manager", "ready", &["succeeded", "succeeded"]),
        samples::view("web1", "failed", &["failed"]),
        samples::view("web2", "planned", &[]),
    ];
    let show = |columns| instances_table(&views, columns, PLAIN, None);
    insta::assert_snapshot!(
        [
            show(Columns::default()),
            show(Columns {
                overview: true,
                ..Columns::default()
            }),
            show(Columns {
                addresses: true,
                ..Columns::default()
            }),
            show(Columns {
                stages: true,
                properties: true,
                ..Columns::default()
            }),
        ]
        .join("\n\n")
    );
}

#[test]
fn what_does_not_fit_a_terminal_is_left_out_or_cut() {
    let mut view = samples::view("web1", "failed", &["failed"]);
    view.public_dns = "ec2-192-0-2-4.us-west-2.compute.amazonaws.com".into();
    view.stage_views[0].tail = vec!["x".repeat(200)];
    let views = [view];
    let every = |properties, stages, addresses, overview| Columns {
        properties,
        stages,
        addresses,
        overview,
    };
    for columns in [
        every(false, false, true, false),
        every(false, true, false, false),
        every(false, false, false, true),
    ] {
        let text = instances_table(&views, columns, PLAIN, Some(80));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{columns:?}: {line}");
        }
        assert!(text.contains("web1"), "{text}");
    }
    let whole = instances_table(&views, every(false, true, false, false), PLAIN, None);
    assert!(whole.contains(&"x".repeat(200)), "a pipe has all");
}

#[test]
fn agents() {
    let agents = AgentsReply {
        absent: Vec::new(),
        agents: vec![
            agents_reply::Entry {
                cluster: "hadoop".into(),
                instance: "web1".into(),
                machine_id: "i-1".into(),
                serial: "0a1b".into(),
                expires_unix: 1_767_312_184,
                last_seen_unix_ms: 1_767_225_784_123,
                connected: true,
                ..agents_reply::Entry::default()
            },
            agents_reply::Entry {
                cluster: "hadoop".into(),
                instance: "web3".into(),
                machine_id: "i-2".into(),
                serial: "0a1c".into(),
                revoked_unix_ms: 1_767_225_784_123,
                revoked_by: "uid 0".into(),
                ..agents_reply::Entry::default()
            },
            agents_reply::Entry {
                cluster: "hadoop".into(),
                instance: "web2".into(),
                ..agents_reply::Entry::default()
            },
        ],
    };
    insta::assert_snapshot!(agents_table(&agents, PLAIN, None));
}

#[test]
fn orphans() {
    let entry = |kind: &str, id: &str, why: &str, uuid: &str| orphans_reply::Entry {
        kind: kind.into(),
        id: id.into(),
        state: if kind == "instance" { "running" } else { "" }.into(),
        cluster: "hadoop".into(),
        uuid: uuid.into(),
        region: "us-west-2".into(),
        why: OrphanReason::from_name(why).expect("a reason").into(),
    };
    let entries = [
        entry("instance", "i-1", "unknown cluster", "5f0c"),
        entry("security-group", "sg-1", "unknown cluster", "5f0c"),
        entry("instance", "i-9", "not in the account", ""),
    ];
    let json: Vec<String> = entries
        .iter()
        .map(|entry| crate::view::orphan_json(entry).to_string())
        .collect();
    insta::assert_snapshot!(format!(
        "{}\n\n{}",
        crate::view::orphans_table(&entries, PLAIN, None),
        json.join("\n")
    ));
}

#[test]
fn a_receipt() {
    let receipt = |fields: &str, message: &str| {
        receipt_line(
            &Event {
                event: "receipt".into(),
                fields_json: fields.into(),
                message: message.into(),
                ..Event::default()
            },
            PLAIN,
        )
        .expect("a receipt")
    };
    insta::assert_snapshot!(
        [
            receipt(
                r#"{"kind":"instance","id":"i-0abc","state":"terminated","left":false}"#,
                ""
            ),
            receipt(
                r#"{"kind":"security-group","id":"sg-1","state":"in use by eni-1","left":true}"#,
                ""
            ),
            receipt("", "volume vol-1 deleted"),
        ]
        .join("\n")
    );
    assert_eq!(receipt_line(&Event::default(), PLAIN), None);
}
