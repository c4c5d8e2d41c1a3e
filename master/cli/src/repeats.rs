//! When a command that changes nothing, or nothing more the second time, is asked for once more: its master died, or that of its
//! cluster, before it answered. Pure; `answered` in lib.rs asks it.

use std::time::Duration;

use aot_host::in_a_row::InARow;
use aot_proto::status::is_owner_gone;
use tokio::time::Instant;

use super::connect::is_dying;
use super::error::Error;

/// Between two tries of a command whose cluster has no master.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// How often it is asked again when its own master dies, with nothing shown in between.
const DEATHS: u32 = 3;

/// How it is asked for once more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Its master has died: the next one is there, or is started.
    AtOnce,
    /// Nobody has its cluster for the moment.
    AfterPause {
        /// Nothing was said of that yet.
        first: bool,
    },
}

/// What came of it so far.
pub(crate) struct Repeats {
    deaths: InARow,
    within: Duration,
    /// Until when the next master of its cluster is waited for; `None` = it has one.
    until: Option<Instant>,
}

impl Repeats {
    /// A master for its cluster is waited for so long.
    pub(crate) fn new(within: Duration) -> Self {
        Self {
            deaths: InARow::new(DEATHS),
            within,
            until: None,
        }
    }

    /// It has shown something: whatever happened before is over.
    pub(crate) fn came(&mut self) {
        self.deaths.came();
        self.until = None;
    }

    /// After this; `None` = it counts.
    pub(crate) fn after(&mut self, error: &Error, now: Instant) -> Option<Repeat> {
        match error {
            Error::Refused(status) if is_dying(status) => self.after_death(),
            Error::NotAMaster { .. } => self.after_death(),
            Error::Refused(status) if is_owner_gone(status) => {
                let first = self.until.is_none();
                let until = *self.until.get_or_insert(now + self.within);
                (now + PAUSE < until).then_some(Repeat::AfterPause { first })
            }
            _ => None,
        }
    }

    fn after_death(&mut self) -> Option<Repeat> {
        self.deaths.failed().then_some(Repeat::AtOnce)
    }
}

#[cfg(test)]
mod tests {
    use aot_proto::status;
    use tonic::Status;

    use super::*;

    fn ownerless() -> Error {
        Error::Refused(status::owner_gone("nobody has it".to_owned()))
    }

    #[test]
    fn what_shows_things_for_weeks_outlives_every_master_and_what_shows_nothing_does_not() {
        let (mut repeats, start) = (Repeats::new(Duration::from_secs(60)), Instant::now());
        let died = Error::Refused(status::moved());
        for _ in 0..100 {
            for _ in 0..3 {
                assert_eq!(repeats.after(&died, start), Some(Repeat::AtOnce));
            }
            repeats.came();
        }
        let deaths = [(); 4].map(|()| repeats.after(&died, start).is_some());
        assert_eq!(deaths, [true, true, true, false]);
        let bad = Error::Refused(Status::invalid_argument("no"));
        assert_eq!(repeats.after(&bad, start), None);
    }

    #[test]
    fn the_next_master_of_a_cluster_is_waited_for_from_when_it_was_lost() {
        let (mut repeats, start) = (Repeats::new(Duration::from_secs(60)), Instant::now());
        let first = |first| Some(Repeat::AfterPause { first });
        // It was well for an hour.
        let hour = start + Duration::from_secs(3600);
        assert_eq!(repeats.after(&ownerless(), hour), first(true));
        let later = |seconds| hour + Duration::from_secs(seconds);
        assert_eq!(repeats.after(&ownerless(), later(59)), first(false));
        assert_eq!(repeats.after(&ownerless(), later(60)), None);
        repeats.came();
        assert_eq!(repeats.after(&ownerless(), later(90)), first(true));
    }
}
