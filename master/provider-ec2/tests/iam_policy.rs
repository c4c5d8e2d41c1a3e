//! Keeps the policy that operators give the master (`packaging/iam/aot-master.json`) and the calls it makes the same: what
//! the code calls is allowed, and what it does not call is not.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// How an operation of EC2, SSM, IAM or STS begins in the SDK.
const VERBS: [&str; 20] = [
    "allocate_",
    "associate_",
    "attach_",
    "authorize_",
    "create_",
    "delete_",
    "describe_",
    "detach_",
    "disassociate_",
    "get_",
    "import_",
    "modify_",
    "monitor_",
    "reboot_",
    "release_",
    "replace_",
    "revoke_",
    "run_",
    "start_",
    "stop_",
];
/// Builders and getters of the SDK that begin like operations.
const FIELDS: [&str; 4] = [
    "associate_public_ip_address",
    "delete_on_termination",
    "associate_carrier_ip_address",
    "create_time",
];
/// Permissions that belong to no call of ours by name: EC2 asks for it when an instance profile is given.
const IMPLIED: [&str; 1] = ["iam:PassRole"];
/// Operations that are not EC2's.
const OTHERS: [(&str, &str); 4] = [
    ("GetParameter", "ssm"),
    ("GetSecretValue", "secretsmanager"),
    ("GetInstanceProfile", "iam"),
    ("GetCallerIdentity", "sts"),
];

fn policy() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/iam/aot-master.json");
    let text = std::fs::read_to_string(path).expect("the policy is there");
    serde_json::from_str(&text).expect("the policy is JSON")
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(words).collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    }
}

fn statements() -> Vec<Value> {
    let policy = policy();
    policy["Statement"].as_array().expect("a list").clone()
}

fn allowed() -> BTreeSet<String> {
    statements()
        .iter()
        .flat_map(|it| words(&it["Action"]))
        .collect()
}

/// `describe_instances` as IAM says it.
fn action(method: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let name: String = method.split('_').map(capital).collect();
    let service = OTHERS.iter().find(|(other, _)| *other == name);
    format!("{}:{name}", service.map_or("ec2", |(_, service)| service))
}

/// Methods without arguments that a text calls, and that are named like an operation.
fn operations(text: &str) -> BTreeSet<String> {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    let calls = code.split('.').skip(1).filter_map(|rest| {
        let end =
            rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_')?;
        rest[end..].starts_with("()").then_some(&rest[..end])
    });
    calls
        .filter(|name| {
            VERBS.iter().any(|verb| name.starts_with(verb)) || name.starts_with("terminate_")
        })
        .filter(|name| !FIELDS.contains(name))
        .map(action)
        .collect()
}

fn used(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir)
        .expect("a folder of sources")
        .flatten()
    {
        let path = entry.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            used(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.extend(operations(&std::fs::read_to_string(&path).expect("reads")));
        }
    }
}

#[test]
fn the_policy_allows_what_the_code_calls_and_nothing_else() {
    let mut used_now = BTreeSet::new();
    used(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut used_now,
    );
    assert!(
        used_now.contains("ec2:RunInstances"),
        "calls are found: {used_now:?}"
    );
    let allowed = allowed();
    let missing: Vec<_> = used_now.difference(&allowed).collect();
    assert!(
        missing.is_empty(),
        "called, and not in aot-master.json: {missing:?}"
    );
    let unused: Vec<_> = allowed
        .difference(&used_now)
        .filter(|it| !IMPLIED.contains(&it.as_str()))
        .collect();
    assert!(
        unused.is_empty(),
        "in aot-master.json, and not called: {unused:?}"
    );
}

#[test]
fn whatever_changes_something_is_limited_by_a_condition_or_a_kind() {
    for statement in statements() {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        for action in words(&statement["Action"]) {
            assert!(!action.contains('*'), "no wildcards in actions: {action}");
            let looks = action.starts_with("ec2:Describe");
            let limited =
                statement["Condition"].is_object() || words(&statement["Resource"]) != ["*"];
            assert!(looks || limited, "{action} is allowed on everything");
        }
    }
}

#[test]
fn operations_are_found_in_code_and_not_in_fields_comments_or_tests() {
    let text = "client\n  .describe_instances()\n  .send();\n//! .start_instances()\nx.delete_on_termination();\n\
                ssm.get_parameter().name(n); get_parameter(); y.describe_tags(1)\n\
                #[cfg(test)]\nmod tests { c.create_vpc() }";
    let found: Vec<String> = operations(text).into_iter().collect();
    assert_eq!(found, ["ec2:DescribeInstances", "ssm:GetParameter"]);
}
