//! What lies on a device, and what follows from it. Pure. Used by `format`.

use super::system::Done;

/// What blkid finds on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No signature.
    Nothing,
    /// A file system.
    FileSystem {
        /// Its type, as mount(8) names it.
        fs: String,
        /// Its UUID; empty where it has none.
        uuid: String,
    },
    /// A partition table of this kind.
    Partitions(String),
    /// Something that is not to be mounted: swap, LVM, RAID, LUKS.
    Other(String),
    /// Signatures of several kinds, or an answer that can't be read.
    Unclear(String),
}

/// What a marker says: a file system was begun on a volume on which there was nothing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marker {
    /// The volume.
    pub volume_id: String,
    /// UUID of the file system that was begun; empty for a type that can't be given one.
    pub uuid: String,
}

/// What to do with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a file system; `again` after one of ours that was cut off.
    Make {
        /// Whether mkfs may write over what it finds.
        again: bool,
    },
    /// Mount what is there, of this type.
    Use(String),
    /// There is a file system that we began, of this type: make it again only if nothing can be on it.
    Inspect(String),
    /// Leave it alone; why.
    Refuse(String),
}

/// Reads the answer of `blkid -p -o export` (blkid(8)): status 0 and tags, 2 for nothing, 8 for several signatures. It
/// says 2 of a device that can't be opened, too; only then with a word on stderr.
pub fn content(done: &Done) -> Content {
    let tag = |name: &str| {
        let line = |line: &str| {
            line.strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        };
        done.stdout.lines().find_map(line).unwrap_or_default()
    };
    let (table, fs) = (tag("PTTYPE"), tag("TYPE"));
    match (done.code, tag("USAGE").as_str()) {
        (Some(2), _) if done.stderr.trim().is_empty() && done.stdout.trim().is_empty() => {
            Content::Nothing
        }
        (Some(0), _) if !table.is_empty() => Content::Partitions(table),
        (Some(0), "filesystem") if !fs.is_empty() => Content::FileSystem {
            fs,
            uuid: tag("UUID"),
        },
        (Some(0), _) if !fs.is_empty() => Content::Other(fs),
        (Some(8), _) => Content::Unclear("signatures of several kinds".to_owned()),
        (code, _) => Content::Unclear(format!(
            "what blkid can't tell (status {}): {}",
            code.map_or_else(|| "none".to_owned(), |code| code.to_string()),
            last_line(&done.stderr)
        )),
    }
}

/// The last line of a command's errors.
pub fn last_line(text: &str) -> &str {
    text.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("no word why")
}

/// Decides. `zero` is asked only where there is no signature. A marker alone never allows to write over a file system: its
/// UUID must be the one that we gave it.
pub fn decide(content: &Content, marker: Option<&Marker>, zero: bool) -> Action {
    match (content, marker) {
        (Content::Nothing, Some(_)) => Action::Make { again: true },
        (Content::Nothing, None) if zero => Action::Make { again: false },
        (Content::Nothing, None) => Action::Refuse(
            "holds data of a kind that blkid does not know; to lose it, clear it with `blkdiscard -z`".to_owned(),
        ),
        (Content::FileSystem { fs, uuid }, Some(marker)) if !uuid.is_empty() && *uuid == marker.uuid => {
            Action::Inspect(fs.clone())
        }
        (Content::FileSystem { fs, .. }, _) => Action::Use(fs.clone()),
        (Content::Partitions(kind), _) => Action::Refuse(format!(
            "is partitioned ({kind}); aot mounts whole volumes only: leave out `mount`, and mount its partitions in a stage"
        )),
        (Content::Other(kind), _) => Action::Refuse(format!("holds {kind}, which is no file system")),
        (Content::Unclear(what), _) => {
            Action::Refuse(format!("holds {what}; see `wipefs` and `blkid -p`"))
        }
    }
}

/// The command that makes a file system, and whether its UUID is the given one. Without `again` nothing is forced: mkfs
/// looks at the device for itself, too.
pub fn mkfs(fs: &str, node: &str, uuid: &str, again: bool) -> (Vec<String>, bool) {
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
pub fn package(fs: &str) -> &'static str {
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

    fn done(code: i32, stdout: &str, stderr: &str) -> Done {
        Done {
            code: Some(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    fn fs(fs: &str, uuid: &str) -> Content {
        Content::FileSystem {
            fs: fs.into(),
            uuid: uuid.into(),
        }
    }

    #[test]
    fn blkids_answers_are_read() {
        for (name, done, want) in [
            ("nothing", done(2, "", ""), Content::Nothing),
            (
                "ext4",
                done(
                    0,
                    "DEVNAME=/dev/xvdf\nUUID=u-1\nVERSION=1.0\nTYPE=ext4\nUSAGE=filesystem\n",
                    "",
                ),
                fs("ext4", "u-1"),
            ),
            (
                "no uuid",
                done(0, "TYPE=squashfs\nUSAGE=filesystem\n", ""),
                fs("squashfs", ""),
            ),
            (
                "partitions",
                done(0, "PTUUID=1\nPTTYPE=gpt\n", ""),
                Content::Partitions("gpt".into()),
            ),
            (
                "both",
                done(0, "TYPE=iso9660\nUSAGE=filesystem\nPTTYPE=dos\n", ""),
                Content::Partitions("dos".into()),
            ),
            (
                "lvm",
                done(0, "TYPE=LVM2_member\nUSAGE=raid\n", ""),
                Content::Other("LVM2_member".into()),
            ),
            (
                "several",
                done(8, "", "blkid: /dev/xvdf: ambivalent result"),
                Content::Unclear("signatures of several kinds".into()),
            ),
            (
                "unreadable",
                done(2, "", "error: /dev/xvdf: Input/output error\n"),
                Content::Unclear(
                    "what blkid can't tell (status 2): error: /dev/xvdf: Input/output error".into(),
                ),
            ),
            (
                "no tags",
                done(0, "DEVNAME=/dev/xvdf\n", ""),
                Content::Unclear("what blkid can't tell (status 0): no word why".into()),
            ),
            (
                "killed",
                Done {
                    code: None,
                    ..done(0, "", "")
                },
                Content::Unclear("what blkid can't tell (status none): no word why".into()),
            ),
        ] {
            assert_eq!(content(&done), want, "{name}");
        }
    }

    #[test]
    fn only_what_holds_nothing_is_ever_made_anew() {
        let ours = Marker {
            volume_id: "vol-1".into(),
            uuid: "u-1".into(),
        };
        let unnamed = Marker {
            uuid: String::new(),
            ..ours.clone()
        };
        let make = |again| Action::Make { again };
        let uses = |fs: &str| Action::Use(fs.into());
        for (name, content, marker, zero, want) in [
            ("new", Content::Nothing, None, true, make(false)),
            (
                "cut off early",
                Content::Nothing,
                Some(&ours),
                false,
                make(true),
            ),
            (
                "cut off before",
                Content::Nothing,
                Some(&ours),
                true,
                make(true),
            ),
            ("in use", fs("xfs", "u-2"), None, false, uses("xfs")),
            (
                "cut off late",
                fs("ext4", "u-1"),
                Some(&ours),
                false,
                Action::Inspect("ext4".into()),
            ),
            (
                "someone else's",
                fs("ext4", "u-2"),
                Some(&ours),
                false,
                uses("ext4"),
            ),
            (
                "no uuid",
                fs("vfat", ""),
                Some(&unnamed),
                false,
                uses("vfat"),
            ),
        ] {
            assert_eq!(decide(&content, marker, zero), want, "{name}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_a_marker_and_without() {
        let ours = Marker {
            volume_id: "vol-1".into(),
            uuid: "u-1".into(),
        };
        for (content, word) in [
            (Content::Partitions("gpt".into()), "gpt"),
            (Content::Other("swap".into()), "swap"),
            (
                Content::Unclear("signatures of several kinds".into()),
                "several",
            ),
        ] {
            for marker in [None, Some(&ours)] {
                let action = decide(&content, marker, true);
                assert!(
                    matches!(&action, Action::Refuse(why) if why.contains(word)),
                    "{action:?}"
                );
            }
        }
        let raw = decide(&Content::Nothing, None, false);
        assert!(
            matches!(&raw, Action::Refuse(why) if why.contains("blkdiscard")),
            "{raw:?}"
        );
    }

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
