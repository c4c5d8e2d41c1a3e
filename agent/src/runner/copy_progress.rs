//! How far the fetches of copies are: recorded by those who fetch, sent to the master by the session now and then. A number
//! that is never sent is not missed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aot_proto::ids::RunId;
use aot_proto::v1::CopyProgress;

#[derive(Debug, Clone, Copy)]
struct Fetch {
    bytes: u64,
    total: u64,
    reported: Option<u64>,
}

/// Fetches that are under way.
#[derive(Debug, Default)]
pub(crate) struct Fetched(Mutex<BTreeMap<RunId, Fetch>>);

impl Fetched {
    /// This many `bytes` of the `total` of a run's files are here.
    pub(crate) fn record(&self, run: RunId, bytes: u64, total: u64) {
        let mut fetches = self.0.lock().expect("nobody panics with it");
        let fetch = fetches.entry(run).or_insert(Fetch {
            bytes,
            total,
            reported: None,
        });
        fetch.bytes = bytes;
    }

    /// Nothing more will be fetched for this run.
    pub(crate) fn done(&self, run: RunId) {
        self.0.lock().expect("nobody panics with it").remove(&run);
    }

    /// What has changed since the last call.
    pub(crate) fn changes(&self) -> Vec<CopyProgress> {
        let mut fetches = self.0.lock().expect("nobody panics with it");
        let mut changes = Vec::new();
        for (run, fetch) in fetches.iter_mut() {
            if fetch.reported != Some(fetch.bytes) {
                fetch.reported = Some(fetch.bytes);
                changes.push(CopyProgress {
                    run_id: run.to_string(),
                    bytes: fetch.bytes,
                    total_bytes: fetch.total,
                });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_reported() {
        let (fetched, run) = (Fetched::default(), RunId::from_parts(1, 1));
        fetched.record(run, 10, 100);
        assert_eq!(fetched.changes()[0].bytes, 10);
        assert!(fetched.changes().is_empty());
        fetched.record(run, 20, 100);
        fetched.record(run, 30, 100);
        let changes = fetched.changes();
        assert_eq!(
            (changes.len(), changes[0].bytes, changes[0].total_bytes),
            (1, 30, 100)
        );
        fetched.done(run);
        assert!(fetched.changes().is_empty());
    }
}
