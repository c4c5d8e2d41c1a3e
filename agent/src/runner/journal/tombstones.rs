//! The ids of runs that were forgotten: one per line in a file, so that none of them is ever started again. Used by the
//! journal alone. Nothing is synced here; see [`super::Journal::forget`] for why that is enough.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use aot_host::files::write_atomic;
use aot_proto::ids::RunId;

/// They are compacted when there are more.
const MOST: usize = 20_000;

/// Every tombstone, and the file that they are in.
pub(super) struct Tombstones {
    path: PathBuf,
    /// Open since the first one that this agent wrote.
    file: Option<File>,
    ids: HashSet<RunId>,
    most: usize,
}

impl Tombstones {
    /// Reads those in the file at `path`; none where there is no such file. Lines that hold no id are left out.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Self {
            path,
            file: None,
            ids: text.lines().filter_map(|line| line.parse().ok()).collect(),
            most: MOST,
        })
    }

    /// Whether this run was forgotten.
    pub(super) fn has(&self, id: RunId) -> bool {
        self.ids.contains(&id)
    }

    /// Adds one, in the file as well.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn add(&mut self, id: RunId) -> io::Result<()> {
        if self.ids.insert(id) {
            self.append(id)?;
        }
        if self.ids.len() > self.most {
            self.compact()?;
        }
        Ok(())
    }

    fn append(&mut self, id: RunId) -> io::Result<()> {
        // One without a name was removed: what it says is lost at the next start.
        let named = |file: &File| file.metadata().is_ok_and(|meta| meta.nlink() > 0);
        let file = match &mut self.file {
            Some(file) if named(file) => file,
            none => none.insert(
                File::options()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&self.path)?,
            ),
        };
        file.write_all(format!("{id}\n").as_bytes())
    }

    /// Keeps the newer half: ids sort by time.
    fn compact(&mut self) -> io::Result<()> {
        let mut ids: Vec<RunId> = self.ids.iter().copied().collect();
        ids.sort_unstable();
        let kept = ids.split_off(ids.len() / 2);
        let text: String = kept.iter().map(|id| format!("{id}\n")).collect();
        write_atomic(&self.path, text.as_bytes(), 0o600)?;
        self.ids = kept.into_iter().collect();
        // It was replaced by another one.
        self.file = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> RunId {
        RunId::from_parts(1_700_000_000_000 + n, n.into())
    }

    #[test]
    fn they_are_compacted_to_the_newer_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tombstones");
        let mut tombstones = Tombstones::open(path.clone()).unwrap();
        tombstones.most = 10;
        for n in 0..11 {
            tombstones.add(id(n)).unwrap();
        }
        let tombstones = Tombstones::open(path).unwrap();
        assert_eq!(tombstones.ids.len(), 6);
        assert!(tombstones.has(id(10)) && !tombstones.has(id(0)));
    }
}
