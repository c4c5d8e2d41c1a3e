//! Where a copy goes, by the rules of cp(1).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Folder;

/// Where an archive's entries go.
#[derive(Debug)]
pub struct Destination {
    /// The folder that they go into, open.
    pub folder: Folder,
    /// Path of that folder, for what is beside it.
    pub path: PathBuf,
    /// The new name of the archive's only top entry; `None` = names are kept.
    pub rename: Option<OsString>,
}

/// A destination that can't be written to.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The folder can't be made or opened.
    #[error("cannot make or open the folder {}", path.display())]
    Folder {
        /// As it was asked for.
        path: PathBuf,
        /// As mkdir(2) and open(2).
        source: io::Error,
    },
    /// Its parent is not there.
    #[error("no folder {}: create it, or end the path with / to have it created", .0.display())]
    NoParent(PathBuf),
    /// It ends in `..`, or is empty.
    #[error("{} is not a name for a file", .0.display())]
    NoName(PathBuf),
}

/// What a link is to a copy, where the path that was asked for is one that leads to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The file that it leads to is replaced, as cp(1) and scp(1) do it: for a path that an operator gives a machine. Only
    /// one that the kernel would follow in a folder that all may write to (proc_sys_fs(5), protected_symlinks): its owner
    /// is that of the folder, or the caller.
    Followed,
    /// The link itself is replaced: for what comes from a machine, which may have sent the link as well.
    Replaced,
}

/// The destination that `path` means. `into`: a folder, made with those above it when missing. Else a folder that is there, or
/// a new name in one.
///
/// # Errors
/// When it is neither, or may not be opened.
pub fn destination(path: &Path, into: bool, links: Links) -> Result<Destination, DestinationError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DestinationError::Folder { path, source }
    };
    if into {
        fs::create_dir_all(path).map_err(failed(path))?;
    }
    if into || path.is_dir() {
        return Ok(Destination {
            folder: Folder::open(path).map_err(failed(path))?,
            path: path.to_owned(),
            rename: None,
        });
    }
    let followed = match links {
        Links::Followed => behind_link(path),
        Links::Replaced => None,
    };
    let path = followed.as_deref().unwrap_or(path);
    let name = path
        .file_name()
        .ok_or_else(|| DestinationError::NoName(path.to_owned()))?;
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(DestinationError::NoName(path.to_owned())),
    };
    match Folder::open(parent) {
        Ok(folder) => Ok(Destination {
            folder,
            path: parent.to_owned(),
            rename: Some(name.to_owned()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DestinationError::NoParent(parent.to_owned()))
        }
        Err(error) => Err(failed(parent)(error)),
    }
}

/// Where a link to a regular file leads, when it is one that may be followed.
fn behind_link(path: &Path) -> Option<PathBuf> {
    let link = path
        .symlink_metadata()
        .ok()
        .filter(|meta| meta.is_symlink())?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = parent.metadata().ok()?;
    // Sticky, and all may write to it.
    let shared = folder.mode() & 0o1002 == 0o1002;
    let trusted = link.uid() == folder.uid() || link.uid() == rustix::process::geteuid().as_raw();
    let real = path.canonicalize().ok()?;
    (real.is_file() && (trusted || !shared)).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_folder_or_a_new_name_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        let renamed = |path: &Path, into| destination(path, into, Links::Replaced).unwrap().rename;
        assert_eq!(renamed(dir.path(), false), None);
        assert_eq!(renamed(&at("new"), false), Some("new".into()));
        assert_eq!(renamed(&at("file"), false), Some("file".into()));
        assert_eq!(renamed(&at("a/b"), true), None);
        assert!(at("a/b").is_dir());
        let bad = |path: &str, into| destination(&at(path), into, Links::Replaced).unwrap_err();
        assert!(matches!(
            bad("no/where", false),
            DestinationError::NoParent(_)
        ));
        assert!(matches!(bad("file", true), DestinationError::Folder { .. }));
        assert!(matches!(
            bad("file/x", false),
            DestinationError::Folder { .. }
        ));
        assert!(matches!(bad("none/..", false), DestinationError::NoName(_)));
    }

    #[test]
    fn a_link_to_a_file_is_followed_only_where_that_was_asked_for_and_is_safe() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/file"), "x").unwrap();
        symlink("real/file", at("link")).unwrap();
        symlink("nowhere", at("lost")).unwrap();
        let placed = |name: &str, links| {
            let place = destination(&at(name), false, links).unwrap();
            place.path.join(place.rename.unwrap())
        };
        assert_eq!(placed("link", Links::Followed), at("real/file"));
        assert_eq!(placed("link", Links::Replaced), at("link"));
        assert_eq!(placed("lost", Links::Followed), at("lost"));
        // Somebody else's link in a folder that all may write to.
        if rustix::process::geteuid().is_root() {
            let shared = fs::Permissions::from_mode(0o1777);
            fs::set_permissions(dir.path(), shared).unwrap();
            std::os::unix::fs::lchown(at("link"), Some(65534), None).unwrap();
            assert_eq!(placed("link", Links::Followed), at("link"));
        }
    }
}
