//! Volumes on a real block device: a file behind a loop device, with the system's own blkid, mkfs and mount. Skipped where
//! the kernel or the container does not allow that.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aot_agent::inside::{VolumePaths, mount_all};
use aot_proto::v1::Volume;

const MIB: usize = 1 << 20;

/// A disk of 32 MiB; goes, with what is mounted from it, when dropped.
struct Disk {
    dir: tempfile::TempDir,
    node: PathBuf,
}

impl Disk {
    /// `None`, and the reason on stderr, where there can be none.
    fn new(head: &[u8]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let image = dir.path().join("disk.img");
        let mut bytes = vec![0; 32 * MIB];
        bytes[..head.len()].copy_from_slice(head);
        fs::write(&image, bytes).expect("an image");
        let Some(node) = output("losetup", &["-f", "--show", &image.to_string_lossy()]) else {
            eprintln!("skipped: no loop device can be had here");
            return None;
        };
        let node = PathBuf::from(node.trim());
        let by_id = dir.path().join("dev/disk/by-id");
        fs::create_dir_all(&by_id).expect("a folder");
        let link = by_id.join("nvme-Amazon_Elastic_Block_Store_vol0a1b");
        symlink(&node, link).expect("a link");
        Some(Self { dir, node })
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("data set")
    }

    fn paths(&self) -> VolumePaths {
        let under = |name: &str| self.dir.path().join(name);
        fs::create_dir_all(under("state")).expect("a folder");
        VolumePaths {
            dev: under("dev"),
            run: under("run"),
            appear: Duration::from_secs(60),
            release: Duration::from_secs(5),
            ..VolumePaths::new(&under("state"), &under("etc"))
        }
    }

    fn mount(&self, fs: &str) -> Result<(), String> {
        let volume = Volume {
            volume_id: "vol-0a1b".to_owned(),
            device: "/dev/sdf".to_owned(),
            mount: self.at().display().to_string(),
            fs: fs.to_owned(),
        };
        mount_all(&self.paths(), &[volume])
    }

    fn umount(&self) -> bool {
        output("umount", &[&self.at().to_string_lossy()]).is_some()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.umount();
        output("losetup", &["-d", &self.node.to_string_lossy()]);
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(program).args(args).output().ok()?;
    done.status
        .success()
        .then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Whether this process may mount at all.
fn may_mount() -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path().to_string_lossy();
    let may = output("mount", &["-t", "tmpfs", "none", &at]).is_some();
    if may {
        output("umount", &[&at]);
    } else {
        eprintln!("skipped: mounting is not allowed here");
    }
    may
}

#[test]
fn a_real_disk_is_made_once_and_keeps_its_data() {
    let Some(disk) = may_mount().then(|| Disk::new(&[])).flatten() else {
        return;
    };
    disk.mount("").expect("made and mounted");
    let file = disk.at().join("ledger");
    fs::write(&file, "kept").expect("a file");
    disk.mount("").expect("in place already");
    assert!(disk.umount());
    assert!(!file.exists());
    disk.mount("xfs").expect("mounted as it is");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "kept");
    let markers = disk.dir.path().join("state/volumes");
    assert_eq!(fs::read_dir(markers).expect("a folder").count(), 0);
}

#[test]
fn a_real_disk_that_holds_something_else_is_left_alone() {
    let mut partitioned = [0; 512];
    partitioned[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 3, 0, 0, 8, 0, 0, 0, 64, 0, 0]);
    partitioned[510..].copy_from_slice(&[0x55, 0xaa]);
    for (head, words) in [
        (&partitioned[..], "is partitioned (dos)"),
        (b"raw data of a database", "blkid does not know"),
    ] {
        let Some(disk) = Disk::new(head) else {
            return;
        };
        let error = disk.mount("ext4").expect_err("refused");
        assert!(error.contains(words), "{error}");
        assert!(error.contains(&*disk.node.to_string_lossy()), "{error}");
        let bytes = fs::read(disk.dir.path().join("disk.img")).expect("an image");
        assert!(bytes.starts_with(head));
        assert!(bytes[head.len()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_real_disk_that_is_mounted_elsewhere_is_left_alone() {
    let Some(disk) = may_mount().then(|| Disk::new(&[])).flatten() else {
        return;
    };
    disk.mount("ext4").expect("made and mounted");
    let mut other = disk.paths();
    other.appear = Duration::from_millis(10);
    let volume = Volume {
        volume_id: "vol-0a1b".to_owned(),
        device: "/dev/sdf".to_owned(),
        mount: disk.dir.path().join("other").display().to_string(),
        fs: String::new(),
    };
    let error = mount_all(&other, &[volume]).expect_err("refused");
    let at = format!("is mounted at {} already", disk.at().display());
    assert!(error.contains(&at), "{error}");
    assert_eq!(
        output(
            "findmnt",
            &[
                "-n",
                &Path::new(&disk.dir.path().join("other")).to_string_lossy()
            ]
        ),
        None
    );
}
