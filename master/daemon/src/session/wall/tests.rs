//! Every field that the protocol's descriptors have, sent as it must not come.

use std::collections::BTreeSet;

use aot_proto::v1::AgentMessage;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use super::fields::{FIELDS, FieldBound};
use super::*;

/// What a terminal would act on, a log would split at, and nobody would see.
const HARM: &str = "\u{1b}]0;harm\u{7}\u{9b}2J\u{202e}\u{2028}\n";

/// A text, bytes or list of a message, and the numbers of the fields that lead to it.
struct Found {
    name: String,
    path: Vec<i32>,
    is_bytes: bool,
    is_list: bool,
}

struct Protocol(FileDescriptorSet);

impl Protocol {
    fn new() -> Self {
        Self(FileDescriptorSet::decode(aot_proto::DESCRIPTORS).expect("our own"))
    }

    fn message(&self, name: &str) -> &DescriptorProto {
        let all = self.0.file.iter().flat_map(|file| &file.message_type);
        let mut found = all.filter(|message| message.name() == name);
        found.next().unwrap_or_else(|| panic!("no message {name}"))
    }

    fn walk(&self, message: &str, before: &[i32], found: &mut Vec<Found>) {
        for field in &self.message(message).field {
            let path: Vec<i32> = before.iter().copied().chain([field.number()]).collect();
            let name = format!("{message}.{}", field.name());
            let is_list = field.label() == Label::Repeated;
            let text = |name, is_list| Found {
                name,
                path: path.clone(),
                is_bytes: field.r#type() == Type::Bytes,
                is_list,
            };
            if is_list {
                found.push(text(name.clone(), true));
            }
            match field.r#type() {
                Type::Message => self.walk(type_name(field), &path, found),
                Type::String | Type::Bytes if is_list => found.push(text(name + "[]", false)),
                Type::String | Type::Bytes => found.push(text(name, false)),
                _ => {}
            }
        }
    }

    fn all(&self, message: &str) -> Vec<Found> {
        let mut found = Vec::new();
        self.walk(message, &[], &mut found);
        found
    }
}

fn type_name(field: &FieldDescriptorProto) -> &str {
    field.type_name().rsplit('.').next().unwrap_or_default()
}

/// The field's bytes on the wire, and the messages around it.
fn nested(path: &[i32], payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for number in path.iter().rev() {
        let mut outer = Vec::new();
        let key = u64::try_from(*number).expect("positive") << 3 | 2;
        prost::encoding::encode_varint(key, &mut outer);
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

/// Bytes that get past the wall; `None` when the message does not.
fn through(root: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match root {
        "AgentMessage" => {
            let body = AgentMessage::decode(bytes).expect("it is one").body;
            let body = admit(body.expect("it has one")).ok()??;
            Some(AgentMessage { body: Some(body) }.encode_to_vec())
        }
        "EnrolRequest" => {
            let mut request = v1::EnrolRequest::decode(bytes).expect("it is one");
            if request.machine_id.is_empty() {
                "i-1".clone_into(&mut request.machine_id);
            }
            admit_enrolment(request).ok().map(|it| it.encode_to_vec())
        }
        "ShellUp" => {
            let up = v1::ShellUp::decode(bytes).expect("it is one");
            admit_shell(up).ok().map(|it| it.encode_to_vec())
        }
        "TunnelUp" => {
            let up = v1::TunnelUp::decode(bytes).expect("it is one");
            admit_tunnel(up).ok().map(|it| it.encode_to_vec())
        }
        _ => {
            let request = v1::FetchRequest::decode(bytes).expect("it is one");
            admit_fetch(request).ok().map(|it| it.encode_to_vec())
        }
    }
}

const ROOTS: [&str; 5] = [
    "AgentMessage",
    "EnrolRequest",
    "ShellUp",
    "TunnelUp",
    "FetchRequest",
];

fn bound(name: &str) -> FieldBound {
    let row = FIELDS.iter().find(|(field, _)| *field == name);
    row.unwrap_or_else(|| panic!("{name} has no row in FIELDS: who bounds it?"))
        .1
}

/// Room for what goes around a field.
const AROUND: usize = 64;

#[test]
fn every_field_of_every_message_has_a_row_and_no_row_is_left_over() {
    let protocol = Protocol::new();
    let found = ROOTS.iter().flat_map(|root| protocol.all(root));
    let found: BTreeSet<String> = found.map(|field| field.name).collect();
    let rows: BTreeSet<String> = FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<&String> = found.difference(&rows).collect();
    assert!(
        missing.is_empty(),
        "who bounds {missing:?}? Add them to FIELDS"
    );
    let left: Vec<&String> = rows.difference(&found).collect();
    assert!(left.is_empty(), "there is no {left:?} any more");
    assert!(found.len() > 30, "the descriptors were not read");
}

#[test]
fn no_field_gets_past_longer_or_other_than_its_row_says() {
    let protocol = Protocol::new();
    for root in ROOTS {
        for field in protocol.all(root) {
            let most = match bound(&field.name) {
                FieldBound::Count(most) => {
                    let last = field.path.len() - 1;
                    let entries: Vec<u8> = (0..=most)
                        .flat_map(|_| nested(&field.path[last..], b""))
                        .collect();
                    assert!(field.is_list);
                    if let Some(bytes) = through(root, &nested(&field.path[..last], &entries)) {
                        let limit = AROUND + most * 2;
                        assert!(
                            bytes.len() <= limit,
                            "{}: {} bytes",
                            field.name,
                            bytes.len()
                        );
                    }
                    continue;
                }
                FieldBound::Text(most) | FieldBound::Id(most) | FieldBound::Bytes(most) => most,
            };
            let long = "x".repeat(most + 1);
            for text in [
                HARM.to_owned(),
                HARM.repeat(most),
                long,
                format!("a{HARM}b"),
            ] {
                let Some(bytes) = through(root, &nested(&field.path, text.as_bytes())) else {
                    continue;
                };
                let name = &field.name;
                assert!(
                    bytes.len() <= most + AROUND,
                    "{name}: {} bytes",
                    bytes.len()
                );
                let as_it_is = matches!(bound(name), FieldBound::Bytes(_)) || field.is_bytes;
                assert!(as_it_is || !shows(&bytes), "{name}: {bytes:?}");
                let is_id = matches!(bound(name), FieldBound::Id(_));
                let whole = bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes());
                assert!(!is_id || !whole, "{name} takes {text:?}");
            }
        }
    }
}

/// Whether a harmful part of [`HARM`] is in there: in two characters each, as one byte alone may be a length.
fn shows(bytes: &[u8]) -> bool {
    let mut parts = ["\u{1b}]", "\u{7}\u{9b}", "\u{9b}2", "\u{202e}", "\u{2028}"].iter();
    parts.any(|part| {
        bytes
            .windows(part.len())
            .any(|found| found == part.as_bytes())
    })
}

#[test]
fn what_honest_agents_say_gets_past_as_it_is() {
    let run_id = RunId::from_parts(1, 1).to_string();
    let key = format!("ssh-ed25519 {} root@a", "A".repeat(68));
    let bodies = [
        Body::Hello(v1::Hello {
            agent_version: "0.1.0".to_owned(),
            boot_id: "5f6e2c1a-0000-4000-8000-000000000000".to_owned(),
            runs: vec![
                v1::RunState {
                    run_id: run_id.clone(),
                    ..v1::RunState::default()
                };
                MAX_RUNS
            ],
            ..v1::Hello::default()
        }),
        Body::Facts(v1::FactsReport {
            node_json: format!(r#"{{"a":"{}"}}"#, "x".repeat(200 << 10)),
            ssh_host_keys: vec![key.clone(); 4],
            root_public_key: key.clone(),
            user_public_key: key,
            main_user: "ec2-user".to_owned(),
        }),
        Body::RunAnswer(v1::RunAnswer {
            run_id: run_id.clone(),
            reason: "cannot create /x: Permission denied (os error 13)".to_owned(),
            ..v1::RunAnswer::default()
        }),
        Body::BuiltinReply(v1::BuiltinReply {
            json: r#"{"lines":["a\u001bb"]}"#.to_owned(),
            ..v1::BuiltinReply::default()
        }),
        Body::CopyProgress(v1::CopyProgress {
            run_id,
            bytes: 5,
            total_bytes: 10,
        }),
    ];
    for body in bodies {
        assert_eq!(admit(body.clone()), Ok(Some(body)));
    }
}

#[test]
fn facts_are_counted_as_a_whole_and_what_is_none_is_left_out() {
    let facts = |json: usize, keys: usize| v1::FactsReport {
        node_json: "x".repeat(json),
        ssh_host_keys: vec!["k".repeat(MAX_KEY_BYTES); keys],
        ..v1::FactsReport::default()
    };
    let keys = 4 * MAX_KEY_BYTES;
    assert!(admit_facts(facts(MAX_FACTS_BYTES - keys, 4)).is_some());
    assert!(admit_facts(facts(MAX_FACTS_BYTES - keys + 1, 4)).is_none());
    let many = admit_facts(facts(0, 1000)).expect("they are cut");
    assert_eq!(many.ssh_host_keys.len(), MAX_HOST_KEYS);
    for bad in [
        "u\nroot ALL=(ALL) NOPASSWD: ALL",
        "-r",
        "a b",
        "..",
        "é",
        "a/b",
    ] {
        let facts = v1::FactsReport {
            main_user: bad.to_owned(),
            root_public_key: format!("ssh-ed25519 AAAA{bad}\u{85}"),
            ..v1::FactsReport::default()
        };
        let admitted = admit_facts(facts).expect("the rest is good");
        assert_eq!(admitted, v1::FactsReport::default(), "{bad:?}");
    }
}

#[test]
fn an_answer_that_is_not_json_is_an_error_of_the_agent() {
    for bad in ["", "nonsense", "{\"a\":", "true false", "\"\u{1b}\""] {
        let reply = v1::BuiltinReply {
            json: bad.to_owned(),
            ..v1::BuiltinReply::default()
        };
        let reply = admit_answer(reply);
        assert_eq!(reply.json, "", "{bad:?}");
        assert_eq!(reply.error, "its answer is not JSON");
    }
}
