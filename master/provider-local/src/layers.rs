//! Which parts of this machine a clone lies over, and where what it writes goes. Pure but for `read`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use aot_provider::token::hash_hex;

/// Most mounted file systems of this machine that a clone shows besides `/`.
const MAX_LAYERS: usize = 32;

/// Folders whose content is made anew in each clone, never laid over.
const FRESH: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// File systems that hold files of a disk. Others belong to the kernel, to containers, or vanish anyway.
const DISKS: [&str; 12] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "nfs", "nfs4", "zfs", "bcachefs",
    "virtiofs",
];

/// One overlay of a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The folder of this machine below.
    pub lower: PathBuf,
    /// Name of its folder below `disk/`; `upper` and `work` lie in it.
    pub disk: String,
}

impl Layer {
    /// The layer over one folder.
    pub(crate) fn over(lower: &Path) -> Self {
        let text = lower.to_string_lossy();
        let disk = match lower.parent() {
            None => "root".to_owned(),
            Some(_) => {
                let plain: String = text
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || *c == '/')
                    .map(|c| if c == '/' { '-' } else { c })
                    .take(40)
                    .collect();
                format!("at{plain}-{}", &hash_hex(&[Some(&text)])[..8])
            }
        };
        Self {
            lower: lower.to_owned(),
            disk,
        }
    }
}

/// The layers for root: `/`, and every other disk that is mounted, shorter paths first. `mountinfo` is
/// `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
pub(crate) fn for_root(mountinfo: &[u8], masked: &[PathBuf]) -> Vec<Layer> {
    let mut points: Vec<PathBuf> = mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(mount_point)
        .filter(|point| point.parent().is_some())
        .filter(|point| !FRESH.iter().any(|fresh| point.starts_with(fresh)))
        .filter(|point| !masked.iter().any(|mask| point.starts_with(mask)))
        .collect();
    points.sort();
    points.dedup();
    points.truncate(MAX_LAYERS);
    std::iter::once(PathBuf::from("/"))
        .chain(points)
        .map(|point| Layer::over(&point))
        .collect()
}

/// Mount point of one line, when a disk is mounted there.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    DISKS
        .iter()
        .any(|disk| disk.as_bytes() == kind)
        .then(|| PathBuf::from(unescape(point)))
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The layers for others: one for each folder of `/`, because `/` itself can't be laid over in a user namespace.
pub(crate) fn by_folder() -> io::Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let path = entry.path();
        let fresh = FRESH.iter().any(|fresh| path == Path::new(fresh));
        if entry.file_type()?.is_dir() && !fresh && path != Path::new("/lost+found") {
            layers.push(Layer::over(&path));
        }
    }
    layers.sort_by(|a, b| a.lower.cmp(&b.lower));
    Ok(layers)
}

/// Where a clone's own version of a path of this machine lies: the layer, and the path below its upper folder. `None`
/// for paths that no layer shows. Links among the folders that exist are followed first.
pub(crate) fn locate<'a>(layers: &'a [Layer], path: &Path) -> Option<(&'a Layer, PathBuf)> {
    let real = follow(path);
    if FRESH.iter().any(|fresh| real.starts_with(fresh)) {
        return None;
    }
    layers
        .iter()
        .filter_map(|layer| Some((layer, real.strip_prefix(&layer.lower).ok()?.to_owned())))
        .max_by_key(|(layer, _)| layer.lower.components().count())
}

/// Follows links in the part of a path that exists, but not a link at its end.
fn follow(path: &Path) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(_) => follow(parent).join(name),
    }
}

/// Escapes a path for an overlay's option string: `\`, `:` and `,` have a meaning there.
pub(crate) fn escape(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
23 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
24 22 254:1 / /home rw shared:3 master:1 - xfs /dev/vdb rw\n\
25 22 254:2 / /srv/my\\040disk rw - ext4 /dev/vdc rw\n\
26 22 0:9 / /var/lib/docker/overlay rw - overlay overlay rw\n\
27 22 254:3 / /tmp/x rw - ext4 /dev/vdd rw\n\
28 22 254:4 / /var/lib/aot/local/m/root rw - ext4 /dev/vde rw\n\
garbage\n\n";

    #[test]
    fn disks_are_laid_over_and_the_rest_is_left_out() {
        let layers = for_root(MOUNTINFO, &[PathBuf::from("/var/lib/aot")]);
        let lowers: Vec<&str> = layers
            .iter()
            .map(|layer| layer.lower.to_str().unwrap())
            .collect();
        assert_eq!(lowers, ["/", "/home", "/srv/my disk"]);
        assert_eq!(layers[0].disk, "root");
        assert!(layers[1].disk.starts_with("at-home-"));
        assert_ne!(
            Layer::over(Path::new("/a/b")).disk,
            Layer::over(Path::new("/a-b")).disk
        );
    }

    #[test]
    fn a_path_lies_in_the_innermost_layer() {
        let layers = for_root(MOUNTINFO, &[]);
        let (layer, rest) = locate(&layers, Path::new("/home/ann/.ssh")).unwrap();
        assert_eq!(
            (layer.lower.as_path(), rest.as_path()),
            (Path::new("/home"), Path::new("ann/.ssh"))
        );
        let (layer, rest) = locate(&layers, Path::new("/etc/hostname")).unwrap();
        assert_eq!(
            (layer.lower.as_path(), rest.as_path()),
            (Path::new("/"), Path::new("etc/hostname"))
        );
        assert_eq!(locate(&layers, Path::new("/run/aot")), None);
        assert_eq!(locate(&layers, Path::new("/tmp/state")), None);
    }

    #[test]
    fn option_strings_are_escaped() {
        assert_eq!(
            escape(Path::new("/a,b:c\\d")),
            OsString::from("/a\\,b\\:c\\\\d")
        );
    }
}
