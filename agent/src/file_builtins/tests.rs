//! Real files are read.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;

fn lines(bytes: &[u8], most: usize, is_cut: bool) -> (Vec<String>, bool) {
    let (lines, truncated) = last_lines(bytes, most, is_cut);
    let text = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned());
    (text.collect(), truncated)
}

fn asked(name: &str, path: &Path, more: &[&str]) -> Builtin {
    let args = [&[path.to_str().unwrap()], more].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    Builtin::parse(name, &args).unwrap()
}

async fn answer(name: &str, path: &Path, more: &[&str]) -> Result<Value, String> {
    let etc = path.parent().unwrap().to_owned();
    let reply = FileReads::default()
        .answer(7, asked(name, path, more), etc)
        .await;
    assert_eq!(reply.id, 7);
    match reply.error.is_empty() {
        true => Ok(serde_json::from_str(&reply.json).unwrap()),
        false => Err(reply.error),
    }
}

#[test]
fn last_lines_are_those_of_tail() {
    let table: [(&str, usize, &[&str]); 7] = [
        ("", 3, &[]),
        ("\n", 3, &[""]),
        ("a", 3, &["a"]),
        ("a\n", 3, &["a"]),
        ("a\nb\nc\nd\n", 3, &["b", "c", "d"]),
        ("a\nb\nc\nd", 3, &["b", "c", "d"]),
        ("a\n\n\n", 2, &["", ""]),
    ];
    for (text, most, expected) in table {
        assert_eq!(lines(text.as_bytes(), most, false).0, expected, "{text:?}");
    }
    assert!(!lines(b"x\na\nb\n", 2, true).1, "both lines are whole");
    assert!(lines(b"x\na\nb\n", 3, true).1, "the first one may not be");
    assert!(lines(b"x\na\nb\n", 4, true).1, "one is missing");
}

proptest! {
    #[test]
    fn lines_are_the_last_ones_in_their_order(text in "[ab\n]{0,40}", most in 1usize..6) {
        let expected: Vec<&str> = text.lines().collect();
        let from = expected.len().saturating_sub(most);
        prop_assert_eq!(lines(text.as_bytes(), most, false).0, &expected[from..]);
    }
}

#[tokio::test]
async fn every_field_of_a_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "12345").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::write(
        dir.path().join("passwd"),
        format!("me:x:{}:0::/:/bin/sh\n", meta.uid()),
    )
    .unwrap();
    let seen = answer("stat", &path, &[]).await.unwrap();
    let expected = json!({
        "path": path.to_str().unwrap(), "kind": "file", "size": 5, "mode": "4750", "uid": meta.uid(), "gid": meta.gid(),
        "user": "me", "group": null, "mtime": "2001-09-09T01:46:40.5Z", "target": null, "leads_to": null,
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_link_is_shown_with_where_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("end"), "12345").unwrap();
    symlink("end", at("middle")).unwrap();
    symlink("middle", at("link")).unwrap();
    symlink("nowhere", at("broken")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let seen = answer("stat", &at("link"), &[]).await.unwrap();
    assert_eq!(
        (&seen["kind"], &seen["target"]),
        (&json!("symlink"), &json!("middle"))
    );
    let end = fs::canonicalize(at("end")).unwrap();
    assert_eq!(
        (
            &seen["leads_to"]["path"],
            &seen["leads_to"]["kind"],
            &seen["leads_to"]["size"]
        ),
        (&json!(end.to_str()), &json!("file"), &json!(5))
    );
    let seen = answer("stat", &at("broken"), &[]).await.unwrap();
    assert!(
        seen["leads_to"]["error"]
            .as_str()
            .unwrap()
            .contains("No such file"),
        "{seen}"
    );
    let seen = answer("stat", &at("loop"), &[]).await.unwrap();
    assert!(seen["leads_to"]["error"].is_string(), "{seen}");
}

#[tokio::test]
async fn every_kind_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let _socket = UnixListener::bind(at("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let table = [
        (dir.path().to_owned(), "directory"),
        (at("socket"), "socket"),
        (at("fifo"), "fifo"),
        ("/dev/null".into(), "character device"),
    ];
    for (path, kind) in table {
        assert_eq!(answer("stat", &path, &[]).await.unwrap()["kind"], kind);
        // A fifo would never be opened to its end, a device may do anything.
        let refused = answer("tail", &path, &[]).await.unwrap_err();
        let expected = format!(
            "cannot show the end of {}: it is a {kind}, not a regular file",
            path.display()
        );
        assert_eq!(refused, expected);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing");
    for name in ["stat", "tail"] {
        let refused = answer(name, &path, &[]).await.unwrap_err();
        let expected = format!(
            "cannot read {}: No such file or directory (os error 2)",
            path.display()
        );
        assert_eq!(refused, expected);
    }
}

#[tokio::test]
async fn a_long_file_is_read_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // A hole of 1 TiB takes no room, and no reader would come through it in time.
    let mut file = File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    std::io::Write::write_all(&mut file, b"\none\ntwo\xff\nthree").unwrap();
    let seen = answer("tail", &path, &["2"]).await.unwrap();
    let expected = json!({
        "path": path.to_str().unwrap(), "lines": ["two\u{fffd}", "three"], "truncated": false, "replaced": true,
    });
    assert_eq!(seen, expected);
    let seen = answer("tail", &path, &["4"]).await.unwrap();
    assert_eq!(seen["truncated"], true);
    assert_eq!(seen["lines"].as_array().unwrap().len(), 4);
    let read = seen["lines"][0].as_str().unwrap().len() as u64;
    assert_eq!(read, MAX_TAIL_BYTES - "\none\ntwo?\nthree".len() as u64);
}

#[tokio::test]
async fn a_file_without_a_size_is_read_from_its_start() {
    let seen = answer("tail", Path::new("/proc/self/status"), &["1000"])
        .await
        .unwrap();
    assert_eq!(seen["truncated"], false);
    assert!(
        seen["lines"][0].as_str().unwrap().starts_with("Name:"),
        "{seen}"
    );
    let empty = tempfile::NamedTempFile::new().unwrap();
    let seen = answer("tail", empty.path(), &[]).await.unwrap();
    assert_eq!(seen["lines"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_given_up_and_counted() {
    let reads = FileReads::default();
    let mut hold = Vec::new();
    for _ in 0..MOST {
        let (release, stuck) = mpsc::channel::<()>();
        hold.push(release);
        let seen = reads.on_own_thread("/nfs".into(), move || {
            let _ = stuck.recv();
            Ok(Value::Null)
        });
        let error = seen.await.unwrap_err().to_string();
        assert!(
            error.contains("/nfs") && error.contains("within 5 s"),
            "{error}"
        );
    }
    let refused = reads
        .on_own_thread("/else".into(), || Ok(Value::Null))
        .await;
    let error = refused.unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot read /else: 16 reads of other files have no answer yet"
    );
    drop(hold);
    // Each gives its place back when its file system answers after all.
    let all = reads.free.acquire_many(u32::try_from(MOST).unwrap()).await;
    drop(all.unwrap());
    tokio::time::resume();
    assert!(
        reads
            .on_own_thread("/else".into(), || Ok(Value::Null))
            .await
            .is_ok()
    );
}
