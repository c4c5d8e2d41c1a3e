//! Puts EBS volumes in place: finds each device by the volume's id, makes a file system only on a volume that holds
//! nothing, mounts it for good. Called by the session, for every `Volumes` message of the master.
//!
//! Blocking, safe to repeat, one call at a time. It never writes over data, never takes a device that is mounted elsewhere,
//! partitioned, or of another volume, and never runs a shell.

pub mod content;
pub mod device;
#[cfg(test)]
mod fake;
pub mod format;
pub mod place;
pub mod system;
pub mod table;
pub mod unit;
pub mod wish;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_proto::v1::Volume;

use crate::service::Chain;
use device::Found;
use place::Place;
use system::System;
use table::Table;
use wish::Wish;

/// How long a device may take to appear: an attachment takes seconds.
const APPEAR: Duration = Duration::from_secs(120);
/// How long a device may be held by others: more than a mount unit may take (`unit`).
const RELEASE: Duration = Duration::from_secs(330);
/// How long to wait before looking again, when nothing says that it is time.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where things are on the machine.
#[derive(Debug, Clone)]
pub struct Places {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// `/etc/systemd/system`.
    pub units: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/run`.
    pub run: PathBuf,
    /// How long a device may take to appear.
    pub appear: Duration,
    /// How long it may take to be let go by others.
    pub release: Duration,
}

impl Places {
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
    fn has_systemd(&self) -> bool {
        self.run.join("systemd/system").is_dir()
    }

    /// What is mounted; nothing where /proc is not there.
    fn table(&self) -> Table {
        let text = fs::read(self.proc.join("self/mountinfo")).unwrap_or_default();
        Table::parse(&String::from_utf8_lossy(&text))
    }

    /// Markers of file systems that were begun.
    fn markers(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// Where a volume is mounted for a look.
    fn look(&self) -> PathBuf {
        self.state_dir.join("volume-look")
    }
}

/// A volume that is not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is wanted can't be.
    #[error(transparent)]
    Wish(#[from] wish::Error),
    /// It has no device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// It has no file system to mount.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// It can't be mounted.
    #[error(transparent)]
    Place(#[from] place::Error),
    /// Something else is mounted there.
    #[error("{source_name} is mounted at {} already", at.display())]
    Taken {
        /// The mount point.
        at: PathBuf,
        /// What is mounted.
        source_name: String,
    },
    /// The kernel knows partitions on it.
    #[error("{} is partitioned (it has {partition}); aot mounts whole volumes only", node.display())]
    Partitioned {
        /// The device.
        node: PathBuf,
        /// One of them.
        partition: String,
    },
    /// Another program, LVM or RAID has it.
    #[error("{} is held by another program or by device-mapper", node.display())]
    Held {
        /// The device.
        node: PathBuf,
    },
    /// The device can't be opened.
    #[error("cannot open {}", node.display())]
    Open {
        /// The device.
        node: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device is the machine's own.
    #[error("{} holds the root file system", node.display())]
    Root {
        /// The device.
        node: PathBuf,
    },
    /// The device is mounted at another point.
    #[error("{} is mounted at {} already", node.display(), at.display())]
    Elsewhere {
        /// The device.
        node: PathBuf,
        /// Where.
        at: PathBuf,
    },
    /// The mount succeeded and is not there.
    #[error("{} was mounted, but {} is not from it", node.display(), at.display())]
    NotThere {
        /// The device.
        node: PathBuf,
        /// The mount point.
        at: PathBuf,
    },
    /// A volume on which this one is to be mounted is not in place.
    #[error("{} is not in place, and this lies below it", above.display())]
    Above {
        /// The mount point above.
        above: PathBuf,
    },
}

/// Puts every volume in place, those above others first. Each is tried, and all have the same time to appear; the error names the first that failed, and says
/// how many did.
///
/// # Errors
/// When one is not in place.
pub fn mount_all(system: &impl System, places: &Places, volumes: &[Volume]) -> Result<(), String> {
    let mut volumes: Vec<&Volume> = volumes.iter().collect();
    volumes.sort_by_key(|volume| Path::new(&volume.mount).components().collect::<PathBuf>());
    let appear_by = Instant::now() + places.appear;
    let mut failed: Vec<PathBuf> = Vec::new();
    let mut first = None;
    for volume in volumes {
        let result = Wish::new(volume, places)
            .map_err(Error::from)
            .and_then(
                |wish| match failed.iter().find(|above| wish.mount.starts_with(above)) {
                    Some(above) => Err(Error::Above {
                        above: above.clone(),
                    }),
                    None => put(system, places, &wish, appear_by),
                },
            );
        let Volume {
            volume_id,
            mount,
            device,
            ..
        } = volume;
        match result {
            Ok(()) => tracing::info!(volume = volume_id, mount, "the volume is in place"),
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(
                    volume = volume_id,
                    device,
                    mount,
                    error,
                    "the volume is not in place"
                );
                failed.push(Path::new(mount).components().collect());
                first.get_or_insert_with(|| format!("{volume_id} ({device}) at {mount}: {error}"));
            }
        }
    }
    match (first, failed.len()) {
        (None, _) => Ok(()),
        (Some(first), 1) => Err(first),
        (Some(first), all) => Err(format!("{first} (and {} more failed)", all - 1)),
    }
}

/// Puts one volume in place. Where it is already, that takes a few reads.
fn put(
    system: &impl System,
    places: &Places,
    wish: &Wish,
    appear_by: Instant,
) -> Result<(), Error> {
    let found = device::wait_for(system, places, wish, appear_by)?;
    let at = place::mount_point(&wish.mount)?;
    let place = Place {
        system,
        places,
        wish,
        found: &found,
        at: &at,
    };
    format::end_look(system, places)?;
    if let Some(fs) = wait_until_free(system, places, &found, &at)? {
        return Ok(place.settle(&fs)?);
    }
    let fs = format::ensure(system, places, wish, &found)?;
    place.mount(&fs)?;
    match mounted(system, &places.table(), &found, &at)? {
        Some(_) => Ok(()),
        None => Err(Error::NotThere {
            node: found.node.clone(),
            at,
        }),
    }
}

/// Waits until nobody holds the device; the type of its file system when it is, or comes to be, mounted where it is wanted.
/// At boot systemd may be mounting it just now, and an mkfs of this agent's last life may still be at work: both hold it.
fn wait_until_free(
    system: &impl System,
    places: &Places,
    found: &Found,
    at: &Path,
) -> Result<Option<String>, Error> {
    let begun = Instant::now();
    loop {
        if let Some(fs) = mounted(system, &places.table(), found, at)? {
            return Ok(Some(fs));
        }
        let node = found.node.clone();
        if let Some(partition) = device::partition(places, found.dev) {
            return Err(Error::Partitioned { node, partition });
        }
        match system.is_held(&node) {
            Ok(false) => return Ok(None),
            Ok(true) if begun.elapsed() < places.release => {}
            Ok(true) => return Err(Error::Held { node }),
            Err(source) => return Err(Error::Open { node, source }),
        }
        system.wait(&places.dev, LOOK_AGAIN.min(places.release));
    }
}

/// The type of the file system when the device is mounted where it is wanted.
fn mounted(
    system: &impl System,
    table: &Table,
    found: &Found,
    at: &Path,
) -> Result<Option<String>, Error> {
    let number = |path: &Path| system.number(path);
    match (table.at(at), table.of(found.dev, number)) {
        (Some(entry), _) if entry.is_of(found.dev, number) => Ok(Some(entry.fs.clone())),
        (Some(entry), _) => Err(Error::Taken {
            source_name: entry.source.clone(),
            at: at.to_owned(),
        }),
        (None, Some(entry)) if entry.at == Path::new("/") => Err(Error::Root {
            node: found.node.clone(),
        }),
        (None, Some(entry)) => Err(Error::Elsewhere {
            node: found.node.clone(),
            at: entry.at.clone(),
        }),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
