//! What the schema knows of values beyond their kind: the few words that a key takes, bounds of numbers, forms of names. Each is what
//! reading a file refuses as well; a test compares the two.

use serde_json::{Value, json};

/// Definition of a word that YAML 1.1 reads as true or false, and YAML 1.2, which most editors know, as text.
pub(super) const YES_NO: &str = "YesNo";

/// Those words.
const WORDS: [&str; 22] = [
    "true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES", "no", "No", "NO", "on",
    "On", "ON", "off", "Off", "OFF", "y", "Y", "n", "N",
];

/// Where instances and pools have their keys.
const MACHINES: [&str; 3] = ["Common", "Instance", "Pool"];

/// The schema of a key of a definition; of the top of the file where that is empty.
fn at<'a>(schema: &'a mut Value, definition: &str, key: &str) -> Option<&'a mut Value> {
    let of = match definition {
        "" => schema,
        name => schema.get_mut("$defs")?.get_mut(name)?,
    };
    of.get_mut("properties")?.get_mut(key)
}

/// Adds all of them.
pub(super) fn add(schema: &mut Value) {
    let texts: [(&str, &[&str], Value); 10] = [
        (
            "",
            &["cluster"],
            json!({"pattern": "^[a-z][a-z0-9-]{0,62}$"}),
        ),
        ("", &["provider"], words(&["ec2", "local"])),
        (
            "",
            &["attestation"],
            words(&["auto", "document", "challenge", "both", "token"]),
        ),
        ("", &["ssh"], words(&["root", "users", "none"])),
        ("", &["cluster_facts"], words(&["full", "addresses"])),
        ("Launch", &["on_failure"], words(&["keep", "rollback"])),
        ("Launch", &["replace"], json!({"maximum": 10})),
        (
            "Group",
            &["action"],
            words(&["create", "find", "find_or_create"]),
        ),
        (
            "Pool",
            &["size", "instances_count", "count"],
            json!({"maximum": crate::MAX_INSTANCES}),
        ),
        (
            "Pool",
            &["ids"],
            json!({"pattern": r"^\s*[0-9]+\s*\.\.\s*[0-9]+\s*$"}),
        ),
    ];
    let volume: [(&str, &[&str], Value); 5] = [
        (
            "Volume",
            &["size", "volume_size"],
            json!({"minimum": 1, "maximum": 65_536}),
        ),
        (
            "Volume",
            &["type", "volume_type"],
            words(&["gp3", "gp2", "io2", "io1", "st1", "sc1", "standard"]),
        ),
        (
            "Volume",
            &["fs"],
            words(&["ext4", "xfs", "btrfs", "ext3", "ext2"]),
        ),
        (
            "Volume",
            &["iops"],
            json!({"minimum": 100, "maximum": 256_000}),
        ),
        (
            "Volume",
            &["throughput"],
            json!({"minimum": 125, "maximum": 2_000}),
        ),
    ];
    let port = json!({"maximum": 65_535});
    let rule: [(&str, &[&str], Value); 1] = [("Rule", &["from_port", "to_port"], port)];
    let billing = MACHINES.map(|of| (of, &["billing"][..], words(&["spot", "on-demand"])));
    for (definition, keys, constraint) in texts.into_iter().chain(volume).chain(rule).chain(billing)
    {
        for key in keys {
            if let (Some(of), Value::Object(more)) = (at(schema, definition, key), &constraint) {
                for (name, value) in more {
                    of[name] = value.clone();
                }
            }
        }
    }
    if let Some(stage) = schema.get_mut("$defs").and_then(|it| it.get_mut("Stage")) {
        stage["oneOf"] = json!([{"required": ["tar"]}, {"required": ["dir"]}]);
    }
    admit_words(schema);
    schema["$defs"][YES_NO] = json!({
        "enum": WORDS,
        "description": "A word that YAML 1.1 reads as true or false, and YAML 1.2 as text.",
    });
}

fn words(all: &[&str]) -> Value {
    json!({"enum": all})
}

/// Lets words stand wherever true or false does.
fn admit_words(schema: &mut Value) {
    match schema {
        Value::Object(fields) if fields.get("type").is_some_and(|kind| kind == "boolean") => {
            fields.remove("type");
            let any = json!([{"type": "boolean"}, {"$ref": format!("#/$defs/{YES_NO}")}]);
            fields.insert("anyOf".to_owned(), any);
        }
        Value::Object(fields) => fields.values_mut().for_each(admit_words),
        Value::Array(items) => items.iter_mut().for_each(admit_words),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn is_good(text: &str) -> bool {
        crate::parse(text, Path::new("/c/cluster.yml")).is_ok()
    }

    /// A file in which each constraint is looked for.
    fn file(definition: &str, key: &str, value: &str) -> String {
        let pair = format!("{key}: {value}");
        let good = match (definition, key) {
            ("Volume", "iops") => "device: /dev/sdf, size: 100, type: io2",
            ("Volume", "throughput") => "device: /dev/sdf, size: 100, type: gp3",
            ("Volume", "fs") => "device: /dev/sdf, size: 100, mount: /m",
            ("Volume", "type" | "volume_type") => "device: /dev/sdf, size: 200, iops: 1000",
            _ => "device: /dev/sdf, type: gp3",
        };
        let instance = "ami: ami-12345678, ec2_size: m5.large";
        match definition {
            "" if key == "cluster" => format!("{pair}\ninstances: [{{name: a, {instance}}}]\n"),
            "" => format!("cluster: c\n{pair}\ninstances: [{{name: a, {instance}, user: u}}]\n"),
            "Launch" => {
                format!("cluster: c\nlaunch: {{{pair}}}\ninstances: [{{name: a, {instance}}}]\n")
            }
            "Pool" if key == "billing" => {
                format!("cluster: c\npools: [{{name: a, size: 1, {instance}, {pair}}}]\n")
            }
            "Pool" => format!("cluster: c\npools: [{{name: a, {instance}, {pair}}}]\n"),
            "Volume" => {
                let good = good.replace(
                    ", iops: 1000",
                    if value.starts_with("io") {
                        ", iops: 1000"
                    } else {
                        ""
                    },
                );
                format!(
                    "cluster: c\ninstances: [{{name: a, {instance}, ebs: [{{{good}, {pair}}}]}}]\n"
                )
            }
            "Group" => format!(
                "cluster: c\nsecurity_groups: [{{name: g, {pair}}}]\ninstances: [{{name: a, {instance}}}]\n"
            ),
            "Rule" => format!(
                "cluster: c\nsecurity_groups: [{{name: g, allow_inbound: [{{protocol: tcp, ip: 10.0.0.0/8, {}{pair}}}]}}]\ninstances: [{{name: a, {instance}}}]\n",
                if key == "to_port" {
                    "from_port: 0, "
                } else {
                    "to_port: 65535, "
                }
            ),
            "Common" => {
                format!("cluster: c\ndefaults: {{{pair}}}\ninstances: [{{name: a, {instance}}}]\n")
            }
            _ => format!("cluster: c\ninstances: [{{name: a, {instance}, {pair}}}]\n"),
        }
    }

    /// What a definition of the schema says of a key, without the text with a variable.
    fn said<'a>(schema: &'a Value, definition: &str, key: &str) -> &'a Value {
        let of = match definition {
            "" => schema,
            name => &schema["$defs"][name],
        };
        let said = &of["properties"][key];
        said["anyOf"].get(0).unwrap_or(said)
    }

    #[test]
    fn reading_a_file_takes_the_words_of_the_schema_and_refuses_others() {
        let schema = crate::schema();
        let mut seen = 0;
        for (definition, of) in std::iter::once(("", &schema)).chain(
            schema["$defs"]
                .as_object()
                .expect("definitions")
                .iter()
                .map(|(name, of)| (&**name, of)),
        ) {
            for key in of["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key)
            {
                let Some(words) = said(&schema, definition, key)["enum"].as_array() else {
                    continue;
                };
                for word in words.iter().filter_map(Value::as_str) {
                    let text = file(definition, key, word);
                    assert!(
                        is_good(&text),
                        "{definition}.{key}: {word}: {:?}",
                        crate::parse(&text, Path::new("/c"))
                            .err()
                            .map(|it| it.to_string())
                    );
                }
                assert!(
                    !is_good(&file(definition, key, "otherwise")),
                    "{definition}.{key}"
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 12, "keys with words");
    }

    #[test]
    fn reading_a_file_has_the_bounds_of_the_schema() {
        let schema = crate::schema();
        for (definition, key) in [
            ("Launch", "replace"),
            ("Pool", "size"),
            ("Pool", "count"),
            ("Volume", "size"),
            ("Volume", "iops"),
            ("Volume", "throughput"),
            ("Rule", "from_port"),
            ("Rule", "to_port"),
        ] {
            let said = said(&schema, definition, key);
            let most = said["maximum"].as_u64().expect("a bound");
            assert!(
                !is_good(&file(definition, key, &(most + 1).to_string())),
                "{definition}.{key}"
            );
            if !matches!(key, "size" | "count") || definition == "Pool" {
                let text = file(definition, key, &most.to_string());
                assert!(
                    is_good(&text),
                    "{text}: {:?}",
                    crate::parse(&text, Path::new("/c"))
                        .err()
                        .map(|it| it.to_string())
                );
            }
            if let Some(least) = said["minimum"].as_u64().filter(|least| *least > 0) {
                assert!(
                    !is_good(&file(definition, key, &(least - 1).to_string())),
                    "{definition}.{key}"
                );
            }
        }
    }

    #[test]
    fn reading_a_file_takes_all_words_for_yes_and_no() {
        for word in WORDS {
            assert!(is_good(&file("Instance", "auto_assign_ip", word)), "{word}");
        }
        for other in ["ja", "1", "\"yea\""] {
            assert!(
                !is_good(&file("Instance", "auto_assign_ip", other)),
                "{other}"
            );
        }
        for bad in ["Upper", "1a", "-a", "a_b", &"a".repeat(64)] {
            assert!(!is_good(&file("", "cluster", bad)), "{bad}");
        }
        assert!(is_good(&file("", "cluster", &"a".repeat(63))));
        assert!(is_good(&file("Pool", "ids", "2..4")));
        assert!(!is_good(&file("Pool", "ids", "2-4")));
    }
}
