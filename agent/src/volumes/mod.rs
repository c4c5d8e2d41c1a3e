//! Puts EBS volumes in place: finds each device by the volume's id, makes a file system only on a volume that holds
//! nothing, mounts it for good. Called by the session, for every `Volumes` message of the master.
//!
//! A volume is blank only when nothing says otherwise: blkid finds nothing and complains of nothing, and its first and last
//! MiB are zeros. What holds data is mounted as it is, or refused; a file system is made again only when a marker on disk
//! names the very UUID that our cut-off mkfs was given.
//!
//! Blocking, safe to repeat, one call at a time. It never writes over data, never takes a device that is mounted elsewhere,
//! partitioned, or of another volume, and never runs a shell.

mod content;
mod device;
#[cfg(test)]
mod fake;
mod format;
mod mkfs;
mod mount;
mod mountinfo;
mod paths;
mod request;
mod system;
mod unit;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::v1::Volume;

use device::FoundDevice;
use mount::MountPoint;
use mountinfo::MountTable;
pub use paths::VolumePaths;
use request::VolumeRequest;
use system::{Real, System};

/// How long to wait before checking again, when nothing says that it is time.
const CHECK_AGAIN: Duration = Duration::from_millis(500);

/// A volume that is not in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Request(#[from] request::Error),
    /// It has no device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// It has no file system to mount.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// It can't be mounted.
    #[error(transparent)]
    Mount(#[from] mount::Error),
    /// Something else is mounted there.
    #[error("{source_name} is mounted at {} already", at.display())]
    Occupied { at: PathBuf, source_name: String },
    /// The kernel knows partitions on it.
    #[error("{} is partitioned (it has {partition}); aot mounts whole volumes only", node.display())]
    Partitioned { node: PathBuf, partition: String },
    /// Another program, LVM or RAID has it.
    #[error("{} is held by another program or by device-mapper", node.display())]
    Held { node: PathBuf },
    /// The device can't be opened.
    #[error("cannot open {}", node.display())]
    Open { node: PathBuf, source: io::Error },
    /// The device is the machine's own.
    #[error("{} holds the root file system", node.display())]
    Root { node: PathBuf },
    /// The device is mounted at another point.
    #[error("{} is mounted at {} already", node.display(), at.display())]
    Elsewhere { node: PathBuf, at: PathBuf },
    /// The mount succeeded and is not there.
    #[error("{} was mounted, but {} is not from it", node.display(), at.display())]
    NotThere { node: PathBuf, at: PathBuf },
    /// A volume on which this one is to be mounted is not in place.
    #[error("{} is not in place, and this lies below it", above.display())]
    Above {
        /// The mount point above.
        above: PathBuf,
    },
}

/// Puts every volume in place on this machine, those above others first. Each is tried, and all have the same time to appear; the error names
/// the first that failed, and how many did.
///
/// # Errors
/// When one is not in place.
pub fn mount_all(paths: &VolumePaths, volumes: &[Volume]) -> Result<(), String> {
    mount_all_on(&Real, paths, volumes)
}

fn mount_all_on(
    system: &impl System,
    paths: &VolumePaths,
    volumes: &[Volume],
) -> Result<(), String> {
    let mut volumes: Vec<&Volume> = volumes.iter().collect();
    volumes.sort_by_key(|volume| Path::new(&volume.mount).components().collect::<PathBuf>());
    let appear_by = Instant::now() + paths.appear;
    let mut failed: Vec<PathBuf> = Vec::new();
    let mut first = None;
    for volume in volumes {
        let result = VolumeRequest::new(volume, paths)
            .map_err(Error::from)
            .and_then(|request| {
                match failed.iter().find(|above| request.mount.starts_with(above)) {
                    Some(above) => Err(Error::Above {
                        above: above.clone(),
                    }),
                    None => mount_one(system, paths, &request, appear_by),
                }
            });
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
fn mount_one(
    system: &impl System,
    paths: &VolumePaths,
    request: &VolumeRequest,
    appear_by: Instant,
) -> Result<(), Error> {
    let found = device::wait_for(system, paths, request, appear_by)?;
    let at = mount::mount_point(&request.mount)?;
    let point = MountPoint {
        system,
        paths,
        request,
        found: &found,
        at: &at,
    };
    format::end_probe(system, paths)?;
    if let Some(fs) = wait_until_free(system, paths, &found, &at)? {
        return Ok(point.ensure_unit(&fs)?);
    }
    let fs = format::ensure(system, paths, request, &found)?;
    point.mount(&fs)?;
    match mounted(system, &paths.table(), &found, &at)? {
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
    paths: &VolumePaths,
    found: &FoundDevice,
    at: &Path,
) -> Result<Option<String>, Error> {
    let begun = Instant::now();
    loop {
        if let Some(fs) = mounted(system, &paths.table(), found, at)? {
            return Ok(Some(fs));
        }
        let node = found.node.clone();
        if let Some(partition) = device::partition(paths, found.dev) {
            return Err(Error::Partitioned { node, partition });
        }
        match system.is_held(&node) {
            Ok(false) => return Ok(None),
            Ok(true) if begun.elapsed() < paths.release => {}
            Ok(true) => return Err(Error::Held { node }),
            Err(source) => return Err(Error::Open { node, source }),
        }
        system.wait(&paths.dev, CHECK_AGAIN.min(paths.release));
    }
}

/// The type of the file system when the device is mounted where it is wanted.
fn mounted(
    system: &impl System,
    table: &MountTable,
    found: &FoundDevice,
    at: &Path,
) -> Result<Option<String>, Error> {
    let number = |path: &Path| system.number(path);
    match (table.at(at), table.of(found.dev, number)) {
        (Some(entry), _) if entry.is_of(found.dev, number) => Ok(Some(entry.fs.clone())),
        (Some(entry), _) => Err(Error::Occupied {
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
