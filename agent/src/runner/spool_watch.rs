//! Tells which spools were written to, by inotify(7). Used by the runner; what it misses (no watches left) the runner's
//! regular check finds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use aot_host::chain::Chain;
use aot_proto::ids::RunId;
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

pub(crate) struct SpoolFollower {
    inotify: AsyncFd<OwnedFd>,
    runs: BTreeMap<i32, RunId>,
    watches: BTreeMap<RunId, i32>,
}

impl SpoolFollower {
    /// No watches yet.
    ///
    /// # Errors
    /// As inotify_init1(2).
    pub(crate) fn new() -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that may close their descriptor early; an OwnedFd never does"
        )]
        let inotify = AsyncFd::new(fd)?;
        Ok(Self {
            inotify,
            runs: BTreeMap::new(),
            watches: BTreeMap::new(),
        })
    }

    /// Watches a run's spool.
    pub(crate) fn add(&mut self, run: RunId, spool: &Path) {
        match inotify::add_watch(self.inotify.get_ref(), spool, inotify::WatchFlags::MODIFY) {
            Ok(watch) => {
                self.runs.insert(watch, run);
                self.watches.insert(run, watch);
            }
            Err(error) => {
                tracing::warn!(%run, error = %Chain(&error), "cannot watch a spool; polling it every second instead")
            }
        }
    }

    /// Stops watching a run's spool.
    pub(crate) fn remove(&mut self, run: RunId) {
        if let Some(watch) = self.watches.remove(&run) {
            self.runs.remove(&watch);
            // It is gone by itself when the file is.
            let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
        }
    }

    /// Runs whose spools were written to, at least one. Cancel safe.
    pub(crate) async fn touched(&mut self) -> BTreeSet<RunId> {
        loop {
            let Ok(mut ready) = self.inotify.readable().await else {
                return std::future::pending().await;
            };
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(ready.get_inner(), &mut buffer);
            let mut touched = BTreeSet::new();
            let stopped = loop {
                match reader.next() {
                    Ok(event) => touched.extend(self.runs.get(&event.wd())),
                    Err(error) => break error,
                }
            };
            if stopped == Errno::AGAIN {
                ready.clear_ready();
            }
            if !touched.is_empty() {
                return touched;
            }
        }
    }
}
