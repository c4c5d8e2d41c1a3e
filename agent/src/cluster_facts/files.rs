//! Files that others have a share in: written as a whole, or one block of them. Nothing is written where nothing changes.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use aot_host::files::write_atomic;

use super::Error;
use crate::blocks::{Marks, replace, without};

/// Makes a folder with its parents and this mode, unless it is there.
///
/// # Errors
/// As mkdir(2) and chmod(2).
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let made = || {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    made().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file as a whole.
///
/// # Errors
/// As open(2), write(2), rename(2).
pub(super) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write_atomic(path, bytes, mode).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Replaces the block in a file; adds it where there is none.
///
/// # Errors
/// As open(2), read(2), write(2).
pub(super) fn write_block(
    path: &Path,
    marks: &Marks,
    lines: &[String],
    mode: u32,
) -> Result<(), Error> {
    rewrite(path, mode, |text| replace(text, marks, lines))
}

/// Takes the block out of a file.
///
/// # Errors
/// As [`write_block`].
pub(super) fn drop_block(path: &Path, marks: &Marks) -> Result<(), Error> {
    rewrite(path, 0o600, |text| without(text, marks))
}

/// Changes a file; writes nothing when nothing changes. A link is followed and stays a link; owner and mode stay; a file
/// that can't be replaced (a mount point) is written in place.
fn rewrite(path: &Path, mode: u32, change: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), Error> {
    let wrote = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(wrote(error)),
    };
    let old = match fs::read(&real) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(wrote)?),
    };
    let new = change(old.as_deref().unwrap_or_default());
    if old.as_ref() == Some(&new) {
        return Ok(());
    }
    let meta = real.metadata().ok();
    let mode = meta
        .as_ref()
        .map_or(mode, |meta| meta.permissions().mode() & 0o7777);
    match write_atomic(&real, &new, mode) {
        Ok(()) => match meta {
            Some(meta) if (meta.uid(), meta.gid()) != own_ids() => {
                chown(&real, Some(meta.uid()), Some(meta.gid())).map_err(wrote)
            }
            _ => Ok(()),
        },
        // A mount point, as /etc/hosts is in containers: nothing can be renamed over it (rename(2)).
        Err(error)
            if matches!(
                error
                    .raw_os_error()
                    .map(rustix::io::Errno::from_raw_os_error),
                Some(rustix::io::Errno::BUSY | rustix::io::Errno::XDEV)
            ) =>
        {
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&real)
                .map_err(wrote)?;
            file.write_all(&new)
                .and_then(|()| file.sync_all())
                .map_err(wrote)
        }
        Err(error) => Err(wrote(error)),
    }
}

/// User and group that files made here belong to.
pub(super) fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}
