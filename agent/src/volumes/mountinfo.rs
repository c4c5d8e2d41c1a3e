//! What is mounted where: /proc/self/mountinfo to entries (proc_pid_mountinfo(5)). Pure. Used by `mod` and `format`.

use std::fmt;
use std::path::{Path, PathBuf};

/// Number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dev {
    /// Of its driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Of the file system; major 0 where it has a number of its own (btrfs, overlay).
    pub dev: Dev,
    pub at: PathBuf,
    /// Type of the file system.
    pub fs: String,
    /// What was mounted, as the file system names it.
    pub source: String,
}

/// Every mount, in the kernel's order: of two at one point the later is on top.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MountTable(Vec<Mount>);

impl MountTable {
    /// Reads mountinfo; lines of another form are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(entry).collect())
    }

    /// The mount on top at a mount point.
    pub(crate) fn at(&self, path: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|entry| entry.at == path)
    }

    /// A mount of a device; the root file system first. `number` says which device a file system's source is, for those
    /// whose own number says nothing.
    pub(crate) fn of(&self, dev: Dev, number: impl Fn(&Path) -> Option<Dev>) -> Option<&Mount> {
        let of_it: Vec<&Mount> = self
            .0
            .iter()
            .filter(|entry| entry.is_of(dev, &number))
            .collect();
        let root = of_it.iter().find(|entry| entry.at == Path::new("/"));
        root.or(of_it.first()).copied()
    }
}

impl Mount {
    /// Whether the file system lies on that device.
    pub(crate) fn is_of(&self, dev: Dev, number: impl Fn(&Path) -> Option<Dev>) -> bool {
        match self.dev.major {
            0 => self.source.starts_with("/dev/") && number(Path::new(&self.source)) == Some(dev),
            _ => self.dev == dev,
        }
    }
}

fn entry(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (major, minor) = front.next()?.split_once(':')?;
    let at = front.nth(1)?;
    let mut back = back.split(' ');
    Some(Mount {
        dev: Dev {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        at: PathBuf::from(plain(at)),
        fs: back.next()?.to_owned(),
        source: plain(back.next()?),
    })
}

/// Undoes `\NNN`, by which the kernel writes space, tab, line end and backslash.
fn plain(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let octal = (*byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = &after[3..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 7:3 / /a\\040b rw master:2 propagate_from:3 - ext4 /dev/xvdf rw
31 27 0:44 /@ /btr rw - btrfs /dev/xvdg rw
32 27 7:4 / /a\\040b rw - xfs /dev/xvdh rw
33 27 254:0 /srv /srv rw - ext4 /dev/vda rw
no mountinfo at all
";

    fn dev(major: u32, minor: u32) -> Dev {
        Dev { major, minor }
    }

    #[test]
    fn the_mount_on_top_is_found() {
        let table = MountTable::parse(TEXT);
        assert_eq!(table.0.len(), 6);
        let top = table.at(Path::new("/a b")).unwrap();
        assert_eq!((top.dev, top.fs.as_str()), (dev(7, 4), "xfs"));
        assert_eq!(table.at(Path::new("/a")), None);
    }

    #[test]
    fn a_device_is_known_by_its_number_or_its_source() {
        let table = MountTable::parse(TEXT);
        let number = |path: &Path| (path == Path::new("/dev/xvdg")).then_some(dev(7, 9));
        let at = |dev| table.of(dev, number).map(|entry| entry.at.clone());
        assert_eq!(at(dev(7, 3)), Some("/a b".into()));
        assert_eq!(at(dev(7, 9)), Some("/btr".into()));
        assert_eq!(at(dev(254, 0)), Some("/".into()), "the root goes first");
        assert_eq!(at(dev(0, 21)), None, "proc lies on no device");
        assert_eq!(at(dev(8, 0)), None);
    }

    #[test]
    fn a_stray_backslash_stays() {
        assert_eq!(plain("a\\134b\\9"), "a\\b\\9");
    }
}
