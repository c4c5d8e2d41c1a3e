//! What every place for objects must do, as checks that run against any of them. Called by tests only; each check is given an
//! empty place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aot_archive::Digest;
use aot_host::hash::sha256_hex;
use aot_proto::ids::RunId;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::{BlobKey, BlobKind, Blobs, fetch};
use crate::Pending;

/// One check.
pub type BlobCheck = fn(Arc<dyn Blobs>) -> Pending<'static, ()>;

/// All of them, with their names.
pub const CHECKS: [(&str, BlobCheck); 6] = [
    (
        "what was put is read back, from any place on, until it is removed",
        |blobs| Box::pin(back(blobs)),
    ),
    ("a later put takes the place of an earlier one", |blobs| {
        Box::pin(again(blobs))
    }),
    ("each kind is listed by itself, all of it", |blobs| {
        Box::pin(listed(blobs))
    }),
    (
        "what can't be read is not put, and what was there stays",
        |blobs| Box::pin(unread(blobs)),
    ),
    (
        "of what is named by its content no other content is fetched",
        |blobs| Box::pin(by_content(blobs)),
    ),
    ("what is long comes back byte by byte", |blobs| {
        Box::pin(long(blobs))
    }),
];

/// More than goes into one request.
const LONG_BYTES: u64 = (150 << 20) + 7;

fn output(number: u64) -> BlobKey {
    let cluster = "web".parse().expect("a name");
    BlobKey::output(&cluster, RunId::from_parts(number, 1))
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn put(blobs: &dyn Blobs, key: &BlobKey, content: &[u8]) {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, content).expect("writes");
    blobs.put(key, &file).await.expect("puts");
}

/// The whole length, and what comes from there on.
async fn got(blobs: &dyn Blobs, key: &BlobKey, from: u64) -> Option<(u64, Vec<u8>)> {
    let mut blob = blobs.get(key, from).await.expect("asks")?;
    let mut bytes = Vec::new();
    let read = blob.rest.read_to_end(&mut bytes).await;
    read.expect("reads to the end");
    Some((blob.total, bytes))
}

async fn back(blobs: Arc<dyn Blobs>) {
    let (key, other) = (output(1), output(2));
    put(&*blobs, &key, b"0123456789").await;
    for (from, rest) in [(0, "0123456789"), (4, "456789"), (10, ""), (11, "")] {
        let wanted = (10, rest.as_bytes().to_vec());
        assert_eq!(got(&*blobs, &key, from).await, Some(wanted), "{from}");
    }
    let found = blobs.find(&key).await.expect("asks").expect("is there");
    assert_eq!((&found.key, found.bytes), (&key, 10));
    assert!(found.age < Duration::from_secs(600), "{found:?}");
    assert_eq!(got(&*blobs, &other, 0).await, None);
    assert_eq!(got(&*blobs, &other, 5).await, None);
    assert_eq!(blobs.find(&other).await.expect("asks"), None);
    for _ in 0..2 {
        blobs.delete(&key).await.expect("is removed, or was");
        assert_eq!(got(&*blobs, &key, 0).await, None);
        assert_eq!(blobs.find(&key).await.expect("asks"), None);
    }
    blobs.drop_unfinished().await.expect("nothing is left over");
}

async fn again(blobs: Arc<dyn Blobs>) {
    let key = output(1);
    for content in ["", "longer than nothing", "short"] {
        put(&*blobs, &key, content.as_bytes()).await;
        let wanted = (content.len() as u64, content.as_bytes().to_vec());
        assert_eq!(got(&*blobs, &key, 0).await, Some(wanted));
    }
    assert_eq!(blobs.list(BlobKind::Outputs).await.expect("lists").len(), 1);
}

async fn listed(blobs: Arc<dyn Blobs>) {
    let mut wanted: BTreeMap<BlobKind, Vec<(BlobKey, u64)>> = BTreeMap::new();
    let sha256 = |n: usize| sha256_hex(&[u8::try_from(n).expect("few")]);
    for (n, kind) in BlobKind::ALL.into_iter().enumerate() {
        for more in 0..3 {
            let key = BlobKey::content(kind, &sha256(10 * n + more));
            let key = key.unwrap_or_else(|| output(more as u64));
            put(&*blobs, &key, &vec![b'x'; more]).await;
            wanted.entry(kind).or_default().push((key, more as u64));
        }
    }
    for (kind, mut wanted) in wanted {
        let mut found: Vec<(BlobKey, u64)> = (blobs.list(kind).await.expect("lists").into_iter())
            .map(|blob| (blob.key, blob.bytes))
            .collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}

async fn unread(blobs: Arc<dyn Blobs>) {
    let (key, dir) = (output(1), dir());
    let missing = dir.path().join("missing");
    for there in [None, Some((5, b"first".to_vec()))] {
        if there.is_some() {
            put(&*blobs, &key, b"first").await;
        }
        let error = blobs.put(&key, &missing).await.expect_err("no such file");
        assert!(error.to_string().contains(blobs.place()), "{error}");
        assert_eq!(got(&*blobs, &key, 0).await, there);
    }
}

async fn by_content(blobs: Arc<dyn Blobs>) {
    let dir = dir();
    let to = dir.path().join("to");
    let key = BlobKey::content(BlobKind::Bundles, &sha256_hex(b"right")).expect("a digest");
    let fetched = fetch(&*blobs, &key, &to, None).await.expect("asks");
    assert!(!fetched && !to.exists(), "there is none");
    put(&*blobs, &key, b"wrong").await;
    let error = fetch(&*blobs, &key, &to, None)
        .await
        .expect_err("another content");
    assert!(error.to_string().contains(&key.to_string()), "{error}");
    put(&*blobs, &key, b"right").await;
    assert!(fetch(&*blobs, &key, &to, None).await.expect("fetches"));
    assert_eq!(fs::read(&to).expect("reads"), b"right");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("reads").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Mostly a hole, with something at every end that a part may have.
fn long_file(path: &Path) -> String {
    let mut file = File::create(path).expect("makes");
    file.set_len(LONG_BYTES).expect("sets its length");
    for at in (0..LONG_BYTES - 7).step_by((8 << 20) - 3) {
        file.seek(SeekFrom::Start(at)).expect("seeks");
        write!(file, "{at:07}").expect("writes");
    }
    Digest::of_file(&mut File::open(path).expect("opens")).expect("reads")
}

async fn long(blobs: Arc<dyn Blobs>) {
    let (key, dir) = (output(1), dir());
    let (file, to) = (dir.path().join("file"), dir.path().join("to"));
    let digest = long_file(&file);
    blobs.put(&key, &file).await.expect("puts");
    let found = blobs.find(&key).await.expect("asks").expect("is there");
    assert_eq!(found.bytes, LONG_BYTES);
    assert!(fetch(&*blobs, &key, &to, None).await.expect("fetches"));
    let mut fetched = File::open(&to).expect("opens");
    assert_eq!(Digest::of_file(&mut fetched).expect("reads"), digest);
    let (total, rest) = got(&*blobs, &key, LONG_BYTES - 3).await.expect("is there");
    assert_eq!((total, rest.len()), (LONG_BYTES, 3));
}
