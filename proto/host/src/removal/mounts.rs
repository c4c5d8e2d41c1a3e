//! The kernel's list of mounts (proc_pid_mountinfo(5)): what must not be removed.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What is mounted on `path` or below it, as this thread sees it. `path` is absolute and without links.
///
/// # Errors
/// When the kernel's list can't be read.
pub fn mounts_from(path: &Path) -> io::Result<Vec<PathBuf>> {
    let list = std::fs::read("/proc/thread-self/mountinfo")?;
    let points = list.split(|byte| *byte == b'\n').filter_map(mount_point);
    Ok(points.filter(|point| point.starts_with(path)).collect())
}

/// The mount point that a line of mountinfo names: its fifth field, with blanks and the like as three octal digits.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut rest = line.split(|byte| *byte == b' ').nth(4)?;
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *byte == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    Some(OsString::from_vec(plain).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_read_as_the_kernel_writes_it() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x/y rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt 2\x/y")));
        assert_eq!(mount_point(b""), None);
    }
}
