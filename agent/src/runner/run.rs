//! What the agent knows of one run without asking its shim: its folder, its spool, whether it has ended. Owned by the runner.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use aot_proto::v1::Ended;
use tokio_util::sync::CancellationToken;

use super::spool::{self, SPOOL, SpoolStat, SpoolWriter};

/// One run that the agent still has.
pub(super) struct Run {
    pub(super) dir: PathBuf,
    /// Journalled since the machine started: the mark on its spool can be believed.
    pub(super) of_this_boot: bool,
    /// Whether its end is in its spool.
    pub(super) ended: bool,
    /// Length of its spool when it was last measured.
    pub(super) bytes: u64,
    /// While it is being prepared or its shim is our child: cancels the preparation.
    pub(super) starting: Option<CancellationToken>,
    /// Its spool: until it was read to its end, and for as long as it has no name.
    pub(super) spool: Option<File>,
}

impl Run {
    pub(super) fn new(dir: PathBuf, of_this_boot: bool) -> Self {
        Self {
            dir,
            of_this_boot,
            ended: false,
            bytes: 0,
            starting: None,
            spool: None,
        }
    }

    /// Its spool as it is now, all zero where there is none: by the descriptor where one is open, since its name may be gone.
    /// A mark of another boot is not believed: a power cut may have taken the end and left it.
    pub(super) fn stat(&self) -> SpoolStat {
        let stat = self.open_stat();
        let stat = stat.or_else(|| spool::stat(&self.dir.join(SPOOL)).ok());
        let stat = stat.unwrap_or_default();
        SpoolStat {
            marked: stat.marked && self.of_this_boot,
            ..stat
        }
    }

    fn open_stat(&self) -> Option<SpoolStat> {
        spool::stat_open(self.spool.as_ref()?).ok()
    }

    /// Whether its folder was removed from under it: all that is left of it is the spool that is open.
    pub(super) fn is_nameless(&self) -> bool {
        self.open_stat().is_some_and(|stat| !stat.has_name)
    }

    /// Walks over its spool.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn scan(&self) -> io::Result<spool::Scan> {
        match &self.spool {
            Some(file) => spool::scan_open(file),
            None => spool::scan(&self.dir.join(SPOOL)),
        }
    }

    /// Writes the end that nobody else writes.
    ///
    /// # Errors
    /// As open(2), write(2) and fdatasync(2).
    pub(super) fn end(&self, end: Ended) -> io::Result<()> {
        let (mut writer, _) = match &self.spool {
            Some(file) if self.is_nameless() => {
                SpoolWriter::over(file.try_clone()?, self.dir.join(SPOOL))?
            }
            _ => SpoolWriter::open(&self.dir)?,
        };
        writer.end(end)
    }
}
