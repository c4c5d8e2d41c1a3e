//! Runs that should have ended, by the limits that their agent was given, and of which a connected agent says nothing.
//! The agent enforces those limits; this is for one that does not, or that has lost the run without knowing, and so it
//! comes thirty seconds later than the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_proto::ids::RunId;
use aot_proto::v1::{self, EndKind};

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use crate::run::{Run, RunKind};
use crate::task::Task;
use crate::unix_ms::UnixMs;

/// Between TERM and KILL, where nobody says otherwise, as agents have it.
const GRACE_MS: u64 = 10_000;
/// What follows on the agent at most: KILLs (10 s), open pipes (5 s); and the way here.
const AFTERWARDS_MS: u64 = 20_000;
/// When a run is first measured, to learn when it began.
const FIRST_MS: u64 = 5_000;
/// At least this long between two measurements, and nothing of it came meanwhile.
const QUIET_MS: u64 = 15_000;
/// What a run may need before its first output: a large bundle over a slow link, behind others.
const PREPARING_MS: u64 = 3_600_000;
/// What a long output may need to come here once the run has ended.
const DELIVERING_MS: u64 = 3_600_000;

/// How much of a run was here when it was last measured. Not stored: after a restart it begins anew.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Check {
    checked_ms: UnixMs,
    /// Bytes of its spool that were here, and since when just these.
    seen: Option<(u64, UnixMs)>,
    /// When bytes of it were first seen: it had begun by then.
    began_ms: Option<UnixMs>,
}

/// The limits that a run was given; 0 = none.
#[derive(Debug, Clone, Copy, Default)]
struct RunLimits {
    timeout_ms: u64,
    silence_ms: u64,
    /// When someone asked for its end, and the time between TERM and KILL.
    cancelled: Option<(UnixMs, u64)>,
}

impl RunLimits {
    fn are_none(self) -> bool {
        self.timeout_ms == 0 && self.silence_ms == 0 && self.cancelled.is_none()
    }

    /// When one that was cancelled has ended, and said so.
    fn cancelled_ends(self) -> Option<UnixMs> {
        let (at, grace) = self.cancelled?;
        Some(
            at.saturating_add(grace.max(GRACE_MS))
                .saturating_add(AFTERWARDS_MS),
        )
    }
}

impl Check {
    /// Not before this time need it be measured again.
    fn next_ms(self, asked: UnixMs, limits: RunLimits) -> UnixMs {
        let after = GRACE_MS + AFTERWARDS_MS;
        let limit =
            |from: UnixMs, ms: u64| (ms > 0).then(|| from.saturating_add(ms).saturating_add(after));
        let (since, began) = (self.seen.map(|(_, since)| since), self.began_ms);
        let own = match (began, since) {
            (Some(began), Some(since)) => [
                limit(began, limits.timeout_ms),
                limit(since, limits.silence_ms),
            ],
            // When it begins is to be known, where that counts.
            _ if limits.timeout_ms > 0 || limits.silence_ms > 0 => {
                [Some(asked.saturating_add(FIRST_MS)), None]
            }
            _ => [None, None],
        };
        let ends = own.into_iter().chain([limits.cancelled_ends()]).flatten();
        let quiet = self.checked_ms.saturating_add(QUIET_MS);
        ends.min().map_or(UnixMs::MAX, |ends| ends.max(quiet))
    }

    /// This much is here now.
    fn measured(&mut self, bytes: u64, now: UnixMs) {
        let since = match self.seen {
            Some((before, since)) if before == bytes => since,
            _ => now,
        };
        self.seen = Some((bytes, since));
        if bytes > 0 {
            self.began_ms.get_or_insert(now);
        }
    }

    /// Which limit it is long past, with nothing of it having come for a while.
    fn overdue(self, asked: UnixMs, limits: RunLimits, now: UnixMs) -> Option<EndKind> {
        let (_, since) = self.seen?;
        let quiet = now.saturating_sub(since);
        let is_past = |ends: UnixMs| now >= ends && quiet >= QUIET_MS;
        if limits.cancelled_ends().is_some_and(is_past) {
            return Some(EndKind::Cancelled);
        }
        let after = GRACE_MS + AFTERWARDS_MS;
        let Some(began) = self.began_ms else {
            let longest = limits.timeout_ms.max(limits.silence_ms);
            let ends = asked.saturating_add(longest).saturating_add(PREPARING_MS);
            return (longest > 0 && now >= ends).then_some(EndKind::TimedOut);
        };
        let ends = began
            .saturating_add(limits.timeout_ms)
            .saturating_add(after);
        let endless = now >= ends.saturating_add(DELIVERING_MS);
        if limits.timeout_ms > 0 && (is_past(ends) || endless) {
            return Some(EndKind::TimedOut);
        }
        let silent = limits.silence_ms > 0 && quiet >= limits.silence_ms.saturating_add(after);
        silent.then_some(EndKind::Silent)
    }
}

impl World {
    /// Asks how much is here of runs that should have ended by now.
    pub(super) fn measure_overdue(&mut self) {
        let now = self.now;
        let mut checks: BTreeMap<RunId, Check> = BTreeMap::new();
        for run in self.runs.values() {
            let limits = self.limits(run);
            if limits.are_none() {
                continue;
            }
            let mut check = self.checks.get(&run.id).copied().unwrap_or_default();
            if self.instance(&run.at).is_none_or(|i| i.session.is_none()) {
                // What is on its way can't come now, and may come soon after.
                check.checked_ms = now;
                check.seen = None;
            } else if now >= check.next_ms(run.asked_ms, limits) {
                check.checked_ms = now;
                self.effects.push(Effect::Measure { run: run.id });
            }
            checks.insert(run.id, check);
        }
        self.checks = checks;
    }

    fn limits(&self, run: &Run) -> RunLimits {
        let ms = |time: Option<Duration>| {
            time.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX))
        };
        let mut limits = RunLimits::default();
        match &run.what {
            RunKind::Stage { index, .. } => {
                let stage = self.instance(&run.at).and_then(|i| i.stages.get(*index));
                if let Some(stage) = stage.filter(|stage| stage.run == Some(run.id)) {
                    limits.timeout_ms = ms(stage.plan.timeout);
                    limits.silence_ms = ms(stage.plan.silence_timeout);
                }
            }
            RunKind::Health { timeout_ms, .. } => limits.timeout_ms = *timeout_ms,
            RunKind::Task => {
                let job = self.jobs.get(&run.job);
                if let Some(Task::Command(exec)) = job.and_then(|job| job.task.as_deref()) {
                    limits.timeout_ms = exec.timeout_ms;
                }
            }
        }
        limits.cancelled = run.cancel.map(|grace| (run.cancelled_ms, grace));
        limits
    }

    /// This many bytes of a run are here.
    pub(super) fn measured(&mut self, id: RunId, bytes: u64) -> Answer {
        let now = self.now;
        let Some(run) = self.runs.get(&id) else {
            return Answer::Ack;
        };
        let (asked, limits) = (run.asked_ms, self.limits(run));
        let Some(check) = self.checks.get_mut(&id) else {
            return Answer::Ack;
        };
        check.measured(bytes, now);
        if let Some(kind) = check.overdue(asked, limits, now) {
            self.end_overdue(id, kind);
        }
        Answer::Ack
    }

    fn end_overdue(&mut self, id: RunId, kind: EndKind) {
        self.checks.remove(&id);
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        let (at, asked) = (run.at.clone(), run.asked_ms);
        if let Some(session) = self.instance(&at).and_then(|i| i.session) {
            self.send_cancel(&at, session, id, 0);
        }
        let ended = v1::Ended {
            kind: kind.into(),
            detail: "its agent is connected and does not report how it ended".to_owned(),
            wall_ms: self.now.saturating_sub(asked),
            ..v1::Ended::default()
        };
        self.run_ended(id, &ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000;

    /// When everything begins.
    const START: u64 = 1_000 * S;

    /// Looks from the start on, where so much is here at each second; when, and as what, it is given up.
    fn given_up(limits: RunLimits, here: impl Fn(u64) -> u64) -> Option<(u64, EndKind)> {
        let mut check = Check::default();
        (0..20_000).find_map(|second| {
            let now = START + second * S;
            if now < check.next_ms(START, limits) {
                return None;
            }
            check.checked_ms = now;
            check.measured(here(second), now);
            Some((second, check.overdue(START, limits, now)?))
        })
    }

    const TIMEOUT: RunLimits = RunLimits {
        timeout_ms: 60 * S,
        silence_ms: 0,
        cancelled: None,
    };
    const SILENCE: RunLimits = RunLimits {
        timeout_ms: 0,
        silence_ms: 60 * S,
        cancelled: None,
    };

    #[test]
    fn a_run_of_which_nothing_comes_past_its_limit_is_given_up() {
        let begun = |_| 10;
        assert_eq!(given_up(TIMEOUT, begun), Some((95, EndKind::TimedOut)));
        assert_eq!(given_up(SILENCE, begun), Some((95, EndKind::Silent)));
        let cancelled = RunLimits {
            cancelled: Some((START + 100 * S, 0)),
            ..RunLimits::default()
        };
        let (at, kind) = given_up(cancelled, begun).expect("it ends");
        assert!(
            (130..150).contains(&at) && kind == EndKind::Cancelled,
            "{at}"
        );
        assert_eq!(given_up(RunLimits::default(), begun), None, "no limit");
    }

    #[test]
    fn what_still_comes_is_waited_for_but_not_for_ever() {
        // It ends in time, and an hour of output is on its way.
        let slow = |second: u64| second.min(600) * 1000;
        let (at, _) = given_up(TIMEOUT, slow).expect("its end never comes");
        assert!((615..640).contains(&at), "{at}");
        let (at, kind) = given_up(TIMEOUT, |second| second).expect("it never stops");
        assert!(
            (3_600..3_800).contains(&at) && kind == EndKind::TimedOut,
            "{at}"
        );
        // What prints is not silent, for as long as it likes.
        assert_eq!(given_up(SILENCE, |second| second), None);
    }

    #[test]
    fn a_run_that_begins_late_has_its_whole_time() {
        let late = |second: u64| u64::from(second >= 1_000);
        let (at, _) = given_up(TIMEOUT, late).expect("it ends");
        assert!((1_090..1_120).contains(&at), "{at}");
        let (at, _) = given_up(TIMEOUT, |_| 0).expect("it never begins");
        assert!((3_660..3_700).contains(&at), "{at}");
    }
}
