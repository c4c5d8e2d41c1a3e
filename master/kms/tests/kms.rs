//! Data keys by KMS, or by what stands in for it: against the lab by itself, and against anything else where `AOT_KMS=1`, with the
//! AWS SDK's own settings and a key of that account (`AOT_KMS_KEY`; any name of it).

use std::path::Path;

use aot_host::chain::Chain;
use aot_kms::Kms;
use aot_store::{DataKeyError, DataKeys};
use aot_tests::lab::Lab;
use serde_json::Value;

/// Two keys, the first with an alias: their ARNs.
const MAKE: &str = r#"
import boto3, json
kms = boto3.client("kms")
arns = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
kms.create_alias(AliasName="alias/aot", TargetKeyId=arns[0])
print(json.dumps(arns))
"#;

/// What is set, if this run is to ask anybody.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn said(error: &DataKeyError) -> String {
    Chain(error).to_string()
}

#[tokio::test]
async fn a_data_key_is_opened_by_its_key_for_its_purpose_alone() {
    let Some(key) = set("AOT_KMS_KEY") else {
        return;
    };
    let kms = Kms::new(&key);
    let [one, two] = [kms.make("one").await, kms.make("one").await];
    let (one, two) = (one.expect("makes"), two.expect("makes"));
    assert_eq!(one.plain.len(), 32);
    assert_ne!(one.plain, two.plain, "each is another");
    let opened = kms.open(&one.sealed, "one").await.expect("opens");
    assert_eq!(opened, one.plain);
    let other = kms.open(&one.sealed, "two").await.expect_err("is refused");
    assert!(said(&other).contains(&format!("kms:{key}")), "{other}");
    let mut changed = one.sealed.clone();
    *changed.last_mut().expect("has some") ^= 1;
    kms.open(&changed, "one").await.expect_err("is refused");
    let Some(another) = set("AOT_KMS_OTHER") else {
        return;
    };
    let another = Kms::new(&another);
    let wrong = another.open(&one.sealed, "one").await;
    let text = said(&wrong.expect_err("is of another key"));
    assert!(text.contains(another.name()), "{text}");
}

#[tokio::test]
async fn a_key_that_is_not_there_or_may_not_be_used_is_an_error_with_a_way_out() {
    let Some(expected) = set("AOT_KMS_REFUSED") else {
        return;
    };
    let key = set("AOT_KMS_REFUSED_KEY").expect("a key's name");
    let refused = Kms::new(&key).make("one").await.expect_err("is refused");
    let text = said(&refused);
    assert!(text.contains(&format!("kms:{key}")), "{text}");
    assert!(text.contains(&expected), "{text}");
}

fn lab(options: &[&str]) -> Option<(Lab, [String; 2])> {
    let is_other_time = ["AOT_KMS_KEY", "AOT_KMS_REFUSED"]
        .iter()
        .any(|it| set(it).is_some());
    let lab = (!is_other_time).then(|| Lab::start_with(&[&["--no-machines"], options].concat()));
    let lab = lab.flatten()?;
    let made: Value = lab.python(MAKE, &[]);
    let arns = serde_json::from_value(made).expect("two ARNs");
    Some((lab, arns))
}

#[test]
fn the_labs_kms_has_data_keys() {
    let Some((lab, [key, other])) = lab(&[]) else {
        return;
    };
    for name in [&key, "alias/aot"] {
        lab.run_again(&[("AOT_KMS_KEY", name), ("AOT_KMS_OTHER", &other)]);
    }
    let refused = |key: &str, expected: &str, more: &[(&str, &str)]| {
        let env = [("AOT_KMS_REFUSED_KEY", key), ("AOT_KMS_REFUSED", expected)];
        lab.run_again(&[&env, more].concat());
    };
    refused("alias/none", "AWS_REGION", &[]);
    // An address that nobody listens on.
    let away = ("AWS_ENDPOINT_URL_KMS", "http://198.51.100.1:9");
    refused(&key, "check the network", &[away]);
    lab.end();
}

#[test]
fn the_packaged_policy_is_enough_and_is_enforced() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/iam/aot-fleet.json");
    let policy = std::fs::read_to_string(policy).expect("the policy is there");
    let own = policy.replace(EXAMPLE, "arn:aws:kms:us-east-1:123456789012:key/*");
    assert_ne!(own, policy, "it names a key");
    for (policy, is_allowed) in [(&own, true), (&policy, false)] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), policy).expect("writes");
        let path = file.path().to_str().expect("paths here are UTF-8");
        let Some((lab, [key, _])) = lab(&["--policy", path]) else {
            return;
        };
        match is_allowed {
            true => lab.run_again(&[("AOT_KMS_KEY", &key)]),
            false => lab.run_again(&[
                ("AOT_KMS_REFUSED_KEY", &key),
                ("AOT_KMS_REFUSED", "packaging/iam/aot-fleet.json"),
            ]),
        }
        lab.end();
    }
}

/// The key of the policy, in place of one's own.
const EXAMPLE: &str = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[test]
fn the_policy_allows_what_the_code_calls_and_nothing_else() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read_to_string(dir.join("src/lib.rs")).expect("reads");
    let policy = std::fs::read_to_string(dir.join("../../packaging/iam/aot-fleet.json"));
    let policy: Value = serde_json::from_str(&policy.expect("reads")).expect("JSON");
    let statements = policy["Statement"].as_array().expect("a list");
    let of_kms: Vec<_> = statements
        .iter()
        .filter(|it| it.to_string().contains("kms:Decrypt"))
        .collect();
    assert_eq!(of_kms.len(), 1);
    let actions = serde_json::json!(["kms:Decrypt", "kms:GenerateDataKey"]);
    assert_eq!(of_kms[0]["Action"], actions);
    assert_eq!(of_kms[0]["Resource"], EXAMPLE, "one key");
    let calls = |name: &str| code.matches(&format!(".{name}()")).count();
    assert_eq!((calls("decrypt"), calls("generate_data_key")), (1, 1));
    assert_eq!(code.matches(".send()").count(), 2, "no other call");
}
