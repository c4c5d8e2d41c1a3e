//! What is to be packed: paths as they were given, and the names that they get in the archive.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::MAX_DEPTH;

/// One thing to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is. When it is a link, what that leads to is packed.
    pub path: PathBuf,
    /// Its name in the archive; `None` = what is in it, without itself.
    pub name: Option<OsString>,
}

/// Something that is not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It can't be read, or is not there.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder, as it was named.
        path: PathBuf,
        /// As stat(2), open(2), read(2).
        source: io::Error,
    },
    /// Two sources have one name.
    #[error("two of them are named {0}: copy them one by one")]
    SameName(String),
    /// It has no name of its own.
    #[error("{} is not a file or folder that can be copied", .0.display())]
    NoName(PathBuf),
    /// It is a device, a pipe or a socket.
    #[error("{} is a device, a pipe or a socket: only files, folders and links are copied", .0.display())]
    Special(PathBuf),
    /// It changed meanwhile.
    #[error("{} changed while it was read: copy it again when nobody writes to it", .0.display())]
    Changed(PathBuf),
    /// Too many folders in folders.
    #[error("{} is deeper than {MAX_DEPTH} folders", .0.display())]
    TooDeep(PathBuf),
    /// The stream can't be written.
    #[error("cannot pass the archive on")]
    Write(#[source] io::Error),
}

/// What these paths mean: the last name of each, or what is in it where it ends in `.`, `..` or is `/`.
///
/// # Errors
/// When two have the same name, or one has none.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, PackError> {
    let mut names = BTreeSet::new();
    let mut sources = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        let name = match last {
            "" if text.is_empty() => return Err(PackError::NoName(path.clone())),
            "" | "." | ".." => None,
            _ => path.file_name().map(ToOwned::to_owned),
        };
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            return Err(PackError::SameName(name.to_string_lossy().into_owned()));
        }
        sources.push(Source {
            path: path.clone(),
            name,
        });
    }
    Ok(sources)
}
