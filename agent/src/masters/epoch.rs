//! The highest epoch that a master of this agent's cluster had, in the state folder: whose it is, and the number. A master that
//! was paused may have lost the cluster without knowing it; by its lower epoch it is known, also after a restart of the agent.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aot_host::chain::Chain;
use aot_host::files::write_atomic;
use aot_proto::ids::SpiffeId;

/// In the state folder.
const FILE: &str = "epoch";
/// Largest file: two names and a number.
const MAX_BYTES: usize = 512;

/// A file that is not what was written.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// As open(2) and read(2).
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// It is not one line of the kind.
    #[error("it is not an authority, a cluster and a number above 0")]
    Content,
}

/// The number, and the authority and cluster that it is of. Of another cluster nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HighestEpoch {
    of: String,
    epoch: i64,
}

impl HighestEpoch {
    /// What was stored last; nothing when there was nothing, or the file is damaged.
    pub(crate) fn load(state_dir: &Path) -> Self {
        let path = path(state_dir);
        match read(&path) {
            Ok(stored) => stored,
            Err(Error::Read(error)) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(
                    path = %path.display(),
                    error = %Chain(&error),
                    "the stored epoch is ignored; that of the next master is taken"
                );
                Self::default()
            }
        }
    }

    /// Of the cluster that this name is in; 0 = nothing is known.
    pub(crate) fn of(&self, name: &SpiffeId) -> i64 {
        match self.of == owner(name) {
            true => self.epoch,
            false => 0,
        }
    }

    /// A master of this name's cluster has this one: stores it in place of a lower one, or of another cluster's. Where it can't be
    /// stored it counts until the next start.
    pub(crate) fn raise(&mut self, state_dir: &Path, name: &SpiffeId, epoch: i64) {
        if epoch <= self.of(name) {
            return;
        }
        *self = Self {
            of: owner(name),
            epoch,
        };
        let path = path(state_dir);
        let text = format!("{} {epoch}\n", self.of);
        if let Err(error) = write_atomic(&path, text.as_bytes(), 0o600) {
            tracing::warn!(path = %path.display(), error = %Chain(&error), "cannot store the epoch of the master");
        }
    }
}

/// Another authority counts its own epochs.
fn owner(name: &SpiffeId) -> String {
    format!("{} {}", name.master, name.cluster)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn read(path: &Path) -> Result<HighestEpoch, Error> {
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Content)?;
    let line = text.strip_suffix('\n').filter(|_| text.len() <= MAX_BYTES);
    let (of, epoch) = line
        .and_then(|line| line.rsplit_once(' '))
        .ok_or(Error::Content)?;
    let epoch: i64 = epoch.parse().map_err(|_| Error::Content)?;
    if epoch <= 0 || of.split(' ').filter(|part| !part.is_empty()).count() != 2 {
        return Err(Error::Content);
    }
    Ok(HighestEpoch {
        of: of.to_owned(),
        epoch,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn name(master: &str, cluster: &str) -> SpiffeId {
        format!("spiffe://{master}/cluster/{cluster}/instance/web1/i-1")
            .parse()
            .unwrap()
    }

    #[test]
    fn the_highest_one_is_known_after_a_restart_and_counts_for_its_own_cluster_alone() {
        let dir = tempfile::tempdir().unwrap();
        let web = name("m", "web");
        let mut known = HighestEpoch::load(dir.path());
        assert_eq!(known.of(&web), 0);
        for (raised, highest) in [(3, 3), (2, 3), (0, 3), (-1, 3), (i64::MAX, i64::MAX)] {
            known.raise(dir.path(), &web, raised);
            assert_eq!(known.of(&web), highest);
            assert_eq!(HighestEpoch::load(dir.path()), known, "after a restart");
        }
        // Enrolled anew, under another cluster or by another authority: there it begins anew.
        for other in [name("m", "web2"), name("n", "web")] {
            assert_eq!(known.of(&other), 0);
        }
        let other = name("m", "web2");
        known.raise(dir.path(), &other, 1);
        let known = HighestEpoch::load(dir.path());
        assert_eq!((known.of(&other), known.of(&web)), (1, 0));
    }

    #[test]
    fn a_file_that_is_anything_else_is_ignored_and_can_be_replaced() {
        let long = format!("m {} 5\n", "x".repeat(MAX_BYTES));
        for (what, content) in [
            ("empty", ""),
            ("no number", "m web \n"),
            ("not a number", "m web x\n"),
            ("too large a number", "m web 9223372036854775808\n"),
            ("zero", "m web 0\n"),
            ("cut off", "m web 12"),
            ("no cluster", "m 12\n"),
            ("two lines", "m web 1\nm web 2\n"),
            ("too long", long.as_str()),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(path(dir.path()), content).unwrap();
            let mut known = HighestEpoch::load(dir.path());
            assert_eq!(known, HighestEpoch::default(), "{what}");
            known.raise(dir.path(), &name("m", "web"), 2);
            assert_eq!(HighestEpoch::load(dir.path()), known, "{what}");
        }
    }

    #[test]
    fn what_cannot_be_stored_counts_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(path(dir.path())).unwrap();
        let mut known = HighestEpoch::load(dir.path());
        known.raise(dir.path(), &name("m", "web"), 2);
        assert_eq!(known.of(&name("m", "web")), 2);
    }
}
