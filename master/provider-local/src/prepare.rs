//! A clone's own files, put into the upper folders of its layers before they are mounted. Runs in the clone's pid 1.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use super::clone_dirs::remove_tree;
use super::inside::Inside;
use super::layers::{Layer, locate};
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
    pub(crate) fn new(dirs: &'a Dirs, layers: &'a [Layer], rootless: bool) -> io::Result<Self> {
        for layer in layers {
            let disk = dirs.disk().join(&layer.disk);
            fs::create_dir_all(disk.join("work"))?;
            let upper = disk.join("upper");
            if !upper.exists() {
                fs::create_dir_all(&upper)?;
                Inside::open(&upper)?.dress_like(&layer.lower, rootless)?;
            }
        }
        Ok(Self {
            dirs,
            layers,
            rootless,
        })
    }

    /// At the first boot: everything that makes it another machine than its host.
    pub(crate) fn first_boot(&self, machine: &MachineFile) -> io::Result<()> {
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
        let hash = aot_provider::token::hash_hex(&[
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
        // A link costs nothing; a clone that replaces its agent unlinks it first (ETXTBSY), as installers do.
        match self.folder_of(Path::new("/usr/local/bin/aot-agent"))? {
            Some((folder, name)) => folder.link(&self.dirs.agent(), &name, 0o755),
            None => Ok(()),
        }
    }

    /// A file of the clone's own; what the host has there is hidden by it.
    fn file(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        match self.folder_of(Path::new(path))? {
            Some((folder, name)) => folder.write(&name, bytes, mode),
            None => Ok(()),
        }
    }

    /// An empty folder, whatever the host has there (kernel documentation, overlayfs, "whiteouts and opaque
    /// directories").
    fn empty(&self, path: &Path, mode: u32) -> io::Result<()> {
        let Some((folder, name)) = self.folder_of(path)? else {
            return Ok(());
        };
        remove_tree(&folder.path_of(&name))?;
        let folder = folder.enter(&name, |_| Ok(()))?;
        folder.set_mode(mode)?;
        let name = if self.rootless {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        };
        folder.set_attribute(name, b"y")
    }

    /// The folder of a path in the upper folder, and the path's last name; parents are made with mode and owner of those
    /// below.
    fn folder_of(&self, path: &Path) -> io::Result<Option<(Inside, OsString)>> {
        let Some((layer, rest)) = locate(self.layers, path) else {
            return Ok(None);
        };
        let Some(name) = rest.file_name() else {
            return Ok(None);
        };
        let mut folder = Inside::open(&self.dirs.disk().join(&layer.disk).join("upper"))?;
        let mut lower = layer.lower.clone();
        for part in rest.parent().into_iter().flat_map(Path::components) {
            lower.push(part);
            let like_lower = |made: &Inside| made.dress_like(&lower, self.rootless);
            folder = folder.enter(part.as_os_str(), like_lower)?;
        }
        Ok(Some((folder, name.to_owned())))
    }

    /// Without root, what root owns can't be changed in place, only hidden: copies folders (and small files) up, so
    /// that they belong to the clone.
    fn copy_up(&self, folder: &Path, depth: usize, files: bool) -> io::Result<()> {
        let Some((layer, rest)) = locate(self.layers, folder) else {
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
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "small files of the host that no test starts"
                    )]
                    let _ = fs::copy(entry.path(), target);
                }
            }
        }
        Ok(())
    }
}

/// At every boot, where the clone's root is mounted and nothing of it runs yet: names this boot. Links of its own making
/// are followed as it would follow them.
pub(super) fn every_boot(dirs: &Dirs) -> io::Result<()> {
    let write = || {
        let folder = Inside::open(&dirs.root())?.seen_at(Path::new("etc/aot"))?;
        folder.write(OsStr::new("boot_id"), &fs::read(dirs.boot_id())?, 0o644)
    };
    write().map_err(|error| {
        let what = format!("cannot write its /etc/aot/boot_id: {error}");
        io::Error::new(error.kind(), what)
    })
}

/// At the first boot: the host's ssh identity is not the clone's, which makes its own.
pub(super) fn remove_host_keys(dirs: &Dirs) -> io::Result<()> {
    match Inside::open(&dirs.root())?.seen_at(Path::new("etc/ssh")) {
        Ok(folder) => folder.drop_files(|name| name.starts_with("ssh_host_")),
        Err(_) => Ok(()), // there is none
    }
}
