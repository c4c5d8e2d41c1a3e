//! How a job goes over its targets: how many at a time, when to stop, whom to try first. Asked by `world` after every
//! end of a target. Pure.

mod policy;

use serde::{Deserialize, Serialize};

pub use policy::{Amount, PacePolicy};

use super::unix_ms::UnixMs;

/// As the operator asked, with percentages resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// At most this many at a time; `None` = all at once.
    pub concurrency: Option<usize>,
    /// After more than this many have not succeeded, nothing more is started; `None` = never.
    pub max_errors: Option<usize>,
    /// The first N run alone; the rest only if all of them succeed; 0 = none.
    pub canary: usize,
    /// Milliseconds between the end of one batch of `concurrency` and the start of the next.
    pub batch_wait_ms: u64,
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is neither a number{} nor a percentage like 25%", if *.zero { "" } else { " from 1 on" })]
pub struct BadPace {
    /// `concurrency` or `max-errors`.
    pub what: &'static str,
    /// As given.
    pub text: String,
    zero: bool,
}

impl Pace {
    /// From the texts of the wire, for this many targets. A percentage is rounded up for `concurrency` (never to none) and
    /// down for `max_errors`.
    ///
    /// # Errors
    /// When a text is neither a number nor a percentage, or `concurrency` is 0.
    pub fn resolve(wire: &aot_proto::v1::Pace, targets: usize) -> Result<Self, BadPace> {
        let concurrency = wire.concurrency.as_deref().map(Amount::at_a_time);
        let max_errors = wire.max_errors.as_deref().map(Amount::errors);
        Ok(Self {
            concurrency: concurrency
                .transpose()?
                .map(|it| it.at_least_one_of(targets)),
            max_errors: max_errors.transpose()?.map(|it| it.at_most_of(targets)),
            canary: wire.canary as usize,
            batch_wait_ms: wire.batch_wait_ms,
        })
    }

    /// What comes next.
    pub fn next(&self, so_far: &SoFar, now: UnixMs) -> PaceStep {
        if so_far.waiting == 0 {
            return PaceStep::Wait;
        }
        let in_canary = so_far.started < self.canary;
        let canaries_out = self.canary > 0 && so_far.started == self.canary;
        if canaries_out || in_canary {
            if so_far.failed > 0 {
                return PaceStep::Stop("a canary did not succeed".to_owned());
            }
            if canaries_out && so_far.running > 0 {
                return PaceStep::Wait;
            }
        }
        if let Some(most) = self.max_errors
            && so_far.failed > most
        {
            return PaceStep::Stop(format!(
                "{} did not succeed, more than --max-errors {most}",
                so_far.failed
            ));
        }
        let room = match self.concurrency {
            _ if in_canary => (self.canary - so_far.started).min(
                self.concurrency
                    .unwrap_or(usize::MAX)
                    .saturating_sub(so_far.running),
            ),
            None => so_far.waiting,
            Some(most) if self.batch_wait_ms == 0 => most.saturating_sub(so_far.running),
            Some(_) if so_far.running > 0 => 0, // batch by batch
            Some(most) => most,
        };
        let begun = so_far.started > 0 && self.batch_wait_ms > 0 && so_far.running == 0;
        let due = so_far.batch_ended_ms.saturating_add(self.batch_wait_ms);
        if begun && now < due {
            return PaceStep::Wait;
        }
        match room.min(so_far.waiting) {
            0 => PaceStep::Wait,
            count => PaceStep::Start(count),
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoFar {
    /// Targets that have not been given it.
    pub waiting: usize,
    /// Given it, and not ended.
    pub running: usize,
    /// Given it, ended or not.
    pub started: usize,
    /// Ended in any way but well.
    pub failed: usize,
    /// When the last of a batch ended.
    pub batch_ended_ms: UnixMs,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaceStep {
    /// Give it to this many more; at least one.
    Start(usize),
    /// Nothing now.
    Wait,
    /// Nothing more, ever, and why.
    Stop(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::v1;
    use proptest::prelude::*;

    /// `-` stands for what was not given.
    fn wire(concurrency: &str, max_errors: &str) -> v1::Pace {
        let given = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
        v1::Pace {
            concurrency: given(concurrency),
            max_errors: given(max_errors),
            ..v1::Pace::default()
        }
    }

    #[test]
    fn percentages_are_of_the_targets_and_never_none_at_a_time() {
        let table = [
            ("-", "-", None, None),
            ("3", "0", Some(3), Some(0)),
            ("25%", "25%", Some(3), Some(2)),
            ("1%", "1%", Some(1), Some(0)),
            ("100%", "100%", Some(10), Some(10)),
        ];
        for (concurrency, max_errors, most, errors) in table {
            let pace = Pace::resolve(&wire(concurrency, max_errors), 10).expect("is a pace");
            assert_eq!(
                (pace.concurrency, pace.max_errors),
                (most, errors),
                "{concurrency} {max_errors}"
            );
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_by_name() {
        for bad in ["", "0", "0%", "-1", "x", "101%", "5 %", "%"] {
            let error = Pace::resolve(&wire(bad, "-"), 10)
                .expect_err(bad)
                .to_string();
            assert!(
                error.starts_with("concurrency") && error.contains(bad),
                "{error}"
            );
        }
        for bad in ["", "many"] {
            assert!(Pace::resolve(&wire("-", bad), 10).is_err(), "{bad:?}");
        }
    }

    /// A job whose targets end in random order, some of them badly; what was started and how many at most at a time.
    fn play(pace: &Pace, size: usize, ends: &[(usize, bool)]) -> (usize, usize, SoFar, PaceStep) {
        let mut so_far = SoFar {
            waiting: size,
            ..SoFar::default()
        };
        let (mut most, mut first_failure_at, mut now) = (0, usize::MAX, 0);
        let mut ends = ends.iter();
        loop {
            let step = pace.next(&so_far, now);
            match step {
                PaceStep::Start(count) => {
                    so_far.waiting -= count;
                    so_far.started += count;
                    so_far.running += count;
                    most = most.max(so_far.running);
                }
                PaceStep::Stop(_) => return (most, first_failure_at, so_far, step),
                PaceStep::Wait if so_far.running > 0 => {
                    let well = ends.next().is_none_or(|(_, well)| *well);
                    so_far.running -= 1;
                    if !well {
                        so_far.failed += 1;
                        first_failure_at = first_failure_at.min(so_far.started);
                    }
                    if so_far.running == 0 {
                        so_far.batch_ended_ms = now;
                    }
                }
                PaceStep::Wait if so_far.waiting == 0 => {
                    return (most, first_failure_at, so_far, step);
                }
                PaceStep::Wait => now += 1,
            }
        }
    }

    proptest! {
        /// Never more at a time than asked for; after a canary's failure nothing but canaries; never many more errors
        /// than allowed; and it always comes to an end.
        #[test]
        fn a_pace_is_kept(
            size in 1usize..40,
            concurrency in prop::option::of(1usize..10),
            max_errors in prop::option::of(0usize..10),
            canary in 0usize..10,
            batch_wait_ms in 0u64..5,
            ends in prop::collection::vec((0usize..4, prop::bool::weighted(0.7)), 0..60),
        ) {
            let pace = Pace { concurrency, max_errors, canary, batch_wait_ms };
            let (most, first_failure_at, so_far, last) = play(&pace, size, &ends);
            prop_assert!(most <= concurrency.unwrap_or(usize::MAX));
            if first_failure_at < canary {
                prop_assert!(so_far.started <= canary);
            }
            if let Some(allowed) = max_errors {
                prop_assert!(so_far.failed <= allowed + concurrency.unwrap_or(size).max(1));
            }
            match last {
                PaceStep::Stop(_) => prop_assert!(so_far.failed > 0 && so_far.waiting > 0),
                _ => prop_assert_eq!(so_far.started, size),
            }
        }
    }
}
