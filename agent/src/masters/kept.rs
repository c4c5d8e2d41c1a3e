//! The addresses of masters that a master named, in the state folder: one per line. A file that is anything else is ignored,
//! and replaced once a master names its addresses again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aot_host::chain::Chain;
use aot_host::files::write_atomic;
use aot_proto::limits::{MAX_ADDRESS_BYTES, MAX_MASTERS};

use super::sanitize;

/// In the state folder.
const FILE: &str = "masters";
/// Largest file: every address with its line's end.
const MAX_BYTES: usize = MAX_MASTERS * (MAX_ADDRESS_BYTES + 1);

/// A file that is not what was written.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// As open(2) and read(2).
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// It is empty, too long, not text, or has lines that are not addresses.
    #[error("it is not a list of at most {MAX_MASTERS} addresses, host:port")]
    Content,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// What was stored last; none when nothing was, or the file is damaged.
pub(crate) fn load(state_dir: &Path) -> Vec<String> {
    let path = path(state_dir);
    match read(&path) {
        Ok(addresses) => addresses,
        Err(Error::Read(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                error = %Chain(&error),
                "the stored addresses of masters are ignored; those of the settings are dialled"
            );
            Vec::new()
        }
    }
}

fn read(path: &Path) -> Result<Vec<String>, Error> {
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Content)?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if text.len() > MAX_BYTES || lines.is_empty() || sanitize(&lines) != lines {
        return Err(Error::Content);
    }
    Ok(lines)
}

/// Stores them in place of those before. Without them the next start dials those before, or those of the settings.
pub(crate) fn store(state_dir: &Path, addresses: &[String]) {
    let path = path(state_dir);
    let text: String = addresses.iter().map(|it| format!("{it}\n")).collect();
    if let Err(error) = write_atomic(&path, text.as_bytes(), 0o600) {
        tracing::warn!(path = %path.display(), error = %Chain(&error), "cannot store the addresses of masters");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("m{n}:7440")).collect()
    }

    #[test]
    fn what_was_stored_is_loaded_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        let longest = format!("{}:7440", "a".repeat(MAX_ADDRESS_BYTES - 5));
        let full: Vec<String> = (10..10 + MAX_MASTERS)
            .map(|n| format!("{n}{}", &longest[2..]))
            .collect();
        for addresses in [names(2), names(1), vec!["[::1]:7440".to_owned()], full] {
            store(dir.path(), &addresses);
            assert_eq!(load(dir.path()), addresses);
        }
    }

    #[test]
    fn a_file_that_is_anything_else_is_ignored_and_can_be_replaced() {
        let lines = |count| format!("{}\n", names(count).join("\n"));
        for (name, content) in [
            ("empty", Vec::new()),
            ("binary", vec![0xff, 0, 7]),
            ("a line without a port", b"m0:7440\nm1\n".to_vec()),
            ("an empty line", b"m0:7440\n\nm1:7440\n".to_vec()),
            ("a terminal's code", b"m0:7440\n\x1b[2Jm1:7440\n".to_vec()),
            ("one twice", b"m0:7440\nm0:7440\n".to_vec()),
            ("too many", lines(MAX_MASTERS + 1).into_bytes()),
            ("too long", lines(MAX_BYTES).into_bytes()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(path(dir.path()), content).unwrap();
            assert!(load(dir.path()).is_empty(), "{name}");
            store(dir.path(), &names(2));
            assert_eq!(load(dir.path()), names(2), "{name}");
        }
    }

    #[test]
    fn a_folder_in_its_place_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(path(dir.path())).unwrap();
        assert!(load(dir.path()).is_empty());
        store(dir.path(), &names(1));
        assert!(load(dir.path()).is_empty());
    }
}
