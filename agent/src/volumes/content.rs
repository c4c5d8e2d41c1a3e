//! What lies on a device, and what follows from it. Pure. Used by `format`.

use super::system::Done;

/// What blkid finds on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceContent {
    Nothing,
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
pub(crate) struct Marker {
    pub volume_id: String,
    /// UUID of the file system that was begun; empty for a type that can't be given one.
    pub uuid: String,
}

/// What to do with a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
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
/// says 2 of a device that can't be opened, too; only then with an error on stderr.
pub(crate) fn content(done: &Done) -> DeviceContent {
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
            DeviceContent::Nothing
        }
        (Some(0), _) if !table.is_empty() => DeviceContent::Partitions(table),
        (Some(0), "filesystem") if !fs.is_empty() => DeviceContent::FileSystem {
            fs,
            uuid: tag("UUID"),
        },
        (Some(0), _) if !fs.is_empty() => DeviceContent::Other(fs),
        (Some(8), _) => DeviceContent::Unclear("signatures of several kinds".to_owned()),
        (code, _) => DeviceContent::Unclear(format!(
            "something blkid cannot identify (status {}): {}",
            code.map_or_else(|| "none".to_owned(), |code| code.to_string()),
            last_line(&done.stderr)
        )),
    }
}

/// The last line of a command's errors.
pub(crate) fn last_line(text: &str) -> &str {
    text.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("no reason given")
}

/// Decides. `zero` is asked only where there is no signature. A marker alone never permits writing over a file system: its
/// UUID must be the one that we gave it.
pub(crate) fn decide(content: &DeviceContent, marker: Option<&Marker>, zero: bool) -> Action {
    match (content, marker) {
        // A marker is written only for a blank volume: what is on it now is what our own mkfs was cut off in.
        (DeviceContent::Nothing, Some(_)) => Action::Make { again: true },
        (DeviceContent::Nothing, None) if zero => Action::Make { again: false },
        (DeviceContent::Nothing, None) => Action::Refuse(
            "holds data of a kind that blkid does not know; to lose it, clear it with `blkdiscard -z`".to_owned(),
        ),
        (DeviceContent::FileSystem { fs, uuid }, Some(marker)) if !uuid.is_empty() && *uuid == marker.uuid => {
            Action::Inspect(fs.clone())
        }
        // Somebody's data, whatever type was asked for.
        (DeviceContent::FileSystem { fs, .. }, _) => Action::Use(fs.clone()),
        (DeviceContent::Partitions(kind), _) => Action::Refuse(format!(
            "is partitioned ({kind}); aot mounts whole volumes only: leave out `mount`, and mount its partitions in a stage"
        )),
        (DeviceContent::Other(kind), _) => Action::Refuse(format!("holds {kind}, which is not a file system")),
        (DeviceContent::Unclear(what), _) => {
            Action::Refuse(format!("holds {what}; see `wipefs` and `blkid -p`"))
        }
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

    fn fs(fs: &str, uuid: &str) -> DeviceContent {
        DeviceContent::FileSystem {
            fs: fs.into(),
            uuid: uuid.into(),
        }
    }

    #[test]
    fn blkids_answers_are_read() {
        for (name, done, want) in [
            ("nothing", done(2, "", ""), DeviceContent::Nothing),
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
                DeviceContent::Partitions("gpt".into()),
            ),
            (
                "both",
                done(0, "TYPE=iso9660\nUSAGE=filesystem\nPTTYPE=dos\n", ""),
                DeviceContent::Partitions("dos".into()),
            ),
            (
                "lvm",
                done(0, "TYPE=LVM2_member\nUSAGE=raid\n", ""),
                DeviceContent::Other("LVM2_member".into()),
            ),
            (
                "several",
                done(8, "", "blkid: /dev/xvdf: ambivalent result"),
                DeviceContent::Unclear("signatures of several kinds".into()),
            ),
            (
                "unreadable",
                done(2, "", "error: /dev/xvdf: Input/output error\n"),
                DeviceContent::Unclear(
                    "something blkid cannot identify (status 2): error: /dev/xvdf: Input/output error".into(),
                ),
            ),
            (
                "no tags",
                done(0, "DEVNAME=/dev/xvdf\n", ""),
                DeviceContent::Unclear("something blkid cannot identify (status 0): no reason given".into()),
            ),
            (
                "killed",
                Done {
                    code: None,
                    ..done(0, "", "")
                },
                DeviceContent::Unclear("something blkid cannot identify (status none): no reason given".into()),
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
            ("new", DeviceContent::Nothing, None, true, make(false)),
            (
                "cut off early",
                DeviceContent::Nothing,
                Some(&ours),
                false,
                make(true),
            ),
            (
                "cut off before",
                DeviceContent::Nothing,
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
            (DeviceContent::Partitions("gpt".into()), "gpt"),
            (DeviceContent::Other("swap".into()), "swap"),
            (
                DeviceContent::Unclear("signatures of several kinds".into()),
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
        let raw = decide(&DeviceContent::Nothing, None, false);
        assert!(
            matches!(&raw, Action::Refuse(why) if why.contains("blkdiscard")),
            "{raw:?}"
        );
    }
}
