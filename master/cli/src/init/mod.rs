//! `init`: a first cluster.yml with a bundle, which launches as it is. Asks no master.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::CLUSTER_FILE;

const CLUSTER: &str = include_str!("cluster.yml");
const BUNDLE: &str = include_str!("bootstrap.sh");

/// Where the bundle lies, below the folder.
const BUNDLE_FILE: &str = "bundles/hello/bootstrap.sh";

/// The cluster's name where the folder's can't be one.
const NAME: &str = "demo";

/// Longest name of a cluster.
const MAX_NAME: usize = 63;

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{} is there already, and is left as it is", .0.display())]
    IsThere(PathBuf),
    /// It can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Writes both files into a folder, made if need be, and says what they are. One that is there is left alone, and then
/// nothing is written.
///
/// # Errors
/// When a file is there already, or can't be written.
pub fn init(dir: &Path) -> Result<[PathBuf; 2], InitError> {
    let files = [CLUSTER_FILE, BUNDLE_FILE].map(|name| dir.join(name));
    if let Some(there) = files.iter().find(|file| file.symlink_metadata().is_ok()) {
        return Err(InitError::IsThere(there.clone()));
    }
    // The bundle first: whoever finds a cluster.yml finds all of it.
    write(&files[1], BUNDLE, 0o755)?;
    write(&files[0], &CLUSTER.replace("{name}", &name_of(dir)), 0o644)?;
    Ok(files)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), InitError> {
    let written = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(mode);
        options.open(path)?.write_all(text.as_bytes())
    };
    written().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::IsThere(path.to_owned()),
        _ => InitError::Write {
            path: path.to_owned(),
            source,
        },
    })
}

/// The folder's name, as a cluster may have it: two first clusters are then two clusters.
fn name_of(dir: &Path) -> String {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let name = whole
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(MAX_NAME)
        .collect();
    match name.trim_end_matches('-') {
        "" => NAME.to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_file_is_written_once_and_never_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("My Shop.2");
        let files = init(&dir).expect("written");
        let text = fs::read_to_string(&files[0]).expect("a file");
        assert!(text.contains("\ncluster: my-shop-2\n"), "{text}");
        fs::write(&files[0], "mine").expect("written");
        for _ in 0..2 {
            let error = init(&dir).expect_err("it is there");
            assert!(matches!(error, InitError::IsThere(_)), "{error}");
            // The second time only the bundle is in the way.
            let _ = fs::rename(&files[0], dir.join("kept"));
        }
        assert_eq!(
            fs::read_to_string(dir.join("kept")).ok().as_deref(),
            Some("mine")
        );
        assert!(!files[0].exists());
    }

    #[test]
    fn a_folder_without_a_usable_name_has_a_demo() {
        for (dir, wanted) in [
            ("/", "demo"),
            ("/1234", "demo"),
            ("/9-Web_", "web"),
            ("/shop", "shop"),
        ] {
            assert_eq!(name_of(Path::new(dir)), wanted, "{dir}");
        }
    }
}
