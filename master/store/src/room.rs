//! How much room there is where the state lies, and whether it is enough. The store must never meet a full disk: so new
//! output, uploads and launches are refused while less is free than is kept for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aot_host::chain::Chain;

/// What is kept free unless the settings say otherwise.
pub const KEEP_FREE: u64 = 256 << 20;

/// At most one part in this many of a disk is kept free: a small one is to be of use too.
const SHARE: u64 = 10;

/// The system is asked at most this often.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Too little room. What it says is for operators and the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no space left in {}: {} free, {} kept in reserve (--keep-free): make room there",
    dir.display(), in_units(*free), in_units(*reserve)
)]
pub struct Full {
    /// Where.
    dir: PathBuf,
    /// Bytes that are free.
    free: u64,
    /// Bytes that are to stay free.
    reserve: u64,
}

/// `12 MiB`; below that `40 KiB`.
fn in_units(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib => format!("{mib} MiB"),
    }
}

/// What is to stay free of a disk of this many bytes.
fn reserve(keep: u64, total: u64) -> u64 {
    keep.min(total / SHARE)
}

/// The room on one folder's disk. Cheap to ask: the system is asked only now and then.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    keep: u64,
    began: Instant,
    /// When the system was asked last, ms since `began`.
    asked_ms: AtomicU64,
    free: AtomicU64,
    reserve: AtomicU64,
    /// Less is free than is kept.
    short: AtomicBool,
}

impl Room {
    /// Of the disk below `dir`, of which `keep` bytes are to stay free; 0 = refuse nothing.
    pub fn new(dir: &Path, keep: u64) -> Self {
        let room = Self {
            dir: dir.to_owned(),
            keep,
            began: Instant::now(),
            asked_ms: AtomicU64::new(0),
            free: AtomicU64::new(u64::MAX),
            reserve: AtomicU64::new(0),
            short: AtomicBool::new(false),
        };
        room.ask();
        room
    }

    /// Whether there is room for more.
    ///
    /// # Errors
    /// When less is free than is kept.
    pub fn check(&self) -> Result<(), Full> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let asked = self.asked_ms.load(Ordering::Relaxed);
        if u128::from(now - asked.min(now)) >= ASK_EVERY.as_millis()
            && self
                .asked_ms
                .compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.ask();
        }
        match self.short.load(Ordering::Relaxed) {
            true => Err(self.full()),
            false => Ok(()),
        }
    }

    /// Asks the system now: why something could not be written, when that was for want of room.
    ///
    /// # Errors
    /// When less is free than is kept.
    pub fn check_now(&self) -> Result<(), Full> {
        self.ask();
        self.check()
    }

    /// One that is full, and stays so.
    #[cfg(feature = "samples")]
    pub fn without_any(dir: &Path) -> Self {
        let room = Self::new(dir, 1);
        room.asked_ms.store(u64::MAX, Ordering::Relaxed);
        room.short.store(true, Ordering::Relaxed);
        room
    }

    fn full(&self) -> Full {
        Full {
            dir: self.dir.clone(),
            free: self.free.load(Ordering::Relaxed),
            reserve: self.reserve.load(Ordering::Relaxed),
        }
    }

    fn ask(&self) {
        // What can't be asked is taken for empty: the write itself says what is wrong.
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else {
            return;
        };
        // A tmpfs without a bound has no blocks at all.
        if disk.f_blocks == 0 {
            return;
        }
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = reserve(self.keep, disk.f_blocks.saturating_mul(disk.f_frsize));
        self.free.store(free, Ordering::Relaxed);
        self.reserve.store(reserve, Ordering::Relaxed);
        let short = free < reserve;
        match (self.short.swap(short, Ordering::Relaxed), short) {
            (false, true) => {
                tracing::warn!(error = %Chain(&self.full()), "new output, uploads and launches are held back or refused");
            }
            (true, false) => tracing::info!(free, "there is room again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_keeps_a_share() {
        assert_eq!(reserve(KEEP_FREE, 100 << 30), 256 << 20);
        assert_eq!(reserve(KEEP_FREE, 60 << 20), 6 << 20);
        assert_eq!(reserve(0, 60 << 20), 0);
    }

    #[test]
    fn it_says_where_how_much_and_the_way_out() {
        let full = Full {
            dir: "/var/lib/aot".into(),
            free: 12 << 20,
            reserve: 256 << 20,
        };
        assert_eq!(
            full.to_string(),
            "no space left in /var/lib/aot: 12 MiB free, 256 MiB kept in reserve (--keep-free): make room there"
        );
    }

    #[test]
    fn nothing_is_refused_where_nothing_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(Room::new(dir.path(), 0).check_now(), Ok(()));
        assert_eq!(
            Room::new(Path::new("/no/such/folder"), 1).check_now(),
            Ok(())
        );
    }
}
