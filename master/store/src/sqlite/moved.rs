//! The mark of a state folder whose records were brought elsewhere: no master serves it again.

use std::io;
use std::path::Path;

use aot_host::files;

use crate::Error;

/// A file of the state folder that says where its records went.
pub const MOVED: &str = "moved-to";

/// Marks a folder: from now on its records are in this place.
///
/// # Errors
/// When the file can't be written.
pub fn mark_moved(dir: &Path, place: &str) -> Result<(), Error> {
    let path = dir.join(MOVED);
    let written = files::write_atomic(&path, format!("{place}\n").as_bytes(), 0o600);
    written.map_err(|source| Error::Io {
        what: "mark the folder as moved, in",
        path,
        source,
    })
}

/// Where the records of a folder went; `None` where they are still there.
///
/// # Errors
/// When the mark can't be read: then nobody may take the folder for one that was not moved.
pub fn moved_to(dir: &Path) -> io::Result<Option<String>> {
    let mark = files::read_optional(&dir.join(MOVED))?;
    Ok(mark.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
}

/// Refuses a folder that was moved.
pub(super) fn check_moved(dir: &Path) -> Result<(), Error> {
    let read = moved_to(dir).map_err(|source| Error::Io {
        what: "read",
        path: dir.join(MOVED),
        source,
    });
    match read? {
        None => Ok(()),
        Some(place) => Err(Error::Moved {
            path: dir.to_owned(),
            place,
        }),
    }
}
