//! Bundles on the master's side: looked at before anything is paid for, packed once, kept by content. Called by the
//! offline check and by `run`; unpacking is the agent's.

#![warn(unreachable_pub)]

mod archive;
mod changes;
mod folder;
mod ignored;
mod listing;
mod script;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use aot_archive::{self as tar_archive, Limits, NoScript};
use aot_model::hash::hex;
use aot_model::spec::BundleSource;
use aot_proto::limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES};
use aws_lc_rs::digest::{Context, SHA256};

pub use changes::changes;
pub use ignored::IGNORE_FILE;
pub use listing::{BundleList, list};

/// The script that a bundle is run by.
pub use aot_archive::SCRIPT;

/// What a bundle may hold, on both sides.
const LIMITS: Limits = Limits {
    bytes: MAX_UNPACKED_BYTES,
    entries: MAX_BUNDLE_ENTRIES,
};

/// A bundle that lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Where it lies: `<out_dir>/<sha256>`.
    pub path: PathBuf,
    /// Some of its files are rendered on the machine.
    pub has_templates: bool,
}

/// Why a bundle can't be used. Names the path, and the entry where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading or writing failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A tar where a folder should be, or the other way round.
    #[error("{} is not a {wanted}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// file or folder.
        wanted: &'static str,
    },
    /// Packed in a way that agents can't read.
    #[error("{} is packed with {format}", path.display())]
    Format {
        /// The path.
        path: PathBuf,
        /// xz, bzip2, zip, ...
        format: &'static str,
    },
    /// A file that is cut off, or no tar.
    #[error("{} is damaged, or is not a tar", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// Why it can't be read.
        source: io::Error,
    },
    /// No script.
    #[error("{} has no {SCRIPT}", path.display())]
    NoScript {
        /// The path.
        path: PathBuf,
    },
    /// A script that bash would not run as intended.
    #[error("{} {what}", path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The way out.
        hint: &'static str,
    },
    /// A pattern that can't be read, or a file of patterns.
    #[error("{}, line {line}: {what}", path.display())]
    Pattern {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 on.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// An entry that would leave the folder, or that is not a file, folder or link.
    #[error("{}: the entry {entry:?} {why}", path.display())]
    Entry {
        /// The path.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Past one of the limits.
    #[error("{} has {what}", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Which limit.
        what: String,
    },
}

impl BundleError {
    /// The way out, for a person.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "paths are relative to the folder of the cluster's file, as that was given"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the user that runs aot-master must be able to read it"
            }
            Self::Io { .. } => {
                "check that it can be read, and that there is room for the packed bundle"
            }
            Self::Damaged { .. } => "pack it again: plain, with gzip or with zstd",
            Self::Script { hint, .. } => hint,
            Self::Kind { .. } => "`tar:` names a file, `dir:` names a folder",
            Self::Format { .. } => "pack it plain, with gzip or with zstd",
            Self::Pattern { .. } => "patterns are written as in .gitignore, one per line",
            Self::NoScript { .. } => {
                "put bootstrap.sh at the top, or in the only folder at the top"
            }
            Self::Entry { .. } => {
                "take the entry out, or pack it under another name; links must stay inside the bundle"
            }
            Self::TooLarge { .. } => "let the stage download what is large",
        }
    }

    fn no_script(missing: NoScript, path: &Path) -> Self {
        let path = path.to_owned();
        match missing {
            NoScript::Missing => Self::NoScript { path },
            NoScript::NoFile(entry) => Self::Entry {
                path,
                entry: entry.to_string_lossy().into_owned(),
                why: "is not a file and does not lead to one",
            },
        }
    }

    fn of_archive(error: tar_archive::Error, path: &Path) -> Self {
        use tar_archive::Error as E;
        let path = path.to_owned();
        match error {
            E::Garbled(kind) => Self::Damaged {
                path,
                source: kind.into(),
            },
            E::Write { name, source } => Self::Io {
                doing: "write",
                path: path.join(name),
                source,
            },
            E::Refused { name, why } => Self::Entry {
                path,
                entry: name,
                why,
            },
            E::TooBig { limit, .. } => too_large(&path, "bytes unpacked", limit),
            E::TooMany(limit) => too_large(&path, "entries", limit),
        }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// Looks at a bundle without packing it: readable, with a script, and no entry that leaves its folder.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(source: &BundleSource) -> Result<(), BundleError> {
    match source {
        BundleSource::Tar(path) => archive::check(path, path).map(drop),
        BundleSource::Dir(path) => folder::pack(path, &mut io::sink()).map(drop),
    }
}

/// Packs a bundle into `out_dir` under its SHA-256, atomically: a tar is copied as it is, a folder becomes a plain tar
/// that depends on names, contents and execute bits only. Plain, because the stage's ledger key hangs on these bytes
/// and a newer compressor gives others. Blocks; needs memory for one buffer.
///
/// # Errors
/// As `check`, and what goes wrong in `out_dir`.
pub fn pack(source: &BundleSource, out_dir: &Path) -> Result<Packed, BundleError> {
    fs::create_dir_all(out_dir).map_err(BundleError::io("create", out_dir))?;
    let temp =
        tempfile::NamedTempFile::new_in(out_dir).map_err(BundleError::io("write to", out_dir))?;
    let mut out = Hashed::new(temp.as_file());
    let tree = match source {
        BundleSource::Tar(path) => {
            copy(path, &mut out)?;
            // What was copied is looked at, not what may have changed since.
            archive::check(temp.path(), path)?
        }
        BundleSource::Dir(path) => folder::pack(path, &mut out)?,
    };
    let (sha256, bytes) = out.finish();
    if bytes > MAX_BUNDLE_BYTES {
        return Err(too_large(source.path(), "bytes", MAX_BUNDLE_BYTES));
    }
    let path = out_dir.join(&sha256);
    temp.as_file()
        .sync_all()
        .map_err(BundleError::io("write to", out_dir))?;
    temp.persist(&path)
        .map_err(|error| BundleError::io("write", &path)(error.error))?;
    Ok(Packed {
        sha256,
        bytes,
        path,
        has_templates: !tree.templates().is_empty(),
    })
}

fn copy(path: &Path, out: &mut impl Write) -> Result<(), BundleError> {
    let file = open(path)?;
    // One byte past the limit is enough to see that it is passed.
    let copied = io::copy(&mut BufReader::new(file.take(MAX_BUNDLE_BYTES + 1)), out);
    copied.map(drop).map_err(BundleError::io("copy", path))
}

fn open(path: &Path) -> Result<File, BundleError> {
    let file = File::open(path).map_err(BundleError::io("read", path))?;
    let meta = file.metadata().map_err(BundleError::io("read", path))?;
    if !meta.is_file() {
        return Err(BundleError::Kind {
            path: path.to_owned(),
            wanted: "file",
        });
    }
    Ok(file)
}

fn too_large(path: &Path, unit: &str, most: u64) -> BundleError {
    BundleError::TooLarge {
        path: path.to_owned(),
        what: format!("more than {most} {unit}"),
    }
}

/// Passes bytes on and hashes them.
struct Hashed<W> {
    out: W,
    hash: Context,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hash: Context::new(&SHA256),
            bytes: 0,
        }
    }

    fn finish(self) -> (String, u64) {
        (hex(self.hash.finish().as_ref()), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf)?;
        self.hash.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
