//! The holds that a master has, all kept good by the same beats, and each lost by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aot_host::clock::Moment;
use aot_store::{Hold, HoldPosition, StoreClock};

use crate::take::Taken;

/// What is good while a master's beats are taken.
const STANDING: &str = "~beat";

/// What the engine says of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundHold {
    /// Who has it.
    pub(crate) owner: String,
    /// With which.
    pub(crate) epoch: i64,
    /// Level that its records may have.
    pub(crate) level: i32,
}

/// By what they are on.
pub(crate) type FoundHolds = BTreeMap<String, FoundHold>;

/// What a beat makes of the holds that were found as they are known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Renewal {
    /// Good until this time since boot, as far as the clocks have gone as they did at this moment.
    Good(Moment, Duration),
    /// Not good until there is a better one.
    Withdrawn,
}

impl Renewal {
    pub(crate) fn apply(self, hold: &Hold) {
        match self {
            Self::Good(moment, until) => hold.renew_as_of(moment, until),
            Self::Withdrawn => hold.withdraw(),
        }
    }
}

/// All holds of a master, by what they are on.
#[derive(Default)]
pub(crate) struct HeldHolds(Mutex<BTreeMap<String, Held>>);

/// What beats are for.
#[derive(Clone)]
pub(crate) struct KeptHolds {
    /// Good while this master's beats are taken, whatever else it has; lost when another start has its entry.
    pub(crate) standing: Arc<Hold>,
    /// All that it has taken.
    pub(crate) holds: Arc<HeldHolds>,
    /// What the last beat said of the clocks.
    clock: Arc<Mutex<Option<StoreClock>>>,
}

impl KeptHolds {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            standing: Arc::new(Hold::renewable(STANDING)),
            holds: Arc::default(),
            clock: Arc::default(),
        }
    }

    /// What a beat says of the clocks.
    pub(crate) fn note_clock(&self, clock: StoreClock) {
        *self.clock.lock().expect("nobody panics with it") = Some(clock);
    }

    /// What the last beat said of them.
    pub(crate) fn clock(&self) -> Option<StoreClock> {
        *self.clock.lock().expect("nobody panics with it")
    }

    /// One that was just taken. It is good until the next beats renew it, for as long as a beat is good, and no longer than this
    /// master is.
    pub(crate) async fn add_taken(&self, name: &str, taken: &Taken, good: Duration) -> Arc<Hold> {
        let hold = Arc::new(Hold::renewable(name));
        *hold.position().await = HoldPosition {
            epoch: taken.epoch,
            seq: taken.seq,
            unsure: None,
        };
        hold.set_epoch(taken.epoch);
        hold.set_level(taken.level);
        self.holds.add(&hold, taken.epoch, taken.is_taken_over);
        let own = taken.asked.since_boot + good;
        let end = self.standing.good_until();
        hold.renew_as_of(taken.asked, end.map_or(own, |end| end.min(own)));
        hold
    }
}

struct Held {
    hold: Arc<Hold>,
    epoch: i64,
    /// It was taken over, and what that means is not on record yet.
    is_in_doubt: bool,
}

impl HeldHolds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// From now on this is one of them, in place of an earlier one on the same.
    pub(crate) fn add(&self, hold: &Arc<Hold>, epoch: i64, is_in_doubt: bool) {
        let held = Held {
            hold: hold.clone(),
            epoch,
            is_in_doubt,
        };
        self.all().insert(hold.name().to_owned(), held);
    }

    /// Forgets one, unless it was taken anew.
    pub(crate) fn remove(&self, name: &str, epoch: i64) {
        let mut all = self.all();
        if all.get(name).is_some_and(|held| held.epoch == epoch) {
            all.remove(name);
        }
    }

    /// What is held, with its epoch.
    pub(crate) fn epochs(&self) -> BTreeMap<String, i64> {
        let all = self.all();
        all.iter()
            .map(|(name, held)| (name.clone(), held.epoch))
            .collect()
    }

    /// Whether one is in doubt; it is not from now on.
    pub(crate) fn end_doubt(&self, name: &str) -> bool {
        let mut all = self.all();
        let held = all.get_mut(name);
        held.is_some_and(|held| std::mem::take(&mut held.is_in_doubt))
    }

    /// What a beat means for the holds that were asked about: those that were found as they are known are renewed,
    /// all others are lost. What was taken since then is left alone.
    pub(crate) fn compare(
        &self,
        asked: &BTreeMap<String, i64>,
        found: &FoundHolds,
        renewal: Renewal,
        why: impl Fn(&str) -> String,
    ) {
        let mut all = self.all();
        // First those that are lost: what is done for them stops before anything else may continue.
        all.retain(|name, held| {
            if asked.get(name) != Some(&held.epoch) {
                return true;
            }
            let owner = match found.get(name) {
                Some(found) if found.epoch == held.epoch => {
                    held.hold.set_level(found.level);
                    return true;
                }
                Some(found) => found.owner.as_str(),
                None => "nobody: its row is gone",
            };
            held.hold.lose(&why(owner));
            false
        });
        for held in asked.keys().filter_map(|name| all.get(name)) {
            renewal.apply(&held.hold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_beat_renews_what_is_as_it_was_and_loses_the_rest() {
        let held = HeldHolds::default();
        let names = ["kept", "moved", "gone", "new"];
        let holds = names.map(|name| Arc::new(Hold::renewable(name)));
        for hold in &holds[..3] {
            held.add(hold, 7, false);
        }
        let asked = held.epochs();
        held.add(&holds[3], 1, false);
        let found = [("kept", ("a", 7, 3)), ("moved", ("b", 8, 3))];
        let found = found.map(|(name, (owner, epoch, level))| {
            let owner = owner.to_owned();
            let found = FoundHold {
                owner,
                epoch,
                level,
            };
            (name.to_owned(), found)
        });
        let now = Moment::now();
        let good = Renewal::Good(now, now.since_boot + LONG);
        let found = found.into();
        held.compare(&asked, &found, good, str::to_owned);
        assert_eq!(
            holds.each_ref().map(|hold| hold.is_good()),
            [true, false, false, false]
        );
        let left: Vec<_> = held.epochs().into_keys().collect();
        assert_eq!(left, ["kept", "new"]);
        assert_eq!((holds[0].level(), holds[1].level()), (3, 0));
        held.compare(&asked, &found, Renewal::Withdrawn, str::to_owned);
        assert!(!holds[0].is_good() && !holds[0].is_lost());
    }

    #[test]
    fn one_that_was_taken_anew_is_not_forgotten_with_the_old_one() {
        let held = HeldHolds::default();
        let hold = Arc::new(Hold::renewable("c"));
        held.add(&hold, 1, false);
        held.add(&hold, 2, true);
        held.remove("c", 1);
        assert!(held.end_doubt("c") && !held.end_doubt("c"));
        held.remove("c", 2);
        assert!(held.epochs().is_empty());
    }
}
