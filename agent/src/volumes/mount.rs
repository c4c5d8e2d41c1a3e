//! Mounts a file system for good: a mount unit where systemd runs, mount(8) elsewhere. Called by `mod`, once it is sure
//! which device it is and that there is a file system on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_host::files::{sync_dir, write_atomic};

use super::VolumePaths;
use super::content::last_line;
use super::device::FoundDevice;
use super::request::VolumeRequest;
use super::system::{Done, NotRun, System};
use super::unit::{MARK, Unit, WANTED_BY, mount_unit, options};

/// How long systemctl may take over what needs no disk.
const SHORT: Duration = Duration::from_secs(120);
/// How long a mount may take, with the replay of a log: more than the unit's own limit.
const MOUNT: Duration = Duration::from_secs(330);

/// A file system that is not mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        source: io::Error,
    },
    /// There is a unit for this mount point.
    #[error("{} was not created by aot: remove it, or choose another mount point", path.display())]
    Foreign { path: PathBuf },
    /// A command could not be run.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    #[error("`{what}` failed: {why}")]
    Failed {
        what: String,
        /// The end of its errors.
        why: String,
    },
}

/// Makes the mount point when it is not there, with mode 0755; its name without links, as systemd wants it.
///
/// # Errors
/// As mkdir(2); when it is not a folder.
pub(crate) fn mount_point(path: &Path) -> Result<PathBuf, Error> {
    let make = || {
        fs::create_dir_all(path)?;
        fs::canonicalize(path)
    };
    make().map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// Where one volume is to be mounted, for good.
pub(crate) struct MountPoint<'a, S> {
    pub system: &'a S,
    /// Where its files are.
    pub paths: &'a VolumePaths,
    pub request: &'a VolumeRequest,
    pub found: &'a FoundDevice,
    /// The mount point, without links.
    pub at: &'a Path,
}

impl<S: System> MountPoint<'_, S> {
    /// Writes the unit when it is not as it should be, and sees to it that the next boot knows it; nothing where systemd
    /// does not run.
    ///
    /// # Errors
    /// When the unit is another's, can't be written, or systemd refuses.
    pub(crate) fn ensure_unit(&self, fs: &str) -> Result<(), Error> {
        if !self.paths.has_systemd() {
            return Ok(());
        }
        let name = mount_unit(self.at);
        let path = self.paths.units.join(&name);
        let unit = Unit {
            volume_id: &self.request.volume_id,
            what: &self.found.what,
            at: self.at,
            fs,
            at_boot: self.found.lasting,
        };
        let text = unit.text();
        let old = fs::read_to_string(&path).ok();
        if old.as_ref().is_some_and(|old| !old.starts_with(MARK)) {
            return Err(Error::Foreign { path });
        }
        let wants = self.paths.units.join(format!("{WANTED_BY}.wants"));
        let enabled = wants.join(&name).is_symlink();
        if old.as_ref() == Some(&text) && enabled == self.found.lasting {
            return Ok(());
        }
        write_atomic(&path, text.as_bytes(), 0o644).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        self.ok(&["systemctl", "daemon-reload"], SHORT)?;
        match (enabled, self.found.lasting) {
            (false, true) => self.ok(&["systemctl", "enable", &name], SHORT)?,
            (true, false) => self.ok(&["systemctl", "disable", &name], SHORT)?,
            _ => return Ok(()),
        }
        // The link's name outlives a power cut, as the unit does.
        sync_dir(&wants)
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .map_err(|source| Error::Io {
                path: wants,
                source,
            })
    }

    /// Mounts it now.
    ///
    /// # Errors
    /// As [`MountPoint::ensure_unit`]; when it can't be mounted.
    pub(crate) fn mount(&self, fs: &str) -> Result<(), Error> {
        if !self.paths.has_systemd() {
            let (node, at) = (self.found.node.to_string_lossy(), self.at.to_string_lossy());
            return self.ok(&["mount", "-t", fs, "-o", options(fs), &node, &at], MOUNT);
        }
        self.ensure_unit(fs)?;
        let name = mount_unit(self.at);
        // An agent that was ended between writing and this has left systemd with an older text.
        self.ok(&["systemctl", "daemon-reload"], SHORT)?;
        self.ok(&["systemctl", "start", &name], MOUNT)
            .map_err(|error| self.explained(error, &name))
    }

    fn ok(&self, argv: &[&str], within: Duration) -> Result<(), Error> {
        let Done { code, stderr, .. } = self.system.run(argv, within)?;
        match code {
            Some(0) => Ok(()),
            _ => Err(Error::Failed {
                what: argv.join(" "),
                why: last_line(&stderr).to_owned(),
            }),
        }
    }

    /// systemctl only says that the job failed; mount's own messages are in the unit's log.
    fn explained(&self, error: Error, name: &str) -> Error {
        let Error::Failed { what, why } = error else {
            return error;
        };
        let argv = [
            "systemctl",
            "status",
            "--no-pager",
            "--full",
            "--lines=8",
            name,
        ];
        let log = match self.system.run(&argv, SHORT) {
            Ok(done) => mount_messages(&done.stdout),
            Err(_) => None,
        };
        Error::Failed {
            what,
            why: log.unwrap_or(why),
        }
    }
}

/// Mount's own messages in the log of `systemctl status`: `Jan 01 00:00:00 host mount[12]: mount: /data: ...`.
fn mount_messages(status: &str) -> Option<String> {
    let words: Vec<&str> = status
        .lines()
        .filter_map(|line| line.split_once(" mount[")?.1.split_once("]: "))
        .map(|(_, words)| words.trim())
        .filter(|words| !words.is_empty())
        .collect();
    let from = words.len().saturating_sub(3);
    (!words.is_empty()).then(|| words[from..].join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_own_messages_are_found_in_the_log() {
        let status = "\
× data.mount - EBS volume vol-1
     Loaded: loaded (/etc/systemd/system/data.mount; enabled)
     Active: failed (Result: exit-code)

Nov 21 14:00:00 web1 systemd[1]: Mounting data.mount - EBS volume vol-1...
Nov 21 14:00:00 web1 mount[212]: mount: /data: wrong fs type, bad option, bad superblock on /dev/xvdf.
Nov 21 14:00:00 web1 mount[212]:        dmesg(1) may have more information after failed mount system call.
Nov 21 14:00:00 web1 systemd[1]: data.mount: Mount process exited, code=exited, status=32/n/a
";
        assert_eq!(
            mount_messages(status).unwrap(),
            "mount: /data: wrong fs type, bad option, bad superblock on /dev/xvdf.; \
             dmesg(1) may have more information after failed mount system call."
        );
        assert_eq!(mount_messages("Unit data.mount could not be found."), None);
    }
}
