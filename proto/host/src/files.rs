//! Small files: private, and replaced as a whole or not at all. Knows nothing of what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder, with its parents, that only its owner can enter. One that is there keeps its mode.
///
/// # Errors
/// As mkdir(2).
pub fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// As [`private_dir`]; one that is there is shut to all but its owner.
///
/// # Errors
/// As mkdir(2) and chmod(2).
pub fn shut_dir(dir: &Path) -> io::Result<()> {
    private_dir(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

/// Takes everyone else's rights to a file.
///
/// # Errors
/// As chmod(2).
pub fn private_file(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Replaces a file as a whole: temporary sibling, fsync, rename, fsync of the folder. The new one, with this very mode
/// whatever the umask, is on disk when this returns.
///
/// # Errors
/// As open(2), write(2), rename(2); then the old file is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new()
        .prefix(".aot-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    // The umask was applied when it was made.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// Writes a file of mode 0600 that nobody reads before this returns. Not synced: it may be lost by a power cut.
///
/// # Errors
/// As open(2) and write(2).
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// Makes the names in a folder survive a power cut.
///
/// # Errors
/// As open(2) and fsync(2).
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file's bytes; `None` when it is not there.
///
/// # Errors
/// When it is there and can't be read.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file's text, trimmed; `None` when it can't be read.
#[must_use]
pub fn trimmed(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        let about = fs::metadata(path).expect("is there");
        about.permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x");
        assert_eq!(read_optional(&path).expect("reads"), None);
        for (text, wanted) in [(b"one".as_slice(), 0o644), (b"two", 0o600)] {
            write_atomic(&path, text, wanted).expect("writes");
            assert_eq!(read_optional(&path).expect("reads").as_deref(), Some(text));
            assert_eq!(mode(&path), wanted);
        }
        let names = fs::read_dir(dir.path()).expect("reads");
        assert_eq!(names.count(), 1, "a temporary file was left");
        assert!(write_atomic(&dir.path().join("no/where"), b"x", 0o600).is_err());
        assert!(read_optional(dir.path()).is_err(), "a folder is not a file");
    }

    #[test]
    fn a_folder_that_others_can_enter_is_shut_only_where_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/b");
        private_dir(&path).expect("is made");
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("is set");
        private_dir(&path).expect("is there");
        assert_eq!(mode(&path), 0o755);
        shut_dir(&path).expect("is shut");
        assert_eq!(mode(&path), 0o700);
    }
}
