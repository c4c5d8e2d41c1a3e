//! The contract of places for objects, on S3 or on what stands in for it: against the lab by itself, and against anything else
//! where `AOT_S3=1`, with the AWS SDK's own settings and a bucket of that account (`AOT_S3_BUCKET`). With `AOT_S3_PREFIX` all
//! stays below that, as a policy may want it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aot_s3::S3;
use aot_store::blobs::contract::CHECKS;
use aot_store::blobs::{BlobKey, BlobKind, BlobPlace, Blobs};

const MAKE_BUCKET: &str = r#"
import boto3, sys
boto3.client("s3").create_bucket(Bucket=sys.argv[1])
print("{}")
"#;

/// What the policy that comes with the program has instead of names of one's own.
const OF_POLICY: (&str, &str) = ("aot-example", "fleet");

fn prefix() -> String {
    std::env::var("AOT_S3_PREFIX").unwrap_or_else(|_| "test".to_owned())
}

/// Where a test works: a prefix that nothing was ever put below. `None` where there is no S3.
fn place() -> Option<S3> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if std::env::var("AOT_S3").as_deref() != Ok("1") {
        println!("skipped: AOT_S3=1 is not set");
        return None;
    }
    let bucket = std::env::var("AOT_S3_BUCKET").expect("AOT_S3_BUCKET names a bucket");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.expect("after 1970").as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Some(S3::new(&bucket, &format!("{}/{nanos}-{count}", prefix())))
}

#[tokio::test]
async fn s3_meets_the_contract() {
    for (name, check) in CHECKS {
        let Some(place) = place() else {
            return;
        };
        println!("{name}");
        check(Arc::new(place)).await;
    }
}

#[tokio::test]
async fn masters_of_another_id_are_not_seen() {
    let Some(place) = place() else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "x").expect("writes");
    let (one, two) = (place.of_masters("one"), place.of_masters("two"));
    let key = BlobKey::content(BlobKind::Bundles, &"a".repeat(64)).expect("a digest");
    one.put(&key, file.path()).await.expect("puts");
    assert!(two.find(&key).await.expect("looks").is_none());
    assert!(two.list(BlobKind::Bundles).await.expect("lists").is_empty());
    assert_eq!(one.list(BlobKind::Bundles).await.expect("lists").len(), 1);
}

#[tokio::test]
async fn more_than_a_page_is_listed() {
    let Some(place) = place() else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let sha256 = |n: usize| aot_host::hash::sha256_hex(n.to_string().as_bytes());
    // A page has 1,000 (Amazon S3 API Reference, ListObjectsV2).
    for n in 0..1_001 {
        let key = BlobKey::content(BlobKind::Bundles, &sha256(n)).expect("a digest");
        place.put(&key, file.path()).await.expect("puts");
    }
    let listed = place.list(BlobKind::Bundles).await.expect("lists");
    assert_eq!(listed.len(), 1_001);
}

/// How many objects in parts are begun and not whole.
async fn unfinished(client: &aws_sdk_s3::Client, bucket: &str, prefix: &str) -> usize {
    let ask = client.list_multipart_uploads().bucket(bucket);
    let listed = ask.prefix(prefix).send().await.expect("lists");
    listed.uploads().len()
}

#[tokio::test]
async fn parts_of_what_does_not_become_whole_are_dropped() {
    if place().is_none() {
        return;
    }
    let bucket = std::env::var("AOT_S3_BUCKET").expect("AOT_S3_BUCKET names a bucket");
    let prefix = format!("{}/cut-{}", prefix(), std::process::id());
    let place = S3::new(&bucket, &prefix);
    let settings = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let config = aws_sdk_s3::config::Builder::from(&settings).force_path_style(true);
    let client = aws_sdk_s3::Client::from_conf(config.build());
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(512 << 20).expect("a long one");
    let key = BlobKey::content(BlobKind::Uploads, &"a".repeat(64)).expect("a digest");
    let cut = async {
        while unfinished(&client, &bucket, &prefix).await == 0 {
            tokio::task::yield_now().await;
        }
        file.as_file().set_len(1).expect("is cut");
    };
    let (put, ()) = tokio::join!(place.put(&key, file.path()), cut);
    put.expect_err("its parts are not there any more");
    assert_eq!(unfinished(&client, &bucket, &prefix).await, 0);
    assert_eq!(place.find(&key).await.expect("asks"), None);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_an_error_with_a_way_out() {
    // Where a policy names one bucket, nobody says of another whether it is there.
    if place().is_none() || std::env::var_os("AOT_S3_PREFIX").is_some() {
        return;
    }
    let none = S3::new("no-such-bucket-of-ours-7c1d", "x");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let key = BlobKey::content(BlobKind::Agents, &"a".repeat(64)).expect("a digest");
    let put = none.put(&key, file.path()).await.expect_err("no bucket");
    let listed = none.list(BlobKind::Agents).await.expect_err("no bucket");
    let got = none.get(&key, 0).await;
    let got = got.err().expect("a missing object would be another answer");
    for error in [put, listed, got] {
        let text = aot_host::chain::Chain(&error).to_string();
        assert!(
            text.contains("s3://no-such-bucket-of-ours-7c1d/x"),
            "{text}"
        );
        assert!(text.contains("AOT_BLOBS"), "{text}");
        assert!(text.contains("NoSuchBucket"), "{text}");
    }
}

#[test]
fn the_labs_s3_meets_the_contract() {
    if std::env::var("AOT_S3").as_deref() == Ok("1") {
        return; // this is that other time
    }
    let Some(lab) = aot_tests::lab::Lab::start_with(&["--no-machines"]) else {
        return;
    };
    lab.python(MAKE_BUCKET, &["aot-blobs"]);
    lab.run_again(&[("AOT_S3", "1"), ("AOT_S3_BUCKET", "aot-blobs")]);
    lab.end();
}

#[test]
fn the_packaged_policy_is_enough_and_is_enforced() {
    if std::env::var("AOT_S3").as_deref() == Ok("1") {
        return; // this is that other time
    }
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/iam/aot-fleet.json");
    let policy = policy.to_str().expect("paths here are UTF-8");
    let Some(lab) = aot_tests::lab::Lab::start_with(&["--no-machines", "--policy", policy]) else {
        return;
    };
    let (bucket, prefix) = OF_POLICY;
    lab.python(MAKE_BUCKET, &[bucket]);
    lab.run_again(&[
        ("AOT_S3", "1"),
        ("AOT_S3_BUCKET", bucket),
        ("AOT_S3_PREFIX", prefix),
    ]);
    let refused = lab.restricted(TRY, &[bucket]);
    assert_eq!(refused, serde_json::json!(vec!["AccessDenied"; 4]));
    lab.end();
}

/// What is not below the prefix.
const TRY: &str = r#"
import boto3, json, sys
from botocore.exceptions import ClientError
s3, bucket = boto3.client("s3"), sys.argv[1]
def code(call, **parameters):
    try:
        call(Bucket=bucket, **parameters)
        return "done"
    except ClientError as error:
        return error.response["Error"]["Code"]
print(json.dumps([code(s3.put_object, Key="other/x", Body=b"x"), code(s3.get_object, Key="other/x"),
                  code(s3.list_objects_v2, Prefix="other/"), code(s3.list_objects_v2)]))
"#;
