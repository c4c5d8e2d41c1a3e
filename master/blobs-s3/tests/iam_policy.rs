//! Keeps the policy for what masters share (`packaging/iam/aot-fleet.json`) and the calls to S3 the same: what the code calls is
//! allowed, and what it does not call is not.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Operations by their methods in the SDK, and the permission that each takes (Amazon S3 User Guide, "Required permissions for
/// Amazon S3 API operations").
const OPERATIONS: [(&str, &str); 10] = [
    ("abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("complete_multipart_upload", "s3:PutObject"),
    ("create_multipart_upload", "s3:PutObject"),
    ("delete_object", "s3:DeleteObject"),
    ("get_object", "s3:GetObject"),
    ("head_object", "s3:GetObject"),
    ("list_multipart_uploads", "s3:ListBucketMultipartUploads"),
    ("list_objects_v2", "s3:ListBucket"),
    ("put_object", "s3:PutObject"),
    ("upload_part", "s3:PutObject"),
];

/// Methods of the crate itself that begin like operations.
const OWN: [&str; 1] = ["abort_unfinished"];

fn statements() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/iam/aot-fleet.json");
    let text = std::fs::read_to_string(path).expect("the policy is there");
    let policy: Value = serde_json::from_str(&text).expect("the policy is JSON");
    let all = policy["Statement"].as_array().expect("a list").clone();
    let is_s3 = |it: &Value| words(&it["Action"]).iter().any(|it| it.starts_with("s3:"));
    all.into_iter().filter(is_s3).collect()
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(words).collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// Methods without arguments that the crate's code calls.
fn called() -> BTreeSet<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(dir).expect("a folder of sources");
    let text = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).expect("reads");
    let texts: Vec<String> = files.flatten().map(text).collect();
    let calls = texts.iter().flat_map(|text| text.split('.').skip(1));
    let name = |call: &str| Some(call.split_once("()")?.0.to_owned());
    let is_name = |name: &String| {
        let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.chars().all(may)
    };
    calls.filter_map(name).filter(is_name).collect()
}

#[test]
fn the_policy_allows_what_the_code_calls_and_nothing_else() {
    let called = called();
    let (used, unused): (Vec<_>, Vec<_>) = OPERATIONS
        .iter()
        .partition(|(method, _)| called.contains(*method));
    assert!(unused.is_empty(), "the code has no such call: {unused:?}");
    // An operation that is not in the table would be missed here.
    const VERBS: [&str; 9] = [
        "abort_",
        "complete_",
        "copy_",
        "create_",
        "delete_",
        "get_",
        "head_",
        "list_",
        "put_",
    ];
    let strange: Vec<_> = called
        .iter()
        .filter(|name| VERBS.iter().any(|verb| name.starts_with(verb)))
        .filter(|name| !OWN.contains(&name.as_str()))
        .filter(|name| !OPERATIONS.iter().any(|(method, _)| method == name))
        .collect();
    assert!(strange.is_empty(), "not in the table: {strange:?}");
    let used: BTreeSet<_> = used.iter().map(|(_, right)| (*right).to_owned()).collect();
    let allowed = statements();
    let allowed: BTreeSet<_> = allowed.iter().flat_map(|it| words(&it["Action"])).collect();
    assert_eq!(allowed, used);
}

#[test]
fn the_policy_is_for_one_bucket_and_what_is_below_a_prefix() {
    for statement in statements() {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        for action in words(&statement["Action"]) {
            let is_of_bucket = action.starts_with("s3:ListBucket");
            let wanted = match is_of_bucket {
                true => "arn:aws:s3:::aot-example",
                false => "arn:aws:s3:::aot-example/fleet/*",
            };
            assert_eq!(words(&statement["Resource"]), [wanted], "{action}");
        }
    }
}
