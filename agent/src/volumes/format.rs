//! Sees to a file system on a volume: looks at what is there, makes one only on a volume that holds nothing. Called by
//! `mod`. A power cut at any point leaves a volume that the next call finishes; data is never written over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Places;
use super::content::{self, Action, Content, Marker, last_line, mkfs, package};
use super::device::Found;
use super::system::{NotRun, System, is_zero};
use super::wish::Wish;
use crate::files::{private_dir, sync_dir, trimmed, write_atomic};

/// How long blkid, mount and umount may take for a look.
const LOOK: Duration = Duration::from_secs(60);
/// How long mkfs may take: without lazy initialisation, minutes a TiB.
const MKFS: Duration = Duration::from_secs(1800);

/// A volume without a file system to mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not ours to use.
    #[error("{} {why}", node.display())]
    Refused {
        /// The device.
        node: PathBuf,
        /// What is there.
        why: String,
    },
    /// The device, or the marker, can't be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The device or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A command could not be run.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    /// mkfs is not there.
    #[error("cannot make {fs} on {}: mkfs.{fs} is not on this machine: install {}, by cloud-config or in the image", node.display(), package(fs))]
    NoMkfs {
        /// The device.
        node: PathBuf,
        /// Type of the file system.
        fs: String,
    },
    /// mkfs failed, or what it made can't be found.
    #[error("mkfs.{fs} of {} failed: {why}", node.display())]
    Mkfs {
        /// The device.
        node: PathBuf,
        /// Type of the file system.
        fs: String,
        /// Its last words.
        why: String,
    },
    /// What was mounted for a look can't be let go.
    #[error("cannot unmount {}: {why}", at.display())]
    Umount {
        /// The mount point.
        at: PathBuf,
        /// Last words of umount.
        why: String,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// Sees to it that there is a file system on a device that nobody has mounted or holds; its type.
///
/// # Errors
/// When the device is not ours to use, or the file system can't be made. The volume is as it was, or marked as ours.
pub fn ensure(
    system: &impl System,
    places: &Places,
    wish: &Wish,
    found: &Found,
) -> Result<String, Error> {
    let job = Job {
        system,
        places,
        wish,
        node: &found.node,
    };
    let marker = job.marker();
    let content = job.probe()?;
    let zero = content == Content::Nothing
        && marker.is_none()
        && is_zero(job.node).map_err(at(job.node))?;
    match content::decide(&content, marker.as_ref(), zero) {
        Action::Make { again } => job.make(again),
        Action::Inspect(fs) if job.is_empty(&fs)? => job.make(true),
        Action::Use(fs) | Action::Inspect(fs) => {
            job.unmark()?;
            if fs != wish.fs {
                tracing::warn!(
                    volume = wish.volume_id,
                    found = fs,
                    wanted = wish.fs,
                    "the volume has another file system already; it is used"
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

/// Lets go of a volume that was mounted for a look when the agent was ended.
///
/// # Errors
/// When it can't be unmounted.
pub fn end_look(system: &impl System, places: &Places) -> Result<(), Error> {
    let look = places.look();
    if places.table().at(&look).is_some() {
        umount(system, &look)?;
    }
    Ok(())
}

fn umount(system: &impl System, at: &Path) -> Result<(), Error> {
    let done = system.run(&["umount", &at.to_string_lossy()], LOOK)?;
    match done.code {
        Some(0) => Ok(()),
        _ => Err(Error::Umount {
            at: at.to_owned(),
            why: last_line(&done.stderr).to_owned(),
        }),
    }
}

struct Job<'a, S> {
    system: &'a S,
    places: &'a Places,
    wish: &'a Wish,
    node: &'a Path,
}

impl<S: System> Job<'_, S> {
    fn marker_path(&self) -> PathBuf {
        self.places.markers().join(&self.wish.volume_id)
    }

    /// What was begun on this volume. A file that can't be read counts as none: then less is allowed.
    fn marker(&self) -> Option<Marker> {
        let text = fs::read(self.marker_path()).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        (marker.volume_id == self.wish.volume_id).then_some(marker)
    }

    /// On disk before the first byte of the volume is written.
    fn mark(&self, uuid: &str) -> Result<(), Error> {
        let path = self.marker_path();
        let marker = Marker {
            volume_id: self.wish.volume_id.clone(),
            uuid: uuid.to_owned(),
        };
        let markers = self.places.markers();
        let write = || {
            private_dir(&markers)?;
            sync_dir(&self.places.state_dir)?;
            write_atomic(&path, &serde_json::to_vec(&marker)?, 0o600)
        };
        write().map_err(at(&path))
    }

    /// Gone from disk before the volume is first mounted.
    fn unmark(&self) -> Result<(), Error> {
        let path = self.marker_path();
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.places.markers()).map_err(at(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    fn probe(&self) -> Result<Content, Error> {
        let node = self.node.to_string_lossy();
        let argv = ["blkid", "-p", "-o", "export", &node];
        Ok(content::content(&self.system.run(&argv, LOOK)?))
    }

    fn make(&self, again: bool) -> Result<String, Error> {
        let fs = &self.wish.fs;
        let source = self.places.proc.join("sys/kernel/random/uuid");
        let uuid =
            trimmed(&source).ok_or_else(|| at(&source)(io::ErrorKind::InvalidData.into()))?;
        let (argv, has_uuid) = mkfs(fs, &self.node.to_string_lossy(), &uuid, again);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.mark(if has_uuid { &uuid } else { "" })?;
        tracing::info!(volume = self.wish.volume_id, device = %self.node.display(), fs, again, "making a file system");
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
            Content::FileSystem { fs, .. } => self.unmark().map(|()| fs),
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
            fs: self.wish.fs.clone(),
            why: why.to_owned(),
        }
    }

    /// Whether a file system that we began is of no use to anyone: it can't be mounted, or has nothing in it. It may have
    /// been finished and filled on another machine in the meantime.
    fn is_empty(&self, fs: &str) -> Result<bool, Error> {
        let look = self.places.look();
        private_dir(&look).map_err(at(&look))?;
        let (node, to) = (self.node.to_string_lossy(), look.to_string_lossy());
        let argv = ["mount", "-t", fs, "-o", "ro", &node, &to];
        if self.system.run(&argv, LOOK)?.code != Some(0) {
            return Ok(true);
        }
        let names = || -> io::Result<bool> {
            for name in fs::read_dir(&look)? {
                if name?.file_name() != "lost+found" {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let empty = names().map_err(at(&look));
        umount(self.system, &look)?;
        empty
    }
}
