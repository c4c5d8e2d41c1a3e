//! How long to wait before the next connection. All agents of a master that goes lose it in the same moment, so they spread
//! over the time that it named in its welcome. Where only one agent's link was cut, its master is well: the first try after a
//! broken session follows at once and goes to that master alone; the spread is waited for when that fails. Pure; used by
//! the service.

use std::time::Duration;

use aot_proto::limits::MIN_RECONNECT_SPREAD;

use crate::backoff::Backoff;
use crate::session::protocol::Closed;

/// Longest wait that a master may ask for before the next connection.
const MOST_AWAY: Duration = Duration::from_secs(300);

/// Longest wait for the first try after a broken session.
const AT_ONCE: Duration = MIN_RECONNECT_SPREAD;

/// A session that is over.
#[derive(Debug)]
pub struct EndedSession<'a> {
    /// Why it is over.
    pub why: &'a Closed,
    /// What its master asked for; `None` when there was no welcome.
    pub spread: Option<Duration>,
    /// From the call on.
    pub lasted: Duration,
}

/// What the waits so far mean for the next one.
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    /// What the master of the session that broke asked for: waited for when the next try fails.
    spread: Option<Duration>,
}

impl Reconnect {
    /// `backoff` is of the tries that fail one after the other.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            spread: None,
        }
    }

    /// Whether the next try goes to the master of the last session alone.
    pub fn is_to_the_same(&self) -> bool {
        self.spread.is_some()
    }

    /// A master has let a session begin.
    pub fn welcomed(&mut self) {
        self.backoff.reset();
        self.spread = None;
    }

    /// The wait after a try that no master welcomed. `unit` gives random numbers in [0, 1).
    pub fn after_failure(&mut self, mut unit: impl FnMut() -> f64) -> Duration {
        match self.spread.take() {
            Some(spread) => spread.mul_f64(unit()),
            None => self.backoff.next(unit()),
        }
    }

    /// The wait after a session. One that broke sooner than the time that its agents spread over is followed by all of the
    /// spread: a master that welcomes and breaks off is not dialled in a loop.
    pub fn after_session(
        &mut self,
        ended: &EndedSession<'_>,
        mut unit: impl FnMut() -> f64,
    ) -> Duration {
        match (ended.why, ended.spread) {
            (Closed::Stopping | Closed::Reboot, _) => Duration::ZERO,
            (Closed::ByMaster { within, .. }, spread) => {
                let spread = spread.or(self.spread.take()).unwrap_or_default();
                let within = (*within).min(MOST_AWAY).max(spread);
                let wait = within.mul_f64(unit());
                wait.max(self.backoff.next(unit()).min(within))
            }
            (_, Some(spread)) if ended.lasted >= spread => {
                self.spread = Some(spread);
                AT_ONCE.mul_f64(unit())
            }
            (_, Some(spread)) => spread.mul_f64(unit()),
            (_, None) => self.after_failure(unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn by_master(within: Duration) -> Closed {
        Closed::ByMaster {
            reason: String::new(),
            within,
        }
    }

    fn broken() -> Closed {
        Closed::Broken("cut".into())
    }

    fn reconnect() -> Reconnect {
        Reconnect::new(Backoff::new(S, 30 * S))
    }

    #[test]
    fn the_first_try_after_a_cut_is_at_once_and_the_next_waits_for_a_part_of_the_spread() {
        // Why it ended, what its master asked for, how long it lasted; the wait, and the one when the try fails.
        for (why, spread, lasted, wanted, then) in [
            (broken(), Some(10 * S), 60 * S, AT_ONCE / 2, 5 * S),
            (Closed::Silent, Some(10 * S), 10 * S, AT_ONCE / 2, 5 * S),
            (broken(), Some(AT_ONCE), S, AT_ONCE / 2, AT_ONCE / 2),
            // It had hardly begun.
            (broken(), Some(10 * S), 9 * S, 5 * S, S / 2),
            // Without a welcome: the growing waits of all tries.
            (broken(), None, 60 * S, S / 2, S),
            (Closed::Refused("no".into()), None, S, S / 2, S),
            // The master knows when it wants them back.
            (by_master(2 * S), Some(S / 5), 60 * S, S, S),
            (by_master(2 * S), Some(15 * S), 60 * S, 15 * S / 2, S),
            (by_master(30 * S), None, 60 * S, 15 * S, S),
            (by_master(Duration::MAX), Some(S), S, MOST_AWAY / 2, S),
            (by_master(Duration::ZERO), None, S, Duration::ZERO, S),
            (Closed::Stopping, Some(S), 60 * S, Duration::ZERO, S / 2),
            (Closed::Reboot, Some(S), 60 * S, Duration::ZERO, S / 2),
        ] {
            let mut reconnect = reconnect();
            let why = &why;
            let ended = EndedSession {
                why,
                spread,
                lasted,
            };
            if spread.is_some() {
                reconnect.welcomed();
            }
            let waited = reconnect.after_session(&ended, || 0.5);
            assert_eq!(waited, wanted, "{ended:?}");
            let at_once = spread.is_some() && wanted == AT_ONCE / 2;
            assert_eq!(reconnect.is_to_the_same(), at_once, "{ended:?}");
            assert_eq!(reconnect.after_failure(|| 0.5), then, "{ended:?}");
            assert!(!reconnect.is_to_the_same(), "it is told once: {ended:?}");
        }
    }

    #[test]
    fn a_try_that_reaches_no_welcome_is_followed_by_the_spread_of_the_session_before() {
        for (why, wanted) in [
            (broken(), 5 * S),
            (Closed::Silent, 5 * S),
            (by_master(2 * S), 5 * S),
            (by_master(30 * S), 15 * S),
        ] {
            let mut reconnect = reconnect();
            let cut = EndedSession {
                why: &broken(),
                spread: Some(10 * S),
                lasted: 60 * S,
            };
            reconnect.after_session(&cut, || 0.5);
            let refused = EndedSession {
                why: &why,
                spread: None,
                lasted: S,
            };
            let waited = reconnect.after_session(&refused, || 0.5);
            assert_eq!(waited, wanted, "{why:?}");
            assert!(!reconnect.is_to_the_same());
        }
    }

    #[test]
    fn a_welcome_ends_what_was_before() {
        let mut reconnect = reconnect();
        let cut = EndedSession {
            why: &broken(),
            spread: Some(10 * S),
            lasted: 60 * S,
        };
        reconnect.after_failure(|| 0.5);
        reconnect.after_session(&cut, || 0.5);
        reconnect.welcomed();
        assert!(!reconnect.is_to_the_same());
        assert_eq!(reconnect.after_failure(|| 0.5), S / 2);
    }

    #[test]
    fn a_master_that_always_says_goodbye_is_not_dialled_in_a_loop() {
        let mut reconnect = reconnect();
        let why = by_master(60 * S);
        let away = EndedSession {
            why: &why,
            spread: None,
            lasted: S,
        };
        let mut units = [0.0, 0.5].into_iter().cycle();
        let waits = (0..3).map(|_| reconnect.after_session(&away, || units.next().unwrap()));
        assert_eq!(waits.collect::<Vec<_>>(), [S / 2, S, 2 * S]);
    }
}
