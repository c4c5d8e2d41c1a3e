//! Volumes on a machine in a folder: what is made, what is left alone, what is refused.

use std::fs;

use super::fake::{BLANK, Fake, Fault};
use super::*;

pub(super) const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// A machine as the lab's: the volume is /dev/xvdf, with /dev/sdf and udev's link.
pub(super) fn machine() -> (Fake, PathBuf) {
    let fake = Fake::new();
    let node = fake.device("xvdf", 5);
    fake.link("sdf", "xvdf");
    fake.link(
        "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b",
        "../../xvdf",
    );
    fs::write(fake.paths.proc.join("sys/kernel/random/uuid"), UUID).unwrap();
    (fake, node)
}

pub(super) fn mount(fake: &Fake, fs: &str) -> Result<(), String> {
    mount_all_on(fake, &fake.paths, &[fake.volume("/data", fs)])
}

pub(super) fn on(node: &Path) -> String {
    fs::read_to_string(node).unwrap()
}

fn unit_of(fake: &Fake, mount: &str) -> PathBuf {
    let at = fake.path(mount).canonicalize().unwrap();
    fake.paths.units.join(unit::mount_unit(&at))
}

pub(super) fn marker(fake: &Fake) -> PathBuf {
    fake.paths.markers().join("vol-0a1b")
}

#[test]
fn a_new_volume_gets_a_file_system_and_a_unit() {
    let (fake, node) = machine();
    mount(&fake, "").unwrap();
    assert_eq!(on(&node), format!("FS ext4 {UUID}\n"));
    assert_eq!(fake.mounted("/data"), Some((5, "ext4".into())));
    let text = fs::read_to_string(unit_of(&fake, "/data")).unwrap();
    assert!(
        text.contains("/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b\n"),
        "{text}"
    );
    assert!(text.contains("nofail"), "{text}");
    assert!(!marker(&fake).exists());
    let name = unit_of(&fake, "/data").file_name().unwrap().to_owned();
    assert!(
        fake.paths
            .units
            .join("local-fs.target.wants")
            .join(name)
            .exists()
    );
}

#[test]
fn what_is_in_place_is_left_alone() {
    let (fake, _) = machine();
    mount(&fake, "ext4").unwrap();
    fake.programs();
    mount(&fake, "ext4").unwrap();
    mount(&fake, "xfs").unwrap();
    assert!(fake.programs().is_empty());
}

#[test]
fn after_a_boot_the_volume_is_mounted_again_and_never_made() {
    let (fake, node) = machine();
    mount(&fake, "xfs").unwrap();
    fake.boot();
    fake.programs();
    mount(&fake, "xfs").unwrap();
    assert_eq!(fake.programs(), ["blkid", "systemctl", "systemctl"]);
    assert_eq!(fake.mounted("/data"), Some((5, "xfs".into())));
    assert_eq!(on(&node), format!("FS xfs {UUID}\n"));
}

#[test]
fn a_unit_that_was_changed_is_put_right_under_the_mount() {
    let (fake, _) = machine();
    mount(&fake, "ext4").unwrap();
    let path = unit_of(&fake, "/data");
    let right = fs::read_to_string(&path).unwrap();
    fs::write(&path, right.replace("ext4", "ext3")).unwrap();
    fake.programs();
    mount(&fake, "ext4").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), right);
    assert_eq!(fake.programs(), ["systemctl"], "reload, no mount");
}

#[test]
fn a_name_that_changes_over_reboots_is_not_enabled() {
    let fake = Fake::new();
    fs::write(fake.paths.proc.join("sys/kernel/random/uuid"), UUID).unwrap();
    fake.device("nvme1n1", 1);
    fake.serial("nvme1n1", "vol0a1b\n");
    mount(&fake, "ext4").unwrap();
    let wants = fake.paths.units.join("local-fs.target.wants");
    let name = unit_of(&fake, "/data").file_name().unwrap().to_owned();
    assert!(!wants.join(&name).is_symlink());
    fake.link(
        "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b",
        "../../nvme1n1",
    );
    mount(&fake, "ext4").unwrap();
    assert!(wants.join(&name).is_symlink(), "now it has a name to keep");
    fs::remove_file(
        fake.paths
            .dev
            .join("disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b"),
    )
    .unwrap();
    mount(&fake, "ext4").unwrap();
    assert!(!wants.join(&name).is_symlink());
}

#[test]
fn without_systemd_it_is_mounted_all_the_same() {
    let (fake, _) = machine();
    let fake = fake.no_systemd();
    mount(&fake, "ext4").unwrap();
    assert_eq!(fake.mounted("/data"), Some((5, "ext4".into())));
    assert_eq!(fake.programs(), ["blkid", "mkfs.ext4", "blkid", "mount"]);
    assert_eq!(fs::read_dir(&fake.paths.units).unwrap().count(), 0);
}

#[test]
fn what_is_on_a_volume_stays() {
    for (text, fs, want) in [
        ("FS xfs u-9\n", "ext4", Ok("xfs")),
        ("FS ext4 u-9\n", "", Ok("ext4")),
        ("PT gpt\n", "ext4", Err("partitioned (gpt)")),
        ("OTHER LVM2_member\n", "ext4", Err("holds LVM2_member")),
        ("AMBIVALENT\n", "ext4", Err("several kinds")),
        ("BROKEN\n", "ext4", Err("Input/output error")),
        ("raw data\n", "ext4", Err("blkid does not know")),
    ] {
        let (fake, node) = machine();
        fake.put(&node, text);
        match (mount(&fake, fs), want) {
            (Ok(()), Ok(fs)) => assert_eq!(fake.mounted("/data"), Some((5, fs.into()))),
            (Err(error), Err(words)) => {
                assert!(error.contains(words), "{words} in {error}");
                assert!(error.starts_with("vol-0a1b (/dev/sdf) at "), "{error}");
                assert!(error.contains("/dev/xvdf "), "{error}");
                assert_eq!(fake.mounted("/data"), None);
            }
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
        assert_eq!(on(&node), text);
    }
}

#[test]
fn a_device_in_use_is_refused() {
    let (fake, node) = machine();
    fake.mount_by_hand(&node, Path::new("/"), "ext4");
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("holds the root file system"), "{error}");
    fake.boot();
    fake.mount_by_hand(&node, Path::new("/srv"), "ext4");
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("is mounted at /srv already"), "{error}");
    fake.boot();
    fake.held.set(u32::MAX);
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("held by another program"), "{error}");
    assert_eq!(fs::read(&node).unwrap(), BLANK);
    fake.held.set(2);
    mount(&fake, "ext4").unwrap();
}

#[test]
fn a_device_whose_partition_is_in_use_is_refused_at_once() {
    let (fake, _) = machine();
    let partition = fake.paths.sys.join("block/xvdf/xvdf1");
    fs::create_dir_all(&partition).unwrap();
    fs::write(partition.join("partition"), "1\n").unwrap();
    fake.held.set(u32::MAX);
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("is partitioned (it has xvdf1)"), "{error}");
    assert_eq!(fake.held.get(), u32::MAX, "nothing was waited for");
}

#[test]
fn volumes_share_the_time_they_have_to_appear() {
    let (mut fake, _) = machine();
    fake.paths.appear = Duration::from_secs(1);
    let missing = |n: u32| Volume {
        volume_id: format!("vol-0{n}"),
        device: format!("/dev/sdx{n}"),
        ..fake.volume(&format!("/m{n}"), "")
    };
    let mut volumes: Vec<Volume> = (0..20).map(missing).collect();
    volumes.push(fake.volume("/z", ""));
    let begun = Instant::now();
    let error = mount_all_on(&fake, &fake.paths, &volumes).unwrap_err();
    assert!(
        error.starts_with("vol-00 ") && error.contains("19 more"),
        "{error}"
    );
    assert!(begun.elapsed() < 15 * fake.paths.appear);
    assert_eq!(fake.mounted("/z"), Some((5, "ext4".into())));
}

/// At boot systemd and the agent may both be at it.
#[test]
fn a_mount_that_is_under_way_is_waited_for() {
    let (fake, node) = machine();
    mount(&fake, "ext4").unwrap();
    fake.boot();
    fake.programs();
    fake.held.set(u32::MAX);
    let at = fake.path("/data").canonicalize().unwrap();
    fake.later(move |fake| fake.mount_by_hand(&node, &at, "ext4"));
    mount(&fake, "ext4").unwrap();
    assert!(fake.programs().is_empty());
}

#[test]
fn a_mount_point_in_use_is_refused() {
    let (fake, node) = machine();
    let other = fake.device("xvdg", 6);
    let at = mount::mount_point(&fake.path("/data")).unwrap();
    fake.mount_by_hand(&other, &at, "ext4");
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("/dev/xvdg is mounted at"), "{error}");
    assert_eq!(fs::read(&node).unwrap(), BLANK);
}

#[test]
fn a_unit_of_someone_else_stays() {
    let (fake, _) = machine();
    mount::mount_point(&fake.path("/data")).unwrap();
    let path = unit_of(&fake, "/data");
    fs::write(&path, "[Mount]\n").unwrap();
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(error.contains("was not created by aot"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "[Mount]\n");
}

#[test]
fn commands_that_fail_are_named_with_their_errors() {
    for (program, fault, words) in [
        ("mkfs.ext4", Fault::Missing, "install the package e2fsprogs"),
        ("mkfs.ext4", Fault::Fails("first\nno space\n"), "no space"),
        ("mkfs.ext4", Fault::Lies, "afterwards blkid finds Nothing"),
        ("blkid", Fault::Missing, "blkid is not on this machine"),
        (
            "systemctl",
            Fault::Fails("access denied\n"),
            "access denied",
        ),
        ("systemctl", Fault::Lies, "is not from it"),
    ] {
        let (fake, _) = machine();
        fake.fault(program, fault);
        let error = mount(&fake, "ext4").unwrap_err();
        assert!(error.contains(words), "{words} in {error}");
        fake.faults.borrow_mut().clear();
        mount(&fake, "ext4").unwrap();
        assert!(!marker(&fake).exists());
    }
}

#[test]
fn a_mount_that_fails_is_reported_in_mounts_words() {
    let (fake, node) = machine();
    fake.put(&node, "TORN ext4 u-9\n");
    let error = mount(&fake, "ext4").unwrap_err();
    assert!(
        error.contains("systemctl start") && error.contains("is bad"),
        "{error}"
    );
    assert_eq!(on(&node), "TORN ext4 u-9\n", "it is not ours to make anew");
}

fn two(fake: &Fake) -> [Volume; 2] {
    fake.device("xvdg", 6);
    let inner = Volume {
        volume_id: "vol-0c2d".into(),
        device: "/dev/sdg".into(),
        ..fake.volume("/data/x", "ext4")
    };
    [inner, fake.volume("/data", "ext4")]
}

#[test]
fn nested_mount_points_are_mounted_from_the_top() {
    let (fake, _) = machine();
    mount_all_on(&fake, &fake.paths, &two(&fake)).unwrap();
    let text = fs::read_to_string(fake.paths.proc.join("self/mountinfo")).unwrap();
    let (outer, inner) = (text.find("/data rw"), text.find("/data/x rw"));
    assert!(outer.is_some() && outer < inner, "{text}");
}

#[test]
fn nothing_is_mounted_below_what_is_missing_and_others_are_tried() {
    let (fake, node) = machine();
    fake.put(&node, "PT dos\n");
    let mut volumes = two(&fake).to_vec();
    fake.device("xvdh", 8);
    volumes.push(Volume {
        volume_id: "vol-0e3f".into(),
        device: "/dev/sdh".into(),
        ..fake.volume("/srv", "ext4")
    });
    let error = mount_all_on(&fake, &fake.paths, &volumes).unwrap_err();
    assert!(error.starts_with("vol-0a1b"), "{error}");
    assert!(error.ends_with("(and 1 more failed)"), "{error}");
    assert_eq!(fake.mounted("/srv"), Some((8, "ext4".into())));
    assert!(!fake.path("/data/x").exists());
}
