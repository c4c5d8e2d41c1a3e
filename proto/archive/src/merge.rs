//! Moves what was unpacked beside its destination into it.

use std::io;

use rustix::fs::FileType;

use super::folder::{Folder, kind};
use super::write::{copy_owner_and_mode, is_file};

/// Moves everything in `from` into `to` on the same file system: folders that both have are merged, files and links
/// replaced; a file keeps owner and mode of the one that it replaces. Never through a link.
///
/// # Errors
/// As rename(2); when a file is where a folder is to go, or the other way round. What was moved before stays moved.
pub fn merge(from: &Folder, to: &Folder) -> io::Result<()> {
    for name in from.names()? {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name:?}: {error}"));
        let (new, old) = (from.stat(&name)?, to.stat(&name)?);
        if let (Some(new), Some(old)) = (&new, &old)
            && is_file(new)
            && is_file(old)
        {
            let file = from.open_own(&name).map_err(named)?;
            copy_owner_and_mode(&file, old).map_err(named)?;
        }
        match (new.as_ref().map(kind), old.as_ref().map(kind)) {
            (None, _) => {}
            (Some(FileType::Directory), Some(_)) => {
                let in_the_way =
                    || io::Error::new(io::ErrorKind::NotADirectory, "a file or link is there");
                let inner = from.enter(&name)?.ok_or_else(in_the_way).map_err(named)?;
                let outer = to.enter(&name)?.ok_or_else(in_the_way).map_err(named)?;
                open_up(&inner).map_err(named)?;
                merge(&inner, &outer).map_err(named)?;
                from.remove_folder(&name).map_err(named)?;
            }
            (Some(FileType::Directory), None) => move_folder(from, to, &name).map_err(named)?,
            (Some(_), _) => from.move_to(&name, to).map_err(named)?,
        }
    }
    Ok(())
}

/// Gives its owner the right to change what is in it.
fn open_up(folder: &Folder) -> io::Result<()> {
    folder.set_mode_and_time(folder.mode()? | 0o700, None)
}

/// To give a folder another parent takes the right to write to it (rename(2), EACCES).
fn move_folder(from: &Folder, to: &Folder, name: &std::ffi::OsStr) -> io::Result<()> {
    match from.move_to(name, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other,
    }
    let folder = from.enter(name)?.ok_or(io::ErrorKind::NotADirectory)?;
    let mode = folder.mode()?;
    folder.set_mode_and_time(mode | 0o700, None)?;
    from.move_to(name, to)?;
    folder.set_mode_and_time(mode, None)
}

#[cfg(test)]
mod tests;
