//! When a running process is to be stopped, and when its run is over. Pure: the supervisor asks, and does what
//! it is answered.

use std::time::{Duration, Instant};

use aot_proto::v1::EndKind;

/// From TERM to KILL, unless the cancellation says otherwise.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long open pipes are waited for after the process has ended.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Between two KILLs: a process may fork while it is being killed.
const KILL_AGAIN: Duration = Duration::from_millis(100);
/// A tree that outlives this many KILLs is stuck in the kernel.
const MOST_KILLS: u32 = 100;

/// What the shim is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// TERM to the whole tree.
    Terminate,
    /// KILL to the whole tree.
    Kill,
    /// Write the end record.
    Finish,
}

#[derive(Debug, Clone, Copy)]
enum StopPhase {
    Running,
    Stopping {
        kind: EndKind,
        kill_at: Instant,
        kills: u32,
    },
}

/// Deadlines and the state of one process tree.
#[derive(Debug)]
pub(crate) struct StopPolicy {
    phase: StopPhase,
    deadline: Option<Instant>,
    silence: Option<Duration>,
    last_output: Instant,
    main_ended: Option<Instant>,
    tree_empty: Option<Instant>,
    pipes_closed: bool,
}

impl StopPolicy {
    /// The process was started at `now`; zero durations mean no limit.
    pub(crate) fn new(now: Instant, timeout: Duration, silence: Duration) -> Self {
        Self {
            phase: StopPhase::Running,
            deadline: (!timeout.is_zero()).then(|| now + timeout),
            silence: (!silence.is_zero()).then_some(silence),
            last_output: now,
            main_ended: None,
            tree_empty: None,
            pipes_closed: false,
        }
    }

    /// It printed something.
    pub(crate) fn output(&mut self, now: Instant) {
        self.last_output = now;
    }

    /// Both pipes are at their end.
    pub(crate) fn pipes_closed(&mut self) {
        self.pipes_closed = true;
    }

    /// The process itself has ended.
    pub(crate) fn main_ended(&mut self, now: Instant) {
        self.main_ended.get_or_insert(now);
    }

    /// No process of the tree is left.
    pub(crate) fn tree_empty(&mut self, now: Instant) {
        self.tree_empty.get_or_insert(now);
    }

    /// Asked to stop it. A process that has ended keeps its own end; one that is being stopped already is killed sooner,
    /// never later, than was asked for before.
    pub(crate) fn cancel(&mut self, now: Instant, grace: Duration) -> Option<Act> {
        if let StopPhase::Stopping { kill_at, .. } = &mut self.phase {
            *kill_at = (*kill_at).min(now + grace);
        }
        self.stop(EndKind::Cancelled, now, grace)
    }

    /// It was killed as often as it makes sense, and something still lives.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.phase, StopPhase::Stopping { kills, .. } if kills == MOST_KILLS)
            && self.tree_empty.is_none()
    }

    /// Why it was stopped; `None` when it ended by itself.
    pub(crate) fn stopped(&self) -> Option<EndKind> {
        match self.phase {
            StopPhase::Running => None,
            StopPhase::Stopping { kind, .. } => Some(kind),
        }
    }

    /// Whether nothing is left of it: no process, and nothing that holds its output open.
    pub(crate) fn left_nothing(&self) -> bool {
        self.tree_empty.is_some() && self.pipes_closed
    }

    /// Whether something outlived the process and kept its output open.
    pub(crate) fn leaked(&self) -> bool {
        !self.pipes_closed
    }

    fn stop(&mut self, kind: EndKind, now: Instant, grace: Duration) -> Option<Act> {
        if self.main_ended.is_some() || self.stopped().is_some() {
            return None;
        }
        self.phase = StopPhase::Stopping {
            kind,
            kill_at: now + grace,
            kills: 0,
        };
        Some(Act::Terminate)
    }

    /// What to do at `now`; to be called again until there is nothing.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Act> {
        match self.phase {
            StopPhase::Running if self.main_ended.is_some() => self.drained(self.main_ended, now),
            StopPhase::Running if self.deadline.is_some_and(|at| now >= at) => {
                self.stop(EndKind::TimedOut, now, GRACE)
            }
            StopPhase::Running if self.silent_at().is_some_and(|at| now >= at) => {
                self.stop(EndKind::Silent, now, GRACE)
            }
            StopPhase::Running => None,
            StopPhase::Stopping { .. } if self.tree_empty.is_some() => {
                self.drained(self.tree_empty, now)
            }
            StopPhase::Stopping {
                kind,
                kill_at,
                kills,
            } if now >= kill_at => {
                if kills == MOST_KILLS {
                    return Some(Act::Finish);
                }
                self.phase = StopPhase::Stopping {
                    kind,
                    kill_at: now + KILL_AGAIN,
                    kills: kills + 1,
                };
                Some(Act::Kill)
            }
            StopPhase::Stopping { .. } => None,
        }
    }

    fn drained(&self, since: Option<Instant>, now: Instant) -> Option<Act> {
        (self.pipes_closed || since.is_some_and(|since| now >= since + DRAIN))
            .then_some(Act::Finish)
    }

    fn silent_at(&self) -> Option<Instant> {
        self.silence.map(|silence| self.last_output + silence)
    }

    /// When [`StopPolicy::step`] must be asked at the latest.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            StopPhase::Running => match self.main_ended {
                Some(since) => Some(since + DRAIN),
                None => [self.deadline, self.silent_at()]
                    .into_iter()
                    .flatten()
                    .min(),
            },
            StopPhase::Stopping { kill_at, .. } => {
                Some(self.tree_empty.map_or(kill_at, |since| since + DRAIN))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn an_end_with_closed_pipes_is_the_end() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, Duration::ZERO, Duration::ZERO);
        assert_eq!((policy.step(t + 1000 * S), policy.wake_at()), (None, None));
        policy.main_ended(t + S);
        assert_eq!(policy.step(t + S), None, "its pipes are still open");
        assert_eq!(policy.wake_at(), Some(t + S + DRAIN));
        policy.pipes_closed();
        assert_eq!(policy.step(t + S), Some(Act::Finish));
        assert_eq!((policy.stopped(), policy.leaked()), (None, false));
        assert!(!policy.left_nothing(), "a daemon may be there");
        policy.tree_empty(t + S);
        assert!(policy.left_nothing());
    }

    #[test]
    fn pipes_that_stay_open_are_waited_for_and_no_longer() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, 2 * S, Duration::ZERO);
        policy.main_ended(t + S);
        assert_eq!(
            policy.step(t + S + DRAIN - S),
            None,
            "the timeout is over, but so is the process"
        );
        assert_eq!(policy.step(t + S + DRAIN), Some(Act::Finish));
        assert!(policy.leaked());
    }

    #[test]
    fn a_timeout_terminates_then_kills_until_nothing_is_left() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, 2 * S, Duration::ZERO);
        assert_eq!(policy.wake_at(), Some(t + 2 * S));
        assert_eq!(policy.step(t + 2 * S), Some(Act::Terminate));
        assert_eq!(policy.step(t + 3 * S), None);
        policy.main_ended(t + 4 * S);
        assert_eq!(
            policy.step(t + 4 * S),
            None,
            "others of its tree are still there"
        );
        assert_eq!(policy.step(t + 2 * S + GRACE), Some(Act::Kill));
        assert_eq!(policy.step(t + 2 * S + GRACE), None);
        assert_eq!(
            policy.step(t + 3 * S + GRACE),
            Some(Act::Kill),
            "one forked meanwhile"
        );
        policy.tree_empty(t + 4 * S + GRACE);
        policy.pipes_closed();
        assert_eq!(policy.step(t + 4 * S + GRACE), Some(Act::Finish));
        assert_eq!(policy.stopped(), Some(EndKind::TimedOut));
    }

    #[test]
    fn silence_counts_from_the_last_output() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, Duration::ZERO, 3 * S);
        policy.output(t + 2 * S);
        assert_eq!(policy.step(t + 4 * S), None);
        assert_eq!(policy.step(t + 5 * S), Some(Act::Terminate));
        assert_eq!(policy.stopped(), Some(EndKind::Silent));
        assert_eq!(
            policy.cancel(t + 5 * S, S),
            None,
            "it is being stopped already"
        );
    }

    #[test]
    fn a_second_cancellation_can_only_hasten_the_end() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, Duration::ZERO, Duration::ZERO);
        assert_eq!(policy.cancel(t, 60 * S), Some(Act::Terminate));
        assert_eq!(policy.cancel(t + S, 90 * S), None, "one TERM is enough");
        assert_eq!(policy.wake_at(), Some(t + 60 * S));
        assert_eq!(policy.cancel(t + S, S), None);
        assert_eq!(
            (policy.step(t + S), policy.wake_at()),
            (None, Some(t + 2 * S))
        );
        assert_eq!(policy.step(t + 2 * S), Some(Act::Kill));
        assert_eq!(policy.stopped(), Some(EndKind::Cancelled));
        let mut policy = StopPolicy::new(t, S, Duration::ZERO);
        assert_eq!(policy.step(t + S), Some(Act::Terminate));
        assert_eq!(policy.cancel(t + S, Duration::ZERO), None);
        assert_eq!(
            policy.step(t + S),
            Some(Act::Kill),
            "also of what had its time"
        );
        assert_eq!(policy.stopped(), Some(EndKind::TimedOut));
    }

    #[test]
    fn a_cancellation_after_the_end_changes_nothing() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, Duration::ZERO, Duration::ZERO);
        policy.main_ended(t);
        assert_eq!(policy.cancel(t, S), None);
        assert_eq!(policy.stopped(), None);
    }

    #[test]
    fn a_tree_that_cannot_be_killed_does_not_hold_the_shim_for_ever() {
        let t = Instant::now();
        let mut policy = StopPolicy::new(t, Duration::ZERO, Duration::ZERO);
        assert_eq!(policy.cancel(t, Duration::ZERO), Some(Act::Terminate));
        let mut now = t;
        let kills = std::iter::from_fn(|| {
            now += KILL_AGAIN;
            policy.step(now)
        })
        .take_while(|act| *act == Act::Kill)
        .count();
        assert_eq!(kills, MOST_KILLS as usize);
        assert!(policy.gave_up());
        policy.tree_empty(now);
        assert!(!policy.gave_up(), "it died after all");
    }
}
