//! The text and the name of a mount unit. Pure. Used by `mount` and `request`.

use std::path::Path;

/// First words of every unit that the agent wrote: a file without them is someone else's.
pub(crate) const MARK: &str = "# Written by aot-agent";
/// What pulls the mount in at boot. Unlike multi-user.target, local-fs.target is not ordered after what it only wants
/// (it has DefaultDependencies=no): with `nofail` no boot waits for a volume that is missing, as for such a line in fstab
/// (systemd.mount(5), fstab).
pub(crate) const WANTED_BY: &str = "local-fs.target";

/// What a mount unit is made of. Where `what` is an NVMe node without a link of udev's, the agent mounts it in each session
/// instead of systemd at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    /// Id of the volume.
    pub volume_id: &'a str,
    /// Device node or link.
    pub what: &'a Path,
    pub at: &'a Path,
    /// Type of the file system, as mount(8) names it.
    pub fs: &'a str,
    /// Whether `what` means the same volume after a reboot, so that the unit may be started without the agent.
    pub at_boot: bool,
}

impl Unit<'_> {
    /// The unit file. It has no order towards the agent's own service: the agent waits for no volume to start, and sees
    /// to each one in every session.
    pub(crate) fn text(&self) -> String {
        let what = specifiers(&self.what.to_string_lossy());
        let at = specifiers(&self.at.to_string_lossy());
        let mut text = format!(
            "{MARK}, which manages it.\n[Unit]\nDescription=EBS volume {}\nStartLimitIntervalSec=0\n\n[Mount]\n\
             What={what}\nWhere={at}\nType={}\nOptions={}\nTimeoutSec=300\n",
            self.volume_id,
            self.fs,
            options(self.fs),
        );
        if self.at_boot {
            text.push_str(&format!("\n[Install]\nWantedBy={WANTED_BY}\n"));
        }
        text
    }
}

/// Mount options for a type of file system. Volumes made from one snapshot share a UUID, and XFS refuses to mount the
/// second one on a machine but for `nouuid` (xfs(5)); which volume it is has been made sure of by other means.
pub(crate) fn options(fs: &str) -> &'static str {
    match fs {
        "xfs" => "defaults,nofail,nouuid",
        _ => "defaults,nofail",
    }
}

/// Doubles `%`, which starts a specifier (systemd.unit(5), "Specifiers").
fn specifiers(value: &str) -> String {
    value.replace('%', "%%")
}

/// Name of the mount unit of a path, as `systemd-escape --path --suffix=mount` makes it (systemd.unit(5), "String
/// escaping for inclusion in unit names"): slashes become dashes, other bytes than letters, digits, `:`, `_` and `.`
/// become `\xNN`, as does a dot at the start.
pub(crate) fn mount_unit(path: &Path) -> String {
    let text = path.as_os_str().as_encoded_bytes();
    let parts: Vec<&[u8]> = text
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    let escaped = match parts.is_empty() {
        true => "-".to_owned(),
        false => escape(&parts.join(&b'/')),
    };
    format!("{escaped}.mount")
}

fn escape(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at == 0 => out.push_str("\\x2e"),
            b':' | b'_' | b'.' => out.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(*byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first row is the example of systemd-escape(1); the others were made by systemd-escape 252.
    #[test]
    fn names_are_those_of_systemd_escape() {
        for (path, name) in [
            ("/tmp//waldi/foobar/", "tmp-waldi-foobar.mount"),
            ("/", "-.mount"),
            ("/data", "data.mount"),
            ("/data/x", "data-x.mount"),
            ("/data/./x", "data-x.mount"),
            (
                "/Hallöchen, Meister",
                "Hall\\xc3\\xb6chen\\x2c\\x20Meister.mount",
            ),
            ("/.x", "\\x2ex.mount"),
            ("/a/.x", "a-.x.mount"),
            ("/a.b", "a.b.mount"),
            ("/a-b", "a\\x2db.mount"),
            ("/a:b_c", "a:b_c.mount"),
            ("/a\\b", "a\\x5cb.mount"),
        ] {
            assert_eq!(mount_unit(Path::new(path)), name, "{path}");
        }
    }

    proptest! {
        #[test]
        fn two_paths_never_share_a_unit(a in "(/[a-z./ _-]{1,4}){1,3}", b in "(/[a-z./ _-]{1,4}){1,3}") {
            let parts = |path: &str| path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(mount_unit(Path::new(&a)) == mount_unit(Path::new(&b)), parts(&a) == parts(&b));
        }

        #[test]
        fn a_name_has_no_byte_that_a_unit_may_not_have(path in "/\\PC{0,30}") {
            prop_assert!(mount_unit(Path::new(&path)).bytes().all(|byte| byte.is_ascii_alphanumeric() || b":_.-\\".contains(&byte)));
        }
    }

    fn unit<'a>(what: &'a str, at: &'a str, fs: &'a str, at_boot: bool) -> Unit<'a> {
        Unit {
            volume_id: "vol-0a",
            what: Path::new(what),
            at: Path::new(at),
            fs,
            at_boot,
        }
    }

    #[test]
    fn a_unit_is_started_at_boot_and_never_holds_it_up() {
        let text = unit("/dev/xvdf", "/data", "ext4", true).text();
        let want = "# Written by aot-agent, which manages it.\n\
            [Unit]\nDescription=EBS volume vol-0a\nStartLimitIntervalSec=0\n\n\
            [Mount]\nWhat=/dev/xvdf\nWhere=/data\nType=ext4\nOptions=defaults,nofail\nTimeoutSec=300\n\n\
            [Install]\nWantedBy=local-fs.target\n";
        assert_eq!(text, want);
        assert!(text.starts_with(MARK));
    }

    #[test]
    fn a_name_that_may_change_is_not_mounted_at_boot() {
        let text = unit("/dev/nvme1n1", "/data", "ext4", false).text();
        assert!(!text.contains("[Install]"), "{text}");
    }

    #[test]
    fn percent_signs_are_no_specifiers_and_xfs_takes_twins() {
        let text = unit("/dev/xvdf", "/100%", "xfs", true).text();
        assert!(text.contains("\nWhere=/100%%\n"), "{text}");
        assert!(
            text.contains("\nOptions=defaults,nofail,nouuid\n"),
            "{text}"
        );
    }
}
