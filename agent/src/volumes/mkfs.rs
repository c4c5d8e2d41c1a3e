//! How a file system of each type is made: the command, and the package that has it. Pure. Used by `format`.

/// The command that makes a file system, and whether its UUID is the given one. Without `again` nothing is forced: mkfs
/// checks the device for itself, too.
pub(crate) fn mkfs(fs: &str, node: &str, uuid: &str, again: bool) -> (Vec<String>, bool) {
    let (options, force, has_uuid): (&[&str], &[&str], bool) = match fs {
        // On a device, without a terminal, mke2fs never asks what to do about what is there (mke2fs(8)).
        "ext2" | "ext3" | "ext4" => (&["-q", "-U", uuid], &[], true),
        "xfs" => (&["-q", "-m", &format!("uuid={uuid}")], &["-f"], true),
        "btrfs" => (&["-q", "-U", uuid], &["-f"], true),
        "f2fs" => (&["-q", "-U", uuid], &["-f"], true),
        _ => (&[], &[], false),
    };
    let program = format!("mkfs.{fs}");
    let mut argv: Vec<&str> = vec![&program];
    argv.extend(options);
    argv.extend(force.iter().filter(|_| again));
    argv.push(node);
    (argv.into_iter().map(str::to_owned).collect(), has_uuid)
}

/// The package that has mkfs for a file system, by its name in Debian, Ubuntu, Amazon Linux and Fedora.
pub(crate) fn package(fs: &str) -> &'static str {
    match fs {
        "ext2" | "ext3" | "ext4" => "the package e2fsprogs",
        "xfs" => "the package xfsprogs",
        "btrfs" => "the package btrfs-progs",
        "f2fs" => "the package f2fs-tools",
        "vfat" | "msdos" | "fat" => "the package dosfstools",
        "exfat" => "the package exfatprogs",
        "ntfs" => "the package ntfs-3g",
        "jfs" => "the package jfsutils",
        "nilfs2" => "the package nilfs-tools",
        _ => "the package of its tools",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mkfs_is_forced_only_where_ours_was_cut_off() {
        let line = |fs, again| {
            let (argv, has_uuid) = mkfs(fs, "/dev/xvdf", "u-1", again);
            (argv.join(" "), has_uuid)
        };
        for (fs, again, want, has_uuid) in [
            ("ext4", false, "mkfs.ext4 -q -U u-1 /dev/xvdf", true),
            ("ext3", true, "mkfs.ext3 -q -U u-1 /dev/xvdf", true),
            ("xfs", false, "mkfs.xfs -q -m uuid=u-1 /dev/xvdf", true),
            ("xfs", true, "mkfs.xfs -q -m uuid=u-1 -f /dev/xvdf", true),
            ("btrfs", false, "mkfs.btrfs -q -U u-1 /dev/xvdf", true),
            ("btrfs", true, "mkfs.btrfs -q -U u-1 -f /dev/xvdf", true),
            ("f2fs", false, "mkfs.f2fs -q -U u-1 /dev/xvdf", true),
            ("vfat", true, "mkfs.vfat /dev/xvdf", false),
        ] {
            assert_eq!(line(fs, again), (want.to_owned(), has_uuid));
        }
    }
}
