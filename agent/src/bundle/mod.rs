//! Bundles: fetched (`fetch`), verified, and unpacked inside limits. Called by the runner, one at a time.
//!
//! An entry lands inside its folder or the bundle is refused: no absolute path, no `..`, no link that leaves the folder,
//! no writing through a link, no device. Sizes and counts are bounded while unpacking, whatever the headers say.

pub mod fetch;
mod unpack;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aot_proto::archive::Limits;
use aot_proto::limits::{MAX_BUNDLE_ENTRIES, MAX_UNPACKED_BYTES};

use crate::files::private_dir;
pub use unpack::{Error, unpack};

/// What a stage runs.
const SCRIPT: &str = "bootstrap.sh";

/// Unpacks `packed` into a fresh `folder` (mode 0700), replacing what was there, and says where `bootstrap.sh` is: at the
/// top, or in the only folder there.
///
/// # Errors
/// When the bundle is refused or has no `bootstrap.sh`; then the old folder is as it was.
pub fn unpack_stage(packed: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let parent = folder
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    private_dir(parent)?;
    for stale in fs::read_dir(parent)?.flatten() {
        if stale.file_name().to_string_lossy().starts_with(".aot-") {
            fs::remove_dir_all(stale.path())?;
        }
    }
    let fresh = tempfile::Builder::new()
        .prefix(".aot-")
        .tempdir_in(parent)?;
    private_dir(fresh.path())?;
    let limits = Limits {
        bytes: MAX_UNPACKED_BYTES,
        entries: MAX_BUNDLE_ENTRIES,
    };
    unpack(File::open(packed)?, fresh.path(), limits)?;
    let inside = script_folder(fresh.path())?;
    if folder.symlink_metadata().is_ok() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(fresh.path(), folder)?;
    Ok(folder.join(inside))
}

/// Folder of `bootstrap.sh`, relative to `top`.
fn script_folder(top: &Path) -> Result<PathBuf, Error> {
    if top.join(SCRIPT).is_file() {
        return Ok(PathBuf::new());
    }
    let with: Vec<PathBuf> = fs::read_dir(top)?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.path().join(SCRIPT).is_file())
        .map(|entry| entry.file_name().into())
        .collect();
    match &with[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::NoScript),
        _ => Err(Error::ManyScripts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn bundle(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        file
    }

    #[test]
    fn a_stage_folder_is_fresh_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stages/stage-0");
        let first = bundle(&[("bootstrap.sh", "one"), ("old", "x")]);
        assert_eq!(unpack_stage(first.path(), &folder).unwrap(), folder);
        let second = bundle(&[("pack/bootstrap.sh", "two"), ("pack/data/x", "y")]);
        assert_eq!(
            unpack_stage(second.path(), &folder).unwrap(),
            folder.join("pack")
        );
        assert!(!folder.join("old").exists());
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::read_dir(dir.path().join("stages")).unwrap().count(),
            1,
            "something was left beside it"
        );
    }

    #[test]
    fn a_bundle_without_a_script_leaves_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("stages/stage-0");
        unpack_stage(bundle(&[("bootstrap.sh", "one")]).path(), &folder).unwrap();
        assert!(matches!(
            unpack_stage(bundle(&[("readme", "x")]).path(), &folder),
            Err(Error::NoScript)
        ));
        let two = bundle(&[("a/bootstrap.sh", "x"), ("b/bootstrap.sh", "x")]);
        assert!(matches!(
            unpack_stage(two.path(), &folder),
            Err(Error::ManyScripts)
        ));
        assert_eq!(
            fs::read_to_string(folder.join("bootstrap.sh")).unwrap(),
            "one"
        );
    }
}
