//! Whether this host's clocks go as the database's does, and whose is wrong where they don't. Pure: a beat brings a reading, and what
//! it means is decided here.
//!
//! For how long a hold is good is counted by the clock since boot, and other masters count by theirs. A hypervisor that suspends
//! its guest may let that clock stand still; the database's continues.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_host::clock::Moment;
use aot_store::{StoreClock, WallClock};

use crate::witnesses::{ClockVerdict, ClockWitnesses};

/// More than this between two beats is no clock that is a little slow. With a beat every 2 s a clock that loses less makes
/// 15 s out of the 10 s for which one makes a hold good: nobody has taken it by then.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// Over a long outage clocks differ by their drift: a thousandth is more than any that works has.
const DRIFT: u32 = 1000;

/// From this on the wall clock is warned of,
const OFF: Duration = Duration::from_secs(2);

/// below this it is well again,
const WELL: Duration = Duration::from_secs(1);

/// and from this on nothing is done by it where other masters have the database's time: records, certificates and signatures of this
/// master would be of another one.
const FAR_OFF: Duration = Duration::from_secs(10);

/// What another master has written down since the last reading is compared where that was so lately: it may have been at any moment
/// since then, so that it is known to half of this.
const LATELY: Duration = Duration::from_secs(5);

/// What a beat says of the clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockReading {
    pub(crate) sent: Moment,
    pub(crate) answered: Moment,
    /// The database's, since 1970, at some moment between the two.
    pub(crate) database: Duration,
}

/// By how much the wall clock is off at least, and to which side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClockOffset {
    pub(crate) by: Duration,
    pub(crate) is_behind: bool,
}

/// What a reading means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockFinding {
    pub(crate) wall: WallClock,
    /// It is not as it was at the reading before.
    pub(crate) is_new: bool,
    pub(crate) offset: ClockOffset,
    /// For how long, at least, the clock since boot stood still since the reading before; zero where that is not seen.
    pub(crate) stood_still: Duration,
}

impl ClockFinding {
    /// Whether the beat makes holds good.
    pub(crate) fn is_trusted(&self) -> bool {
        self.wall < WallClock::Unsure && self.stood_still.is_zero()
    }

    /// For whoever asks how the clocks are.
    pub(crate) fn store_clock(&self) -> StoreClock {
        let by = i64::try_from(self.offset.by.as_millis()).unwrap_or(i64::MAX);
        let ahead_ms = if self.offset.is_behind { -by } else { by };
        let wall = self.wall;
        StoreClock { wall, ahead_ms }
    }
}

/// What is remembered from reading to reading.
#[derive(Debug, Default)]
pub(crate) struct ClockCheck {
    last: Option<ClockReading>,
    wall: WallClock,
    witnesses: ClockWitnesses,
}

impl ClockCheck {
    /// Compares this reading with the one before, and with the times that other masters have written down.
    pub(crate) fn read(
        &mut self,
        reading: ClockReading,
        others: &BTreeMap<String, Duration>,
    ) -> ClockFinding {
        let last = self.last.replace(reading);
        let stood_still = last.map_or(Duration::ZERO, |last| reading.stood_still_since(&last));
        let offset = reading.offset();
        let before = self.wall;
        if offset.by > FAR_OFF && before < WallClock::DatabaseFarOff {
            self.witnesses.ask_anew();
        }
        self.witnesses
            .hear(others, |wrote| reading.agrees_with(wrote, last.as_ref()));
        self.wall = next_wall(before, offset.by, self.witnesses.verdict());
        ClockFinding {
            wall: self.wall,
            is_new: before != self.wall,
            offset,
            stood_still,
        }
    }

    /// How the wall clock was at the last reading.
    pub(crate) fn wall(&self) -> WallClock {
        self.wall
    }
}

fn next_wall(before: WallClock, off_by: Duration, verdict: ClockVerdict) -> WallClock {
    match (before, verdict) {
        (_, ClockVerdict::Holds) if off_by > FAR_OFF => WallClock::DatabaseFarOff,
        // What is known of it stays known until others show that it is different now.
        (WallClock::DatabaseFarOff | WallClock::FarOff, ClockVerdict::Unsure)
            if off_by > FAR_OFF =>
        {
            before
        }
        (_, ClockVerdict::Unsure) if off_by > FAR_OFF => WallClock::Unsure,
        (_, ClockVerdict::Outvoted) if off_by > FAR_OFF => WallClock::FarOff,
        _ if off_by > OFF => WallClock::Off,
        (WallClock::Well, _) => WallClock::Well,
        _ if off_by > WELL => WallClock::Off,
        _ => WallClock::Well,
    }
}

impl ClockReading {
    fn offset(&self) -> ClockOffset {
        let behind = self.database.saturating_sub(self.answered.since_1970);
        let ahead = self.sent.since_1970.saturating_sub(self.database);
        ClockOffset {
            by: behind.max(ahead),
            is_behind: !behind.is_zero(),
        }
    }

    /// Whether a time that was written down since the last reading is this host's rather than the database's, which is far from it;
    /// `None` where that can't be told.
    fn agrees_with(&self, wrote: Duration, last: Option<&Self>) -> Option<bool> {
        let since = self.answered.since_boot;
        let since = since.saturating_sub(last?.sent.since_boot);
        // By this host's clock as it is now, also if it was put on meanwhile.
        let about = self.answered.since_1970.saturating_sub(since / 2);
        let limit = (self.offset().by / 2).min(FAR_OFF);
        (since <= LATELY).then(|| wrote.abs_diff(about) <= limit)
    }

    /// However long the ways there and back took: only what they can't explain counts.
    fn stood_still_since(&self, last: &Self) -> Duration {
        let there = self.database.saturating_sub(last.database);
        let here = self.answered.since_boot;
        let here = here.saturating_sub(last.sent.since_boot);
        let unexplained = there.saturating_sub(here);
        match unexplained > STOOD_STILL + here / DRIFT {
            true => unexplained,
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
