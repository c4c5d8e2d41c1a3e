//! Markers and power cuts: what was begun is finished, and nothing of anybody's is written over.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::volumes::fake::{CUT, Fake, Fault, Moment};
use crate::volumes::tests::{UUID, machine, marker, mount, on};

#[test]
fn mkfs_that_wrote_nothing_leaves_no_marker() {
    let (fake, node) = machine();
    fake.fault("mkfs.ext4", Fault::Missing);
    mount(&fake, "ext4").unwrap_err();
    assert!(!marker(&fake).exists());
    fake.faults.borrow_mut().clear();
    fake.put(&node, "raw data that someone put there\n");
    mount(&fake, "ext4").unwrap_err();
    assert_eq!(on(&node), "raw data that someone put there\n");
}

/// A cut before, in and after each command of a first mount; then the machine is switched on again. XFS is one of those
/// that have to be forced.
#[test]
fn a_power_cut_at_any_point_is_made_good() {
    let moments = [Moment::Before, Moment::Halfway, Moment::After];
    let reached = |nth: &usize| moments.iter().all(|moment| cut_and_boot(*nth, *moment));
    let commands = (0..100).take_while(reached).count();
    assert_eq!(commands, 7, "blkid, mkfs, blkid, and systemctl four times");
}

/// Whether there was a command to cut.
fn cut_and_boot(nth: usize, moment: Moment) -> bool {
    let (fake, node) = machine();
    fake.cut.set(Some((nth, moment)));
    let cut = match catch_unwind(AssertUnwindSafe(|| mount(&fake, "xfs"))) {
        Ok(result) => {
            result.unwrap();
            false
        }
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map_or("", String::as_str);
            let words = panic.downcast_ref::<&str>().copied().unwrap_or(words);
            assert!(words.contains(CUT), "{words}");
            fake.boot();
            mount(&fake, "xfs").unwrap();
            true
        }
    };
    assert_eq!(on(&node), format!("FS xfs {UUID}\n"), "{nth} {moment:?}");
    assert_eq!(
        fake.mounted("/data"),
        Some((5, "xfs".into())),
        "{nth} {moment:?}"
    );
    assert!(!marker(&fake).exists());
    cut
}

/// A machine whose agent was cut off in mkfs, so that the volume's marker is left.
fn cut_off() -> (Fake, PathBuf) {
    let (fake, node) = machine();
    fake.cut.set(Some((1, Moment::Halfway)));
    let silent = catch_unwind(AssertUnwindSafe(|| mount(&fake, "ext4")));
    assert!(silent.is_err() && marker(&fake).exists());
    fake.boot();
    fake.programs();
    (fake, node)
}

#[test]
fn with_a_marker_left_only_what_is_ours_and_empty_is_made_anew() {
    let ours = format!("FS ext4 {UUID}\n");
    for (name, text, files, made) in [
        ("half made", format!("TORN ext4 {UUID}\n"), &[][..], true),
        ("whole, never used", ours.clone(), &["lost+found"], true),
        (
            "used on another machine",
            ours,
            &["lost+found", "ledger"],
            false,
        ),
        (
            "made on another machine",
            "FS ext4 u-9\n".to_owned(),
            &[],
            false,
        ),
        (
            "no signature yet",
            "half a super block\n".to_owned(),
            &[],
            true,
        ),
    ] {
        let (fake, node) = cut_off();
        fake.put(&node, &text);
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        fake.files.borrow_mut().insert(node.clone(), files);
        mount(&fake, "ext4").unwrap();
        let ran = fake.programs();
        assert_eq!(
            ran.contains(&"mkfs.ext4".to_owned()),
            made,
            "{name}: {ran:?}"
        );
        assert!(!marker(&fake).exists());
        assert_eq!(
            fake.paths.table().at(&fake.paths.probe_dir()),
            None,
            "{name}"
        );
        if !made {
            assert_eq!(on(&node), text, "{name}");
        }
    }
}

#[test]
fn another_volumes_marker_and_a_torn_one_allow_nothing() {
    for text in ["{\"volume_id\":\"vol-0dead\",\"uuid\":\"\"}", "{\"vol", ""] {
        let (fake, node) = cut_off();
        fs::write(marker(&fake), text).unwrap();
        fake.put(&node, "raw data\n");
        mount(&fake, "ext4").unwrap_err();
        assert_eq!(on(&node), "raw data\n");
    }
}

#[test]
fn a_probe_that_was_cut_off_is_ended() {
    let (fake, node) = cut_off();
    fake.put(&node, &format!("FS ext4 {UUID}\n"));
    fs::create_dir_all(fake.paths.probe_dir()).unwrap();
    fake.mount_by_hand(&node, &fake.paths.probe_dir(), "ext4");
    mount(&fake, "ext4").unwrap();
    assert_eq!(fake.mounted("/data"), Some((5, "ext4".into())));
}
