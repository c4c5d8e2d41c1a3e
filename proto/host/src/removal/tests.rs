//! What is removed, what is mounted and stays, and what happens meanwhile.

use std::ffi::OsStr;
use std::fs::{Permissions, create_dir, create_dir_all, read, write};
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;

const NONE: Option<&str> = None;

/// Runs it in a thread with mounts of its own, which nobody else sees and which end with it. Says so where that is not
/// allowed.
fn with_own_mounts(test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let ran = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let own = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
                .and_then(|()| mount(NONE, "/", NONE, private, NONE));
            if own.is_ok() {
                test(&root);
            }
            own.is_ok()
        });
        inside.join().unwrap()
    });
    if !ran {
        eprintln!("skipped: mounting is not allowed here");
    }
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).unwrap();
}

#[test]
fn a_tree_is_removed_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create_dir_all(at("tree/a/b/c")).unwrap();
    create_dir_all(at("else")).unwrap();
    write(at("else/file"), "precious").unwrap();
    for n in 0..300 {
        write(at(&format!("tree/a/{n}")), "x").unwrap();
        create_dir(at(&format!("tree/a/b/{n}"))).unwrap();
    }
    symlink(at("else"), at("tree/a/b/link")).unwrap();
    symlink(at("else"), at("way")).unwrap();
    symlink("nowhere", at("tree/dangling")).unwrap();
    remove_tree(&at("tree")).unwrap();
    assert!(at("tree").symlink_metadata().is_err());
    assert_eq!(read(at("else/file")).unwrap(), b"precious");
    remove_tree(&at("way")).unwrap();
    assert!(at("way").symlink_metadata().is_err(), "a link is one name");
    assert_eq!(read(at("else/file")).unwrap(), b"precious");
    assert!(remove_tree(&at("tree")).unwrap_err().is_not_found());
}

#[test]
fn no_depth_is_too_deep() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("deep");
    create_dir(&top).unwrap();
    let mut folder = fs::open(&top, OPEN, Mode::empty()).unwrap();
    for _ in 0..5_000 {
        fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = fs::openat(&folder, "d", OPEN, Mode::empty()).unwrap();
    }
    remove_tree(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn a_folder_that_may_not_be_entered_is_opened_up() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create_dir_all(at("tree/shut/inner")).unwrap();
    write(at("tree/shut/inner/file"), "x").unwrap();
    for name in ["tree/shut/inner", "tree/shut", "tree"] {
        std::fs::set_permissions(at(name), Permissions::from_mode(0o000)).unwrap();
    }
    remove_tree(&at("tree")).unwrap();
    assert!(!at("tree").exists());
}

#[test]
fn nothing_is_removed_while_anything_is_mounted_below() {
    with_own_mounts(|root| {
        let at = |name: &str| root.join(name);
        create_dir_all(at("data/inner")).unwrap();
        write(at("data/precious"), "x").unwrap();
        create_dir_all(at("tree/a b/mnt")).unwrap();
        write(at("tree/first"), "x").unwrap();
        write(at("tree/a b/file"), "x").unwrap();
        symlink(at("tree"), at("way")).unwrap();
        let refused = |path: &Path, by: &Path| {
            match remove_tree(path) {
                Err(Error::Mounted(mounted)) => assert_eq!(mounted, by),
                other => panic!("{other:?}"),
            }
            assert!(at("tree/first").exists() && at("tree/a b/file").exists());
            assert_eq!(read(at("data/precious")).unwrap(), b"x");
        };
        // A folder of the same file system, whose name has a blank.
        bind(&at("data"), &at("tree/a b/mnt"));
        refused(&at("tree"), &at("tree/a b/mnt"));
        refused(&at("way/a b"), &at("tree/a b/mnt"));
        refused(&at("tree/a b/mnt"), &at("tree/a b/mnt"));
        umount2(&at("tree/a b/mnt"), MntFlags::MNT_DETACH).unwrap();
        // A file over a file.
        bind(&at("data/precious"), &at("tree/a b/file"));
        refused(&at("tree"), &at("tree/a b/file"));
        umount2(&at("tree/a b/file"), MntFlags::MNT_DETACH).unwrap();
        // Another file system.
        let none = MsFlags::empty();
        mount(
            Some("tmpfs"),
            &at("tree/a b/mnt"),
            Some("tmpfs"),
            none,
            NONE,
        )
        .unwrap();
        refused(&at("tree"), &at("tree/a b/mnt"));
        umount2(&at("tree/a b/mnt"), MntFlags::MNT_DETACH).unwrap();
        // A name that only begins the same.
        create_dir(at("tree2")).unwrap();
        bind(&at("data"), &at("tree2"));
        remove_tree(&at("tree")).unwrap();
        assert!(!at("tree").exists());
    });
}

#[test]
fn what_is_mounted_after_the_first_check_is_not_entered() {
    with_own_mounts(|root| {
        let at = |name: &str| root.join(name);
        create_dir_all(at("data")).unwrap();
        write(at("data/precious"), "x").unwrap();
        create_dir_all(at("tree/mnt")).unwrap();
        bind(&at("data"), &at("tree/mnt"));
        let above = fs::open(root, OPEN, Mode::empty()).unwrap();
        let mut walk = Walk::enter(&above, OsStr::new("tree"), at("tree")).unwrap();
        match walk.empty() {
            Err(Error::Mounted(mounted)) => assert_eq!(mounted, at("tree/mnt")),
            other => panic!("{other:?}"),
        }
        assert_eq!(read(at("data/precious")).unwrap(), b"x");
    });
}

#[test]
fn a_scratch_folder_goes_with_its_owner_unless_it_is_persisted() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Scratch::new_in(dir.path(), ".x-").unwrap();
    let kept = Scratch::new_in(dir.path(), ".x-").unwrap();
    let (gone_path, kept_path) = (gone.path().to_owned(), kept.path().to_owned());
    assert_ne!(gone_path, kept_path);
    write(gone_path.join("f"), "x").unwrap();
    drop(gone);
    kept.persist();
    assert!(!gone_path.exists() && kept_path.exists());
}
