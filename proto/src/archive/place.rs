//! Where a copy goes, by the rules of cp(1).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Folder;

/// Where an archive's entries go.
#[derive(Debug)]
pub struct Place {
    /// Into this folder.
    pub folder: Folder,
    /// Its path.
    pub path: PathBuf,
    /// The new name of the archive's only top entry; `None` = names are kept.
    pub rename: Option<OsString>,
}

/// A place that can't be written to.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder can't be made or opened.
    #[error("cannot make or open the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its parent is not there.
    #[error("there is no folder {}: make it, or end the path with / to have it made", .0.display())]
    NoParent(PathBuf),
    /// It ends in `..`, or is empty.
    #[error("{} is no name for a file", .0.display())]
    NoName(PathBuf),
}

/// The place that `path` means. `into`: a folder, made with those above it when missing. Else a folder that is there, or
/// a new name in one.
///
/// # Errors
/// When it is neither, or may not be opened.
pub fn place(path: &Path, into: bool) -> Result<Place, PlaceError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PlaceError::Folder { path, source }
    };
    if into {
        fs::create_dir_all(path).map_err(failed(path))?;
    }
    if into || path.is_dir() {
        return Ok(Place {
            folder: Folder::open(path).map_err(failed(path))?,
            path: path.to_owned(),
            rename: None,
        });
    }
    let name = path
        .file_name()
        .ok_or_else(|| PlaceError::NoName(path.to_owned()))?;
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(PlaceError::NoName(path.to_owned())),
    };
    match Folder::open(parent) {
        Ok(folder) => Ok(Place {
            folder,
            path: parent.to_owned(),
            rename: Some(name.to_owned()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(PlaceError::NoParent(parent.to_owned()))
        }
        Err(error) => Err(failed(parent)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_folder_or_a_new_name_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        let renamed = |path: &Path, into| place(path, into).unwrap().rename;
        assert_eq!(renamed(dir.path(), false), None);
        assert_eq!(renamed(&at("new"), false), Some("new".into()));
        assert_eq!(renamed(&at("file"), false), Some("file".into()));
        assert_eq!(renamed(&at("a/b"), true), None);
        assert!(at("a/b").is_dir());
        let bad = |path: &str, into| place(&at(path), into).unwrap_err();
        assert!(matches!(bad("no/where", false), PlaceError::NoParent(_)));
        assert!(matches!(bad("file", true), PlaceError::Folder { .. }));
        assert!(matches!(bad("file/x", false), PlaceError::Folder { .. }));
        assert!(matches!(bad("none/..", false), PlaceError::NoName(_)));
    }
}
