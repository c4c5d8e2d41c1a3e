//! Small files: private, and replaced as a whole or not at all. Used wherever something is kept on disk.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Makes a folder, with its parents, that only its owner can enter.
///
/// # Errors
/// When the disk refuses.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Takes everyone else's rights to a file.
///
/// # Errors
/// When it is not ours.
pub fn private_file(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Replaces a file as a whole; the new one is on disk, mode 0600, when this returns.
///
/// # Errors
/// When the disk refuses; the old file is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()
}

/// A file's bytes; `None` when it is not there.
///
/// # Errors
/// When it is there and can't be read.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_stays_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x");
        assert_eq!(read_optional(&path).expect("reads"), None);
        for text in [b"one".as_slice(), b"two"] {
            write_atomically(&path, text).expect("writes");
            assert_eq!(read_optional(&path).expect("reads").as_deref(), Some(text));
        }
        let mode = std::fs::metadata(&path)
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(write_atomically(&dir.path().join("no/where"), b"x").is_err());
        assert!(read_optional(dir.path()).is_err(), "a folder is not a file");
    }
}
