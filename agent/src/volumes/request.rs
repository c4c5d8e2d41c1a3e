//! What the master asks for, checked. Pure. Used by `mod`.

use std::path::{Component, Path, PathBuf};

use aot_proto::v1::Volume;

use super::VolumePaths;
use super::unit::mount_unit;

/// The file system where none is named.
const DEFAULT_FS: &str = "ext4";
/// Longest name of a unit, in bytes (systemd.unit(5)).
const MOST_UNIT: usize = 255;

/// Why a request is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Error(String);

/// A volume as it is wanted, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeRequest {
    /// `vol-0123...`.
    pub volume_id: String,
    /// The mapping's name.
    pub device: String,
    /// Mount point: absolute, without `.`, `..` and doubled slashes.
    pub mount: PathBuf,
    /// Type of the file system to make.
    pub fs: String,
}

impl VolumeRequest {
    /// Checks what the master asks for.
    ///
    /// # Errors
    /// When the id, the mount point or the file system can't be, or the volume would hide the agent's own files.
    pub(crate) fn new(volume: &Volume, paths: &VolumePaths) -> Result<Self, Error> {
        let id = volume.volume_id.as_str();
        let word = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !id.strip_prefix("vol-").is_some_and(word) {
            return Err(Error(format!("{id:?} is not a volume id")));
        }
        let fs = match volume.fs.as_str() {
            "" => DEFAULT_FS,
            fs if word(fs) => fs,
            fs => return Err(Error(format!("{fs:?} is not a file system"))),
        };
        Ok(Self {
            volume_id: id.to_owned(),
            device: volume.device.clone(),
            mount: mount_path(&volume.mount, paths)?,
            fs: fs.to_owned(),
        })
    }
}

/// The mount point in its plainest form.
fn mount_path(text: &str, paths: &VolumePaths) -> Result<PathBuf, Error> {
    let bad = |why: &str| Error(format!("cannot mount at {text:?}: {why}"));
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(bad("it is not an absolute path"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("it has control characters"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(bad("it has `..`"));
    }
    let plain: PathBuf = path.components().collect();
    if mount_unit(&plain).len() > MOST_UNIT {
        return Err(bad("it is too long for the name of a unit"));
    }
    let own = [
        &paths.state_dir,
        &paths.units,
        &paths.dev,
        &paths.sys,
        &paths.proc,
        &paths.run,
    ];
    match own.iter().find(|own| own.starts_with(&plain)) {
        Some(own) => Err(bad(&format!("that would hide {}", own.display()))),
        None => Ok(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_cannot_be_met_are_refused() {
        let paths = VolumePaths::new(Path::new("/var/lib/aot"), Path::new("/etc"));
        let good = Volume {
            volume_id: "vol-0a1b".into(),
            device: "/dev/sdf".into(),
            mount: "/data".into(),
            fs: String::new(),
        };
        let at = |mount: &str| Volume {
            mount: mount.into(),
            ..good.clone()
        };
        for (mount, plain) in [
            ("/data", "/data"),
            ("//data/./x/", "/data/x"),
            ("/var/lib/pg", "/var/lib/pg"),
        ] {
            let request = VolumeRequest::new(&at(mount), &paths).unwrap();
            assert_eq!(
                (request.mount.as_path(), request.fs.as_str()),
                (Path::new(plain), "ext4")
            );
        }
        let long = format!("/{}", "a".repeat(250));
        for mount in [
            "",
            "data",
            "/",
            "//",
            "/a/../b",
            "/a\nb",
            "/var",
            "/var/lib/aot",
            "/etc",
            "/dev",
            "/proc",
            &long,
        ] {
            let error = VolumeRequest::new(&at(mount), &paths).unwrap_err();
            assert!(
                error.to_string().contains("cannot mount"),
                "{mount}: {error}"
            );
        }
        for id in ["", "vol-", "vol-../x", "0a1b", "vol-0A"] {
            let volume = Volume {
                volume_id: id.into(),
                ..good.clone()
            };
            assert!(VolumeRequest::new(&volume, &paths).is_err(), "{id}");
        }
        for fs in ["../x", "ext4 -F", "EXT4"] {
            let volume = Volume {
                fs: fs.into(),
                ..good.clone()
            };
            assert!(VolumeRequest::new(&volume, &paths).is_err(), "{fs}");
        }
    }
}
