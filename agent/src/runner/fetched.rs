//! How far the fetches of copies are: written by launches, told to the master by the session now and then. A number that
//! is never told is no loss.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aot_proto::ids::RunId;
use aot_proto::v1::CopyProgress;

#[derive(Debug, Clone, Copy)]
struct Fetch {
    bytes: u64,
    total: u64,
    told: Option<u64>,
}

/// Fetches that are under way.
#[derive(Debug, Default)]
pub struct Fetched(Mutex<BTreeMap<RunId, Fetch>>);

impl Fetched {
    /// So much of a run's files is here.
    pub fn note(&self, run: RunId, bytes: u64, total: u64) {
        let mut fetches = self.0.lock().expect("nobody panics with it");
        let fetch = fetches.entry(run).or_insert(Fetch {
            bytes,
            total,
            told: None,
        });
        fetch.bytes = bytes;
    }

    /// Nothing more will be fetched for this run.
    pub fn done(&self, run: RunId) {
        self.0.lock().expect("nobody panics with it").remove(&run);
    }

    /// What has changed since it was last asked.
    pub fn news(&self) -> Vec<CopyProgress> {
        let mut fetches = self.0.lock().expect("nobody panics with it");
        let mut news = Vec::new();
        for (run, fetch) in fetches.iter_mut() {
            if fetch.told != Some(fetch.bytes) {
                fetch.told = Some(fetch.bytes);
                news.push(CopyProgress {
                    run_id: run.to_string(),
                    bytes: fetch.bytes,
                    total_bytes: fetch.total,
                });
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let (fetched, run) = (Fetched::default(), RunId::from_parts(1, 1));
        fetched.note(run, 10, 100);
        assert_eq!(fetched.news()[0].bytes, 10);
        assert!(fetched.news().is_empty());
        fetched.note(run, 20, 100);
        fetched.note(run, 30, 100);
        let news = fetched.news();
        assert_eq!(
            (news.len(), news[0].bytes, news[0].total_bytes),
            (1, 30, 100)
        );
        fetched.done(run);
        assert!(fetched.news().is_empty());
    }
}
