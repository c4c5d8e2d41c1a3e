//! Where things are on the machine, and how long devices may take. Tests point all of it into a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mountinfo::MountTable;

/// How long a device may take to appear: an attachment takes seconds.
const APPEAR: Duration = Duration::from_secs(120);
/// How long a device may be held by others: more than a mount unit may take (`unit`).
const RELEASE: Duration = Duration::from_secs(330);

/// Where things are on the machine.
#[derive(Debug, Clone)]
pub struct VolumePaths {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// `/etc/systemd/system`.
    pub units: PathBuf,
    /// `/dev`: nodes, and udev's links to them.
    pub dev: PathBuf,
    /// `/sys`: numbers, serial numbers and partitions of devices.
    pub sys: PathBuf,
    /// `/proc`: what is mounted, and new UUIDs.
    pub proc: PathBuf,
    /// `/run`: whether systemd and udev are there.
    pub run: PathBuf,
    /// How long a device may take to appear.
    pub appear: Duration,
    /// How long it may take to be let go by others.
    pub release: Duration,
}

impl VolumePaths {
    /// Those of this machine.
    pub fn new(state_dir: &Path, etc_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            units: etc_dir.join("systemd/system"),
            dev: "/dev".into(),
            sys: "/sys".into(),
            proc: "/proc".into(),
            run: "/run".into(),
            appear: APPEAR,
            release: RELEASE,
        }
    }

    /// Whether systemd is in charge (sd_booted(3)).
    pub(super) fn has_systemd(&self) -> bool {
        self.run.join("systemd/system").is_dir()
    }

    /// What is mounted; nothing where /proc is not there.
    pub(super) fn table(&self) -> MountTable {
        let text = fs::read(self.proc.join("self/mountinfo")).unwrap_or_default();
        MountTable::parse(&String::from_utf8_lossy(&text))
    }

    /// Markers of file systems that were begun.
    pub(super) fn markers(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// Where a volume is mounted to see whether it is empty.
    pub(super) fn probe_dir(&self) -> PathBuf {
        self.state_dir.join("volume-look")
    }
}
