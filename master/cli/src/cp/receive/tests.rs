//! What is received is there whole or not at all, and nowhere else.

use std::fs;
use std::io;
use std::path::PathBuf;

use aot_archive::Digest;

use super::*;

fn packed(path: PathBuf) -> (Vec<u8>, String) {
    let mut out = aot_archive::Digesting::new(Vec::new());
    let sources = aot_archive::sources(&[path]).expect("sources");
    aot_archive::pack(&sources, &mut out, &mut |_| {}).expect("packs");
    out.finish()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An archive of one entry with that name, as a hostile agent may send it.
fn hostile(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(2048, 0);
    bytes
}

#[tokio::test]
async fn each_instance_has_its_folder_and_only_what_is_right_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("log")).expect("a folder");
    fs::write(at("log/a"), vec![7; 100_000]).expect("writes");
    let (bytes, sha256) = packed(at("log"));
    let to = at("to");
    let mut receive = Receive::new(&to, false, true, Tops::from_names(["log"])).expect("a place");
    for (instance, end) in [
        ("web1", bytes.len()),
        ("web2", bytes.len() / 2),
        ("web3", bytes.len()),
        ("web4", 1000),
    ] {
        for piece in bytes[..end].chunks(30_000) {
            receive.piece(instance, piece).await;
        }
    }
    receive.finish("web1", &sha256).await.expect("is right");
    let cut = receive.finish("web2", &sha256).await.expect_err("is cut");
    assert!(cut.contains("refused"), "{cut}");
    let other = "0".repeat(64);
    let wrong = receive
        .finish("web3", &other)
        .await
        .expect_err("is other bytes");
    assert!(wrong.contains(&sha256), "{wrong}");
    assert!(
        receive.finish("web5", &sha256).await.is_err(),
        "nothing came"
    );
    for name in ["../x", "/x", "web1/../../x"] {
        receive.piece("web6", &hostile(name)).await;
        let digest = {
            let mut digest = Digest::default();
            digest.update(&hostile(name));
            digest.hex()
        };
        assert!(receive.finish("web6", &digest).await.is_err(), "{name}");
    }
    receive.piece("../up", &bytes).await;
    assert!(receive.finish("../up", &sha256).await.is_err());
    receive.drop_of("web4");
    assert_eq!(names(&to), ["web1"]);
    assert_eq!(
        fs::read(to.join("web1/log/a")).expect("reads").len(),
        100_000
    );
    assert_eq!(names(dir.path()), ["log", "to"]);
}

#[tokio::test]
async fn what_was_not_finished_is_gone_and_what_was_there_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a"), vec![7; 100_000]).expect("writes");
    let (bytes, sha256) = packed(at("a"));
    fs::create_dir(at("to")).expect("a folder");
    fs::write(at("to/new"), "old").expect("writes");
    let mut receive =
        Receive::new(&at("to/new"), false, false, Tops::from_names(["a"])).expect("a place");
    receive.piece("web1", &bytes[..bytes.len() / 2]).await;
    drop(receive);
    assert_eq!(names(&at("to")), ["new"]);
    assert_eq!(fs::read(at("to/new")).expect("reads"), b"old");
    let mut receive =
        Receive::new(&at("to/new"), false, false, Tops::from_names(["a"])).expect("a place");
    receive.piece("web1", &bytes).await;
    receive.finish("web1", &sha256).await.expect("is right");
    assert_eq!(fs::read(at("to/new")).expect("reads").len(), 100_000);
}

/// An archive of files with these names, as a lying agent may send it.
fn lies(entries: &[(&str, tar::EntryType)]) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(aot_archive::Digesting::new(Vec::new()));
    for (name, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..4].copy_from_slice(b".ssh");
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, io::empty()).expect("memory");
    }
    tar.into_inner().expect("memory").finish()
}

#[tokio::test]
async fn an_instance_writes_only_the_names_that_were_asked_for() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    for folders in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at(".ssh")).expect("a folder");
        fs::write(at(".bashrc"), "mine").expect("writes");
        let asked = Tops::from_names(["report"]);
        let mut receive = Receive::new(dir.path(), false, folders, asked).expect("a place");
        for lie in [
            &[("report", Regular), (".bashrc", Regular)][..],
            &[("report", Regular), (".ssh/authorized_keys", Regular)],
            &[("report", Regular), ("Makefile", Regular)],
            &[("report", Symlink)],
            &[("report", Directory), ("report", Symlink)],
            &[
                ("report", Directory),
                ("report/l", Symlink),
                ("report/l/x", Regular),
            ],
            &[("report", Regular), (".bashrc", Link)],
            &[("REPORT", Regular)],
            &[("./.bashrc", Regular)],
        ] {
            let (bytes, sha256) = lies(lie);
            receive.piece("web1", &bytes).await;
            let refused = receive.finish("web1", &sha256).await;
            let why = refused.expect_err("is refused");
            assert!(why.contains("refused"), "{lie:?}: {why}");
            assert_eq!(names(dir.path()), [".bashrc", ".ssh"], "{lie:?}");
            assert_eq!(names(&at(".ssh")), [""; 0], "{lie:?}");
            assert_eq!(fs::read(at(".bashrc")).expect("reads"), b"mine");
        }
        let (bytes, sha256) = lies(&[("report", Directory), ("report/.bashrc", Regular)]);
        receive.piece("web1", &bytes).await;
        receive.finish("web1", &sha256).await.expect("is right");
    }
}

#[tokio::test]
async fn nothing_goes_through_a_link_that_an_earlier_copy_brought() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("to")).expect("a folder");
    fs::create_dir_all(at("to/.ssh")).expect("a folder");
    let any = || Receive::new(&at("to"), true, false, Tops::Any).expect("a place");
    let mut first = any();
    let (bytes, sha256) = lies(&[
        ("d", Symlink),
        ("web1", Symlink),
        ("app", Directory),
        ("app/l", Symlink),
    ]);
    first.piece("web1", &bytes).await;
    first
        .finish("web1", &sha256)
        .await
        .expect("links are made as they are");
    for lie in [
        &[("d", Directory), ("d/authorized_keys", Regular)][..],
        &[
            ("app", Directory),
            ("app/l", Directory),
            ("app/l/authorized_keys", Regular),
        ],
    ] {
        let (bytes, sha256) = lies(lie);
        let mut second = any();
        second.piece("web1", &bytes).await;
        second
            .finish("web1", &sha256)
            .await
            .expect_err("a link is in the way");
    }
    // The folder of an instance's own is never a link.
    let (bytes, sha256) = lies(&[("authorized_keys", Regular)]);
    let mut third = Receive::new(&at("to"), true, true, Tops::Any).expect("a place");
    third.piece("web1", &bytes).await;
    third
        .finish("web1", &sha256)
        .await
        .expect_err("a link is in the way");
    assert_eq!(names(&at("to/.ssh")), [""; 0]);
    assert!(
        names(&at("to"))
            .iter()
            .all(|name| !name.starts_with(aot_archive::PART))
    );
}
