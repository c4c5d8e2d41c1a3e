//! The right to write to a store: a name, and how often that right has changed hands and has been used. A store that several
//! masters reach writes only with the newest.
//!
//! A hold is *good* while nobody else can have taken it. Time decides that, and time can be wrong: so whether a write counts
//! is decided by the store alone. What the store never sees, a call to a provider, an answer to an operator, waits for a hold
//! that is good.
//!
//! The clock that decides counts the time in which a host sleeps. It does not count the time in which a hypervisor suspends its
//! guest, unless it tells the guest. So the wall clock is asked too: where the two have moved apart since a hold was renewed,
//! it is not good until it is renewed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use aot_host::clock::{Moment, since_boot};
use aot_model::level::LEVEL;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::Error;

/// The clock that sleeps here may stand still while the host is suspended: what is waited for is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// More than this is no clock that is put right a little.
const APART: Duration = Duration::from_secs(3);

/// Where a hold stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldPosition {
    /// Raised by whoever takes the hold.
    pub epoch: i64,
    /// Raised by each write.
    pub seq: i64,
    /// A write, by its random id, of which it is not known whether it was made: whoever writes next asks first.
    pub unsure: Option<u128>,
}

/// Whether somebody else may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Nobody else can have it while this process lives.
    Kept,
    /// Nobody else can have it before this time since boot, while the clocks go as they did at this moment.
    GoodUntil(Duration, Moment),
    /// Somebody else has it; what is to be said of that.
    Lost(Arc<str>),
}

impl Standing {
    /// How long it is still good, if it is.
    fn left(&self, now: Moment) -> Option<Duration> {
        match self {
            Self::Kept => Some(Duration::MAX),
            Self::GoodUntil(_, from) if from.apart(now) > APART => None,
            Self::GoodUntil(end, _) => {
                let left = end.checked_sub(now.since_boot);
                left.filter(|left| !left.is_zero())
            }
            Self::Lost(_) => None,
        }
    }
}

/// What a write is made with. One write at a time is made with it: others wait.
#[derive(Debug)]
pub struct Hold {
    name: String,
    position: Mutex<HoldPosition>,
    /// Of the position, for whoever does not write.
    epoch: AtomicI64,
    /// Of the records that it is on.
    level: AtomicI32,
    standing: watch::Sender<Standing>,
    /// Since when a write waits to be taken, as [`since_boot`] counts.
    writing: watch::Sender<Option<Duration>>,
}

/// A write that waits longer for its store is not waited for by whoever asked.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

impl Hold {
    /// One that nobody else can take while this process lives: its records may have all that this program knows.
    pub fn kept(name: &str) -> Self {
        Self::standing(name, Standing::Kept, LEVEL)
    }

    /// One that is to be renewed, and is not good before that. What its records may have is to be said.
    pub fn renewable(name: &str) -> Self {
        let standing = Standing::GoodUntil(Duration::ZERO, Moment::default());
        Self::standing(name, standing, 0)
    }

    fn standing(name: &str, standing: Standing, level: i32) -> Self {
        Self {
            name: name.to_owned(),
            position: Mutex::default(),
            epoch: AtomicI64::new(0),
            level: AtomicI32::new(level),
            standing: watch::Sender::new(standing),
            writing: watch::Sender::new(None),
        }
    }

    /// What it is on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands; whoever has this is the one who writes.
    pub async fn position(&self) -> MutexGuard<'_, HoldPosition> {
        self.position.lock().await
    }

    /// The epoch that it was taken with; 0 where nobody else can have it, or it was not taken yet.
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// It was taken with this epoch.
    pub fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// What the records that it is on may have, see [`aot_model::level`].
    pub fn level(&self) -> i32 {
        self.level.load(Ordering::Acquire)
    }

    /// They are of this level on record.
    pub fn set_level(&self, level: i32) {
        self.level.store(level, Ordering::Release);
    }

    /// It is good until then, as [`since_boot`] counts. What was lost stays lost.
    pub fn renew(&self, until: Duration) {
        self.renew_as_of(Moment::now(), until);
    }

    /// The same, by what was known at an earlier moment: what has happened to the clocks since then counts.
    pub fn renew_as_of(&self, moment: Moment, until: Duration) {
        self.standing.send_if_modified(|standing| match standing {
            Standing::GoodUntil(end, from) => {
                (*end, *from) = (until, moment);
                true
            }
            Standing::Kept | Standing::Lost(_) => false,
        });
    }

    /// It is not good until it is renewed.
    pub fn withdraw(&self) {
        let now = since_boot();
        self.standing.send_if_modified(|standing| match standing {
            Standing::GoodUntil(end, _) if *end > now => {
                *end = now;
                true
            }
            Standing::Kept | Standing::GoodUntil(..) | Standing::Lost(_) => false,
        });
    }

    /// Somebody else has it. The first reason counts.
    pub fn lose(&self, why: &str) {
        self.standing.send_if_modified(|standing| match standing {
            Standing::Lost(_) => false,
            Standing::Kept | Standing::GoodUntil(..) => {
                *standing = Standing::Lost(why.into());
                true
            }
        });
    }

    /// Until when it is good, as [`since_boot`] counts; `None` when it is not.
    pub fn good_until(&self) -> Option<Duration> {
        let now = Moment::now();
        let left = self.standing.borrow().left(now)?;
        Some(now.since_boot.saturating_add(left))
    }

    /// Whether somebody else has it.
    pub fn is_lost(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Lost(_))
    }

    /// Whether nobody else can have it now.
    pub fn is_good(&self) -> bool {
        self.standing.borrow().left(Moment::now()).is_some()
    }

    /// A write begins to wait for its store, or was taken or refused.
    pub fn set_writing(&self, is: bool) {
        let since = is.then(since_boot);
        self.writing.send_replace(since);
    }

    /// Whether what is asked for now can be put on record, as far as is known: nobody else can have the hold, and no write has
    /// waited for long.
    pub fn is_usable(&self) -> bool {
        self.usable_for(Moment::now()).is_some()
    }

    fn usable_for(&self, now: Moment) -> Option<Duration> {
        let good = self.standing.borrow().left(now)?;
        let Some(since) = *self.writing.borrow() else {
            return Some(good);
        };
        let left = (since + WRITE_WITHIN).checked_sub(now.since_boot);
        left.filter(|left| !left.is_zero())
            .map(|left| left.min(good))
    }

    /// Waits until nothing can be put on record.
    pub async fn until_unusable(&self) {
        let (mut standing, mut writing) = (self.standing.subscribe(), self.writing.subscribe());
        loop {
            standing.mark_unchanged();
            writing.mark_unchanged();
            let Some(left) = self.usable_for(Moment::now()) else {
                return;
            };
            tokio::select! {
                _ = standing.changed() => {}
                _ = writing.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)), if left < Duration::MAX => {}
            }
        }
    }

    /// For how long nothing could be put on record; `None` while something can, or once another master has the hold.
    pub fn unusable_for(&self) -> Option<Duration> {
        let now = since_boot();
        let doubtful = match *self.standing.borrow() {
            Standing::GoodUntil(end, _) => now.checked_sub(end),
            Standing::Kept | Standing::Lost(_) => None,
        };
        let waiting = self
            .writing
            .borrow()
            .and_then(|since| now.checked_sub(since));
        doubtful.max(waiting.filter(|time| *time >= WRITE_WITHIN))
    }

    /// Waits until nobody else can have it.
    ///
    /// # Errors
    /// [`Error::Lost`] when somebody else has it: then nothing more may be done.
    pub async fn until_good(&self) -> Result<(), Error> {
        let mut standing = self.standing.subscribe();
        loop {
            match &*standing.borrow_and_update() {
                Standing::Lost(why) => return Err(Error::Lost(why.clone())),
                good if good.left(Moment::now()).is_some() => return Ok(()),
                _ => {}
            }
            standing.changed().await.map_err(|_| Error::Stopped)?;
        }
    }

    /// Waits until somebody else may have it.
    pub async fn until_not_good(&self) {
        let mut standing = self.standing.subscribe();
        loop {
            let Some(left) = standing.borrow_and_update().left(Moment::now()) else {
                return;
            };
            tokio::select! {
                _ = standing.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)), if left < Duration::MAX => {}
            }
        }
    }

    /// Waits until somebody else has it; what is to be said of that.
    pub async fn until_lost(&self) -> Error {
        let mut standing = self.standing.subscribe();
        let lost = standing.wait_for(|it| matches!(it, Standing::Lost(_)));
        match lost.await.as_deref() {
            Ok(Standing::Lost(why)) => Error::Lost(why.clone()),
            _ => Error::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const LONG: Duration = Duration::from_secs(3600);

    fn is_good(hold: &Hold) -> bool {
        let waited = hold.until_good().now_or_never();
        let is_good = hold.is_good();
        assert_eq!(is_good, matches!(waited, Some(Ok(()))));
        assert_eq!(is_good, hold.until_not_good().now_or_never().is_none());
        is_good
    }

    #[tokio::test]
    async fn one_that_is_kept_is_always_good() {
        let hold = Hold::kept("");
        assert!(is_good(&hold));
        hold.renew(Duration::ZERO);
        assert!(is_good(&hold), "there is nothing to renew");
        assert_eq!(hold.epoch(), 0);
        hold.set_epoch(3);
        assert_eq!(hold.epoch(), 3);
    }

    #[tokio::test]
    async fn it_is_good_until_its_time_and_again_once_renewed() {
        let hold = Hold::renewable("~master");
        assert!(!is_good(&hold), "it was not taken yet");
        hold.renew(since_boot() + LONG);
        assert!(is_good(&hold));
        assert_eq!(hold.unusable_for(), None);
        hold.renew(since_boot() - Duration::from_secs(5));
        assert!(!is_good(&hold));
        assert!(hold.unusable_for() >= Some(Duration::from_secs(5)));
        let waiting = tokio::join!(hold.until_good(), async { hold.renew(since_boot() + LONG) });
        waiting.0.expect("it is good again");
        hold.withdraw();
        assert!(!is_good(&hold));
        let since = hold.unusable_for().expect("it was withdrawn");
        hold.withdraw();
        assert!(
            hold.unusable_for() >= Some(since),
            "that counts from the first time"
        );
    }

    #[tokio::test]
    async fn a_host_that_stood_still_waits_for_the_next_beat() {
        let hold = Hold::renewable("~master");
        let now = Moment::now();
        let before = Moment {
            since_1970: now.since_1970 - Duration::from_secs(30),
            ..now
        };
        // Half a minute went by on the wall, and nothing of it by the clock since boot.
        hold.renew_as_of(before, now.since_boot + LONG);
        assert!(!is_good(&hold) && !hold.is_usable());
        assert_eq!(hold.good_until(), None);
        let waiting = tokio::join!(hold.until_good(), async { hold.renew(since_boot() + LONG) });
        waiting.0.expect("the next beat was taken");
        // A wall clock that is put right by little is no such thing.
        let before = Moment {
            since_1970: now.since_1970 - Duration::from_secs(2),
            ..now
        };
        hold.renew_as_of(before, now.since_boot + LONG);
        assert!(is_good(&hold));
    }

    #[tokio::test]
    async fn whoever_waits_for_its_end_learns_of_it() {
        let hold = Hold::renewable("~master");
        hold.renew(since_boot() + Duration::from_millis(50));
        hold.until_not_good().await;
        assert!(!hold.is_good());
        hold.renew(since_boot() + LONG);
        let lost = async { hold.lose("another master has it") };
        tokio::join!(hold.until_not_good(), lost);
    }

    #[tokio::test]
    async fn a_write_that_waits_for_long_makes_it_unusable_and_leaves_it_good() {
        let hold = Hold::renewable("~master");
        hold.renew(since_boot() + LONG);
        hold.set_writing(true);
        assert!(hold.is_usable(), "it may be taken soon");
        let began = since_boot() - WRITE_WITHIN - Duration::from_secs(1);
        let ((), ()) = tokio::join!(hold.until_unusable(), async {
            hold.writing.send_replace(Some(began));
        });
        assert!(is_good(&hold) && !hold.is_usable());
        assert!(hold.unusable_for() > Some(WRITE_WITHIN));
        hold.set_writing(false);
        assert!(hold.is_usable());
        assert_eq!(hold.unusable_for(), None);
        hold.renew(Duration::ZERO);
        assert!(hold.until_unusable().now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_lost_stays_lost_with_its_first_reason() {
        let hold = Hold::renewable("~master");
        assert!(hold.until_lost().now_or_never().is_none());
        hold.lose("first");
        hold.lose("second");
        hold.renew(since_boot() + LONG);
        assert!(!hold.is_good());
        let told = [
            hold.until_lost().await,
            hold.until_good().await.expect_err("it is lost"),
        ];
        for error in told {
            assert_eq!(error.to_string(), "first");
        }
    }
}
