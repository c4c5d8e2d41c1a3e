//! How long to wait after a session before the next one is tried. All agents of a master lose it in the same moment: each
//! waits for a random part of what that master asked for in its welcome. Pure; used by the service.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::session::protocol::Closed;

/// Longest wait that a master may ask for before the next connection.
const MOST_AWAY: Duration = Duration::from_secs(300);

/// The wait after a session that ended so. `spread`: what its master asked for, `None` when there was no welcome; `unit`
/// gives random numbers in [0, 1).
pub(crate) fn wait(
    why: &Closed,
    spread: Option<Duration>,
    backoff: &mut Backoff,
    mut unit: impl FnMut() -> f64,
) -> Duration {
    match (why, spread) {
        (Closed::Stopping | Closed::Reboot, _) => Duration::ZERO,
        (Closed::ByMaster { within, .. }, spread) => {
            let within = (*within).min(MOST_AWAY).max(spread.unwrap_or_default());
            let wait = within.mul_f64(unit());
            wait.max(backoff.next(unit()).min(within))
        }
        (_, Some(spread)) => spread.mul_f64(unit()),
        (_, None) => backoff.next(unit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_wait_is_a_random_part_of_the_spread_or_of_what_the_master_asks() {
        let by_master = |within| Closed::ByMaster {
            reason: String::new(),
            within,
        };
        let broken = || Closed::Broken("cut".into());
        for (why, spread, wanted) in [
            (broken(), Some(10 * S), 5 * S),
            (Closed::Silent, Some(10 * S), 5 * S),
            // Without a welcome: the growing waits of all tries.
            (broken(), None, S / 2),
            (Closed::Refused("no".into()), None, S / 2),
            (by_master(2 * S), Some(S / 5), S),
            (by_master(2 * S), Some(60 * S), 30 * S),
            (by_master(30 * S), None, 15 * S),
            (by_master(Duration::MAX), Some(S), MOST_AWAY / 2),
            (by_master(Duration::ZERO), None, Duration::ZERO),
            (Closed::Stopping, Some(S), Duration::ZERO),
        ] {
            let mut backoff = Backoff::new(S, 30 * S);
            let waited = wait(&why, spread, &mut backoff, || 0.5);
            assert_eq!(waited, wanted, "{why:?} {spread:?}");
        }
    }

    #[test]
    fn a_master_that_always_says_goodbye_is_not_dialled_in_a_loop() {
        let mut backoff = Backoff::new(S, 30 * S);
        let away = Closed::ByMaster {
            reason: String::new(),
            within: 60 * S,
        };
        let mut units = [0.0, 0.5].into_iter().cycle();
        let waits = (0..3).map(|_| wait(&away, None, &mut backoff, || units.next().unwrap()));
        assert_eq!(waits.collect::<Vec<_>>(), [S / 2, S, 2 * S]);
    }
}
