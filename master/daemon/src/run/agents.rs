//! The agents that are handed out: found once at start, kept by content, served and copied from there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aot_host::files::{private_dir, write_atomic};
use aot_model::hash::sha256_hex;

/// Architectures that an agent may be built for, as `uname -m` says them.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Agents by content. A machine that was launched with one agent gets that one, even when a newer one lies there now.
#[derive(Debug)]
pub(crate) struct Agents {
    dir: PathBuf,
    current: BTreeMap<String, String>,
}

/// Why there is no agent to hand out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was found.
    #[error("no aot-agent for this machine in {}: build it (`cargo agent`), or name its folder with --agent-dir", .0.display())]
    Missing(PathBuf),
    /// It can't be read or kept.
    #[error("cannot keep a copy of {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Agents {
    /// Looks for agents in `source` and keeps copies in `dir`.
    ///
    /// # Errors
    /// When there is none for this machine's own architecture, or no copy can be kept.
    pub(crate) fn open(source: &Path, dir: &Path) -> Result<Self, Error> {
        let mut current = BTreeMap::new();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        private_dir(dir).map_err(at(dir))?;
        for arch in ARCHITECTURES {
            let Some(path) = candidates(source, arch)
                .into_iter()
                .find(|path| path.is_file())
            else {
                continue;
            };
            let bytes = std::fs::read(&path).map_err(at(&path))?;
            let sha256 = sha256_hex(&bytes);
            let copy = dir.join(&sha256);
            if !copy.exists() {
                write_atomic(&copy, &bytes, 0o600).map_err(at(&copy))?;
            }
            std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .map_err(at(&copy))?;
            current.insert(arch.to_owned(), sha256);
        }
        if current.contains_key(std::env::consts::ARCH) {
            Ok(Self {
                dir: dir.to_owned(),
                current,
            })
        } else {
            Err(Error::Missing(source.to_owned()))
        }
    }

    /// SHA-256 by architecture of what a launch hands out now.
    pub(crate) fn current(&self) -> &BTreeMap<String, String> {
        &self.current
    }

    /// Where the copy of an agent lies; `None` when that is not a hash, or there is none.
    pub(crate) fn path(&self, sha256: &str) -> Option<PathBuf> {
        let hash = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        let path = self.dir.join(sha256);
        (hash && path.is_file()).then_some(path)
    }

    /// Where the agent for this machine's own architecture lies.
    pub(crate) fn own_path(&self, agents: &BTreeMap<String, String>) -> PathBuf {
        let sha256 = agents
            .get(std::env::consts::ARCH)
            .map_or("", String::as_str);
        self.dir.join(sha256)
    }
}

/// Where an agent may lie, best first. A build tree has the static one in `../agent`, beside `release` or `debug`.
fn candidates(source: &Path, arch: &str) -> Vec<PathBuf> {
    let mut paths = vec![source.join(format!("aot-agent-{arch}"))];
    if arch == std::env::consts::ARCH {
        paths.push(source.join("../agent/aot-agent"));
        paths.push(source.join("aot-agent"));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_kept_and_served_by_content() {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, copies) = (dir.path().join("source"), dir.path().join("copies"));
        std::fs::create_dir(&source).expect("makes");
        assert!(matches!(
            Agents::open(&source, &copies),
            Err(Error::Missing(_))
        ));
        std::fs::write(source.join("aot-agent"), "own").expect("writes");
        let agents = Agents::open(&source, &copies).expect("opens");
        let sha256 = sha256_hex(b"own");
        assert_eq!(agents.current().get(std::env::consts::ARCH), Some(&sha256));
        std::fs::write(source.join("aot-agent"), "newer").expect("writes");
        let path = agents.path(&sha256).expect("is kept");
        assert_eq!(std::fs::read(path).expect("reads"), b"own");
        assert_eq!(agents.path("../../etc/passwd"), None);
        assert_eq!(agents.path(&"0".repeat(64)), None);
    }
}
