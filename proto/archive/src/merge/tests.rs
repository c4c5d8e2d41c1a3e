//! A folder beside its place, moved into it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::samples::*;
use crate::*;

#[test]
fn a_folder_beside_its_place_is_merged_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("new/both/closed")).unwrap();
    fs::write(at("new/both/x"), "new").unwrap();
    fs::write(at("new/both/closed/y"), "y").unwrap();
    fs::set_permissions(at("new/both/closed"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::create_dir_all(at("to/both")).unwrap();
    fs::write(at("to/both/x"), "old").unwrap();
    fs::write(at("to/both/kept"), "kept").unwrap();
    let (from, to) = (
        Folder::open(&at("new")).unwrap(),
        Folder::open(&at("to")).unwrap(),
    );
    merge(&from, &to).unwrap();
    assert_eq!(fs::read(at("to/both/x")).unwrap(), b"new");
    assert_eq!(
        names(&at("to")),
        [
            "both",
            "both/closed",
            "both/closed/y",
            "both/kept",
            "both/x"
        ]
    );
    assert_eq!(
        fs::metadata(at("to/both/closed")).unwrap().mode() & 0o777,
        0o555
    );
    assert_eq!(names(&at("new")), [""; 0]);
    // A link where a folder is to go, and a folder where a file is to go.
    fs::create_dir_all(at("new/l/in")).unwrap();
    symlink(dir.path(), at("to/l")).unwrap();
    assert!(
        merge(&from, &to)
            .unwrap_err()
            .to_string()
            .contains("\"l\": ")
    );
    aot_host::removal::remove_tree(&at("new/l")).unwrap();
    fs::write(at("new/both"), "a file").unwrap();
    assert!(merge(&from, &to).is_err());
    assert!(at("to/both/kept").exists());
}

#[test]
fn what_is_there_keeps_owner_and_mode_and_a_link_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("new")).unwrap();
    fs::create_dir_all(at("to")).unwrap();
    fs::create_dir_all(at("beside")).unwrap();
    for name in ["app.conf", "link", "fresh"] {
        fs::write(at("new").join(name), "new").unwrap();
        fs::set_permissions(at("new").join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let root = rustix::process::geteuid().is_root();
    let reset = || {
        fs::write(at("to/app.conf"), "secret").unwrap();
        fs::set_permissions(at("to/app.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        if root {
            std::os::unix::fs::chown(at("to/app.conf"), Some(12), Some(34)).unwrap();
        }
        fs::write(at("to/real"), "old").unwrap();
        let _ = fs::remove_file(at("to/link"));
        symlink("real", at("to/link")).unwrap();
    };
    let check = |how: &str| {
        let meta = fs::metadata(at("to/app.conf")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o600, "{how}");
        if root {
            assert_eq!((meta.uid(), meta.gid()), (12, 34), "{how}");
        }
        let text = |name: &str| fs::read_to_string(at("to").join(name)).unwrap();
        assert_eq!(
            (text("app.conf"), text("real")),
            ("new".into(), "old".into()),
            "{how}"
        );
        assert!(at("to/link").symlink_metadata().unwrap().is_file(), "{how}");
        assert_eq!(
            fs::metadata(at("to/fresh")).unwrap().mode() & 0o777,
            0o644,
            "{how}"
        );
    };
    let (bytes, _) = packed(&[at("new/.")]);
    let (to, beside) = (
        Folder::open(&at("to")).unwrap(),
        Folder::open(&at("beside")).unwrap(),
    );
    reset();
    unpack(&bytes[..], &to, &open_rules()).unwrap();
    check("unpacked in place");
    fs::remove_file(at("to/fresh")).unwrap();
    reset();
    unpack(&bytes[..], &beside, &open_rules()).unwrap();
    merge(&beside, &to).unwrap();
    check("unpacked beside its place");
}
