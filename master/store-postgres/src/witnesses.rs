//! Whose clock is wrong where a master's and its database's do not agree: each master writes down the time that it has with each of its
//! beats, and those whose time continues are witnesses. Pure; asked by `clocks`.

use std::collections::BTreeMap;
use std::time::Duration;

/// Readings without anything new until one is no witness any more: its master has ended, or has no database.
const SILENT: u8 = 3;

/// The other masters, by what they wrote down.
#[derive(Debug, Default)]
pub(crate) struct ClockWitnesses(BTreeMap<String, Witness>);

#[derive(Debug)]
struct Witness {
    /// The time that it wrote down last, since 1970.
    wrote: Duration,
    /// Readings since then.
    silent: u8,
    /// Whether that is about the time that it is here; `None` until it is seen to continue.
    agrees: Option<bool>,
}

/// What this master's clock is, one against that of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockVerdict {
    /// At least as many masters have its time, itself counted, as have another, with the database.
    Holds,
    /// That is not known yet.
    Unsure,
    /// More have another.
    Outvoted,
}

impl ClockWitnesses {
    /// What the others have written down by now. `agrees` says of what is new whether it is the time that it is here, if that can
    /// be told.
    pub(crate) fn hear(
        &mut self,
        wrote: &BTreeMap<String, Duration>,
        agrees: impl Fn(Duration) -> Option<bool>,
    ) {
        self.0.retain(|id, _| wrote.contains_key(id));
        for (id, wrote) in wrote {
            let first = || Witness {
                wrote: *wrote,
                silent: 0,
                agrees: None,
            };
            let witness = self.0.entry(id.clone()).or_insert_with(first);
            if witness.wrote == *wrote {
                witness.silent = witness.silent.saturating_add(1);
                if witness.silent > SILENT {
                    witness.agrees = None;
                }
            } else {
                *witness = Witness {
                    agrees: agrees(*wrote),
                    ..first()
                };
            }
        }
    }

    /// What was said so far was said of another time: this master's clock, or the database's, has just been put on.
    pub(crate) fn ask_anew(&mut self) {
        for witness in self.0.values_mut() {
            (witness.silent, witness.agrees) = (0, None);
        }
    }

    /// What they come to.
    pub(crate) fn verdict(&self) -> ClockVerdict {
        let said = |what| self.0.values().filter(|it| it.agrees == Some(what)).count();
        let open = self.0.values();
        let open = open.filter(|it| it.agrees.is_none() && it.silent <= SILENT);
        let (with, against, open) = (said(true), said(false), open.count());
        match against {
            _ if against > with + open => ClockVerdict::Outvoted,
            _ if against + open > with => ClockVerdict::Unsure,
            _ => ClockVerdict::Holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of whom it is known from the last readings that it continues.
    fn heard(witnesses: &mut ClockWitnesses, wrote: &[(&str, u64)], agrees: &[&str]) {
        let by_time: BTreeMap<Duration, bool> = wrote
            .iter()
            .map(|(id, ms)| (Duration::from_millis(*ms), agrees.contains(id)))
            .collect();
        let wrote = wrote.iter();
        let wrote = wrote.map(|(id, ms)| ((*id).to_owned(), Duration::from_millis(*ms)));
        witnesses.hear(&wrote.collect(), |time| by_time.get(&time).copied());
    }

    #[test]
    fn a_master_alone_has_nobody_against_it() {
        assert_eq!(ClockWitnesses::default().verdict(), ClockVerdict::Holds);
    }

    #[test]
    fn it_is_outvoted_by_the_database_and_more_masters_than_have_its_time() {
        for (agree, want) in [
            (&["a", "b", "c"][..], ClockVerdict::Holds),
            (&["a", "b"], ClockVerdict::Holds),
            (&["c"], ClockVerdict::Outvoted),
            (&[], ClockVerdict::Outvoted),
        ] {
            let mut all = ClockWitnesses::default();
            heard(&mut all, &[("a", 1), ("b", 2), ("c", 3)], agree);
            assert_eq!(all.verdict(), ClockVerdict::Unsure, "none is seen to go on");
            heard(&mut all, &[("a", 4), ("b", 5), ("c", 6)], agree);
            assert_eq!(all.verdict(), want, "{agree:?}");
        }
        let mut two = ClockWitnesses::default();
        heard(&mut two, &[("a", 1), ("b", 2)], &["a"]);
        heard(&mut two, &[("a", 3), ("b", 4)], &["a"]);
        assert_eq!(two.verdict(), ClockVerdict::Holds, "two and two");
    }

    #[test]
    fn those_that_are_gone_are_waited_for_a_moment_and_count_for_nothing() {
        let mut all = ClockWitnesses::default();
        for _ in 0..SILENT {
            heard(&mut all, &[("gone", 1)], &[]);
            assert_eq!(all.verdict(), ClockVerdict::Unsure);
        }
        for at in [1, 5] {
            heard(&mut all, &[("a", at), ("gone", 1)], &["a"]);
        }
        assert_eq!(all.verdict(), ClockVerdict::Holds);
        // It ends too: until that is sure its word counts.
        for _ in 0..SILENT {
            heard(&mut all, &[("a", 5), ("gone", 1)], &[]);
            assert_eq!(all.verdict(), ClockVerdict::Holds);
        }
        heard(&mut all, &[("a", 5), ("gone", 1)], &[]);
        assert!(all.0["a"].agrees.is_none());
        heard(&mut all, &[], &[]);
        assert!(all.0.is_empty(), "its entry was taken out");
    }

    #[test]
    fn once_a_clock_was_put_on_all_are_asked_anew() {
        let mut all = ClockWitnesses::default();
        heard(&mut all, &[("a", 1)], &["a"]);
        heard(&mut all, &[("a", 2)], &["a"]);
        all.ask_anew();
        assert_eq!(all.verdict(), ClockVerdict::Unsure);
        heard(&mut all, &[("a", 3)], &[]);
        assert_eq!(all.verdict(), ClockVerdict::Outvoted);
    }
}
