//! Has a file system on a volume: probes what is there, makes one only on a volume that holds nothing. Called by
//! `mod`. A power cut at any point leaves a volume that the next call finishes; data is never written over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_host::files::{shut_dir, sync_dir, trimmed, write_atomic};

use super::VolumePaths;
use super::content::{self, Action, DeviceContent, Marker, last_line};
use super::device::FoundDevice;
use super::mkfs::{mkfs, package};
use super::request::VolumeRequest;
use super::system::{NotRun, System, is_zero};

/// How long blkid, mount and umount may take to find out what is there.
const PROBE: Duration = Duration::from_secs(60);
/// How long mkfs may take: without lazy initialisation, minutes per TiB.
const MKFS: Duration = Duration::from_secs(1800);

/// A volume without a file system to mount.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not ours to use.
    #[error("{} {why}", node.display())]
    Refused { node: PathBuf, why: String },
    /// The device, or the marker, can't be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The device or file.
        path: PathBuf,
        source: io::Error,
    },
    /// A command could not be run.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    /// mkfs is not there.
    #[error("cannot make {fs} on {}: mkfs.{fs} is not on this machine: install {}, by cloud-config or in the image", node.display(), package(fs))]
    NoMkfs {
        node: PathBuf,
        /// Type of the file system.
        fs: String,
    },
    /// mkfs failed, or what it made can't be found.
    #[error("mkfs.{fs} of {} failed: {why}", node.display())]
    Mkfs {
        node: PathBuf,
        /// Type of the file system.
        fs: String,
        /// The end of its errors.
        why: String,
    },
    /// What was mounted to be checked can't be unmounted.
    #[error("cannot unmount {}: {why}", at.display())]
    Umount {
        at: PathBuf,
        /// The end of umount's errors.
        why: String,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes sure that there is a file system on a device that nobody has mounted or holds; its type.
///
/// # Errors
/// When the device is not ours to use, or the file system can't be made. The volume is as it was, or marked as ours.
pub(crate) fn ensure(
    system: &impl System,
    paths: &VolumePaths,
    request: &VolumeRequest,
    found: &FoundDevice,
) -> Result<String, Error> {
    let job = FormatJob {
        system,
        paths,
        request,
        node: &found.node,
    };
    let marker = job.marker();
    let content = job.probe()?;
    let zero = content == DeviceContent::Nothing
        && marker.is_none()
        && is_zero(job.node).map_err(at(job.node))?;
    match content::decide(&content, marker.as_ref(), zero) {
        Action::Make { again } => job.make(again),
        Action::Inspect(fs) if job.is_empty(&fs)? => job.make(true),
        Action::Use(fs) | Action::Inspect(fs) => {
            job.unmark()?;
            if fs != request.fs {
                tracing::warn!(
                    volume = request.volume_id,
                    found = fs,
                    wanted = request.fs,
                    "the volume already has another file system; using it"
                );
            }
            Ok(fs)
        }
        Action::Refuse(why) => Err(Error::Refused {
            node: job.node.to_owned(),
            why,
        }),
    }
}

/// Unmounts a volume that was being checked when the agent was ended.
///
/// # Errors
/// When it can't be unmounted.
pub(crate) fn end_probe(system: &impl System, paths: &VolumePaths) -> Result<(), Error> {
    let dir = paths.probe_dir();
    if paths.table().at(&dir).is_some() {
        umount(system, &dir)?;
    }
    Ok(())
}

fn umount(system: &impl System, at: &Path) -> Result<(), Error> {
    let done = system.run(&["umount", &at.to_string_lossy()], PROBE)?;
    match done.code {
        Some(0) => Ok(()),
        _ => Err(Error::Umount {
            at: at.to_owned(),
            why: last_line(&done.stderr).to_owned(),
        }),
    }
}

struct FormatJob<'a, S> {
    system: &'a S,
    paths: &'a VolumePaths,
    request: &'a VolumeRequest,
    node: &'a Path,
}

impl<S: System> FormatJob<'_, S> {
    fn marker_path(&self) -> PathBuf {
        self.paths.markers().join(&self.request.volume_id)
    }

    /// What was begun on this volume. A file that can't be read counts as none: then less is allowed.
    fn marker(&self) -> Option<Marker> {
        let text = fs::read(self.marker_path()).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        (marker.volume_id == self.request.volume_id).then_some(marker)
    }

    /// On disk before the first byte of the volume is written.
    fn mark(&self, uuid: &str) -> Result<(), Error> {
        let path = self.marker_path();
        let marker = Marker {
            volume_id: self.request.volume_id.clone(),
            uuid: uuid.to_owned(),
        };
        let markers = self.paths.markers();
        let write = || {
            shut_dir(&markers)?;
            sync_dir(&self.paths.state_dir)?;
            write_atomic(&path, &serde_json::to_vec(&marker)?, 0o600)
        };
        write().map_err(at(&path))
    }

    /// Gone from disk before the volume is first mounted.
    fn unmark(&self) -> Result<(), Error> {
        let path = self.marker_path();
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.paths.markers()).map_err(at(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    fn probe(&self) -> Result<DeviceContent, Error> {
        let node = self.node.to_string_lossy();
        let argv = ["blkid", "-p", "-o", "export", &node];
        Ok(content::content(&self.system.run(&argv, PROBE)?))
    }

    fn make(&self, again: bool) -> Result<String, Error> {
        let fs = &self.request.fs;
        let source = self.paths.proc.join("sys/kernel/random/uuid");
        let uuid =
            trimmed(&source).ok_or_else(|| at(&source)(io::ErrorKind::InvalidData.into()))?;
        let (argv, has_uuid) = mkfs(fs, &self.node.to_string_lossy(), &uuid, again);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.mark(if has_uuid { &uuid } else { "" })?;
        tracing::info!(volume = self.request.volume_id, device = %self.node.display(), fs, again, "making a file system");
        match self.system.run(&argv, MKFS) {
            Ok(done) if done.code == Some(0) => self.made(),
            Ok(done) => self.not_made(self.failed(last_line(&done.stderr))),
            Err(NotRun::Missing(_)) => self.not_made(Error::NoMkfs {
                node: self.node.to_owned(),
                fs: fs.clone(),
            }),
            Err(error) => self.not_made(error.into()),
        }
    }

    /// What mkfs made is on the volume before the marker goes.
    fn made(&self) -> Result<String, Error> {
        let sync = || File::open(self.node)?.sync_all();
        sync().map_err(at(self.node))?;
        match self.probe()? {
            DeviceContent::FileSystem { fs, .. } => self.unmark().map(|()| fs),
            other => Err(self.failed(&format!("afterwards blkid finds {other:?}"))),
        }
    }

    /// The marker goes where mkfs wrote nothing: what is there later may be someone's.
    fn not_made(&self, why: Error) -> Result<String, Error> {
        if is_zero(self.node).map_err(at(self.node))? {
            self.unmark()?;
        }
        Err(why)
    }

    fn failed(&self, why: &str) -> Error {
        Error::Mkfs {
            node: self.node.to_owned(),
            fs: self.request.fs.clone(),
            why: why.to_owned(),
        }
    }

    /// Whether a file system that we began is of no use to anyone: it can't be mounted, or has nothing in it. It may have
    /// been finished and filled on another machine in the meantime.
    fn is_empty(&self, fs: &str) -> Result<bool, Error> {
        let dir = self.paths.probe_dir();
        shut_dir(&dir).map_err(at(&dir))?;
        let (node, to) = (self.node.to_string_lossy(), dir.to_string_lossy());
        let argv = ["mount", "-t", fs, "-o", "ro", &node, &to];
        if self.system.run(&argv, PROBE)?.code != Some(0) {
            return Ok(true);
        }
        let names = || -> io::Result<bool> {
            for name in fs::read_dir(&dir)? {
                if name?.file_name() != "lost+found" {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let empty = names().map_err(at(&dir));
        umount(self.system, &dir)?;
        empty
    }
}

#[cfg(test)]
mod tests;
