//! A clone's own files, put into the upper folders of its layers before they are mounted. Runs in the clone's pid 1.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, XattrFlags, chown, setxattr};

use super::layers::{Layer, place};
use super::record::{Dirs, MachineFile};

/// Folders of the host that hold its own aot state or its identity: empty in a clone, with these modes.
const EMPTY: [(&str, u32); 3] = [
    ("/etc/aot", 0o755),
    ("/var/lib/aot", 0o700),
    ("/root/.ssh", 0o700),
];

/// Largest file that is copied up for a clone without root.
const COPY_BYTES: u64 = 1 << 20;
/// Most entries that are copied up for one.
const COPY_ENTRIES: usize = 20_000;

/// What makes `reboot` and `poweroff` work where no systemd is pid 1.
const REBOOT: &str = "#!/bin/sh\nexec kill -s INT 1\n";
const POWEROFF: &str = "#!/bin/sh\nexec kill -s TERM 1\n";

/// Writes into upper folders.
pub(super) struct Upper<'a> {
    dirs: &'a Dirs,
    layers: &'a [Layer],
    rootless: bool,
}

impl<'a> Upper<'a> {
    /// Makes the layers' folders.
    pub fn new(dirs: &'a Dirs, layers: &'a [Layer], rootless: bool) -> io::Result<Self> {
        for layer in layers {
            let disk = dirs.disk().join(&layer.disk);
            fs::create_dir_all(disk.join("work"))?;
            let upper = disk.join("upper");
            if !upper.exists() {
                fs::create_dir_all(&upper)?;
                like(&layer.lower, &upper, rootless)?;
            }
        }
        Ok(Self {
            dirs,
            layers,
            rootless,
        })
    }

    /// At the first boot: everything that makes it another machine than its host.
    pub fn first_boot(&self, machine: &MachineFile) -> io::Result<()> {
        if self.rootless {
            self.copy_up(Path::new("/etc"), 16, true)?;
            self.copy_up(Path::new("/var"), 3, false)?;
            self.copy_up(Path::new("/usr/local"), 2, false)?;
        }
        for (path, mode) in EMPTY {
            self.empty(Path::new(path), mode)?;
        }
        for path in &machine.masked {
            self.empty(path, 0o700)?;
        }
        self.file(
            "/etc/hostname",
            format!("{}\n", machine.hostname).as_bytes(),
            0o644,
        )?;
        let hash = crate::provider::token::hash_hex(&[
            Some(&machine.cluster_uuid),
            Some(machine.id.as_str()),
        ]);
        self.file(
            "/etc/machine-id",
            format!("{}\n", &hash[..32]).as_bytes(),
            0o444,
        )?;
        self.file(
            "/etc/aot/agent.toml",
            &fs::read(self.dirs.agent_toml())?,
            0o600,
        )?;
        self.file("/usr/local/sbin/reboot", REBOOT.as_bytes(), 0o755)?;
        self.file("/usr/local/sbin/poweroff", POWEROFF.as_bytes(), 0o755)?;
        if let Some(agent) = self.make_room("/usr/local/bin/aot-agent")? {
            // A link costs nothing; a clone that replaces its agent unlinks it first (ETXTBSY), as installers do.
            fs::hard_link(self.dirs.agent(), &agent)
                .or_else(|_| fs::copy(self.dirs.agent(), &agent).map(drop))?;
        }
        Ok(())
    }

    /// At every boot.
    pub fn every_boot(&self) -> io::Result<()> {
        self.file("/etc/aot/boot_id", &fs::read(self.dirs.boot_id())?, 0o644)
    }

    /// A file of the clone's own; what the host has there is hidden by it.
    fn file(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let Some(target) = self.make_room(path)? else {
            return Ok(());
        };
        fs::write(&target, bytes)?;
        fs::set_permissions(&target, Permissions::from_mode(mode))
    }

    /// Place for a new file, with its parents; what lay there is removed.
    fn make_room(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let Some((layer, rest)) = place(self.layers, Path::new(path)) else {
            return Ok(None);
        };
        let target = self.target(layer, &rest)?;
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(target)),
        }
    }

    /// An empty folder, whatever the host has there (kernel documentation, overlayfs, "whiteouts and opaque
    /// directories").
    fn empty(&self, path: &Path, mode: u32) -> io::Result<()> {
        let Some((layer, rest)) = place(self.layers, path) else {
            return Ok(());
        };
        let target = self.target(layer, &rest)?;
        match fs::remove_dir_all(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&target)?,
        }
        fs::set_permissions(&target, Permissions::from_mode(mode))?;
        let name = if self.rootless {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        };
        Ok(setxattr(&target, name, b"y", XattrFlags::empty())?)
    }

    /// The path in the upper folder; its parents are made with mode and owner of those below.
    fn target(&self, layer: &Layer, rest: &Path) -> io::Result<PathBuf> {
        let mut upper = self.dirs.disk().join(&layer.disk).join("upper");
        let mut lower = layer.lower.clone();
        for part in rest.parent().into_iter().flat_map(Path::components) {
            upper.push(part);
            lower.push(part);
            if fs::symlink_metadata(&upper).is_err() {
                fs::create_dir(&upper)?;
                like(&lower, &upper, self.rootless)?;
            }
        }
        Ok(rest
            .file_name()
            .map_or(upper.clone(), |name| upper.join(name)))
    }

    /// Without root, what root owns can't be changed in place, only hidden: copies folders (and small files) up, so
    /// that they belong to the clone.
    fn copy_up(&self, folder: &Path, depth: usize, files: bool) -> io::Result<()> {
        let Some((layer, rest)) = place(self.layers, folder) else {
            return Ok(());
        };
        let upper = self.dirs.disk().join(&layer.disk).join("upper").join(rest);
        let mut waiting = vec![(folder.to_owned(), upper, depth)];
        let mut left = COPY_ENTRIES;
        while let Some((from, to, depth)) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&from) else {
                continue;
            };
            fs::create_dir_all(&to)?;
            for entry in entries.flatten().take(left) {
                left -= 1;
                let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
                if kind.is_dir() && depth > 1 {
                    waiting.push((entry.path(), target, depth - 1));
                } else if files && kind.is_file() && entry.metadata()?.len() <= COPY_BYTES {
                    // Unreadable ones stay as they are.
                    let _ = fs::copy(entry.path(), target);
                }
            }
        }
        Ok(())
    }
}

/// Gives a folder mode and owner of another, where there is one.
fn like(model: &Path, folder: &Path, rootless: bool) -> io::Result<()> {
    let Ok(model) = fs::metadata(model) else {
        return Ok(());
    };
    if rootless {
        return fs::set_permissions(
            folder,
            Permissions::from_mode(model.mode() & 0o1777 | 0o700),
        );
    }
    chown(
        folder,
        Some(Uid::from_raw(model.uid())),
        Some(Gid::from_raw(model.gid())),
    )?;
    fs::set_permissions(folder, Permissions::from_mode(model.mode() & 0o7777))
}
