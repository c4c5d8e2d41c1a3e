//! A pace as it is asked for, before it is known how many it is for: numbers, percentages, and what is left unsaid. Pure.

use aot_proto::v1;
use serde::{Deserialize, Serialize};

use super::{BadPace, Pace};

/// A number, or a part of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// This many.
    Count(usize),
    /// This many of a hundred.
    Percent(usize),
}

impl Amount {
    /// `2`, `25%`; not `0`.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn at_a_time(text: &str) -> Result<Self, BadPace> {
        match number(text) {
            Some(Self::Count(0) | Self::Percent(0)) | None => Err(bad("concurrency", text, false)),
            Some(amount) => Ok(amount),
        }
    }

    /// `0`, `25%`.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn errors(text: &str) -> Result<Self, BadPace> {
        number(text).ok_or_else(|| bad("max-errors", text, true))
    }

    /// How many of `all` that is, rounded up, and never none.
    pub(super) fn at_least_one_of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (all * percent).div_ceil(100).max(1),
        }
    }

    /// How many of `all` that is, rounded down.
    pub(super) fn at_most_of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => all * percent / 100,
        }
    }
}

/// How instances that are ready are changed, as a file or an operator says it. Nothing said: all at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PacePolicy {
    /// At most this many at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Amount>,
    /// Nobody else has a turn after more than this many have not come through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<Amount>,
    /// The first N go alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u32>,
    /// Milliseconds between two batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_wait_ms: Option<u64>,
}

impl PacePolicy {
    /// As an operator says it.
    ///
    /// # Errors
    /// When an amount is neither a number nor a percentage.
    pub fn read(wire: &v1::UpdatePace) -> Result<Self, BadPace> {
        let concurrency = wire.concurrency.as_deref().map(Amount::at_a_time);
        let max_errors = wire.max_errors.as_deref().map(Amount::errors);
        Ok(Self {
            concurrency: concurrency.transpose()?,
            max_errors: max_errors.transpose()?,
            canary: wire.canary,
            batch_wait_ms: wire.batch_wait_ms,
        })
    }

    /// Nothing is said: no pace is kept.
    pub fn is_unsaid(&self) -> bool {
        *self == Self::default()
    }

    /// Whether not all go at once.
    pub fn is_paced(&self) -> bool {
        aot_proto::pace::is_paced(self.concurrency.as_ref(), self.canary)
    }

    /// What is said here, and else what `other` says.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self {
            concurrency: self.concurrency.or(other.concurrency),
            max_errors: self.max_errors.or(other.max_errors),
            canary: self.canary.or(other.canary),
            batch_wait_ms: self.batch_wait_ms.or(other.batch_wait_ms),
        }
    }

    /// For a pool of this many. Where no errors are allowed by name, none are.
    pub fn of(&self, size: usize) -> Pace {
        Pace {
            concurrency: self.concurrency.map(|it| it.at_least_one_of(size)),
            max_errors: Some(self.max_errors.map_or(0, |it| it.at_most_of(size))),
            canary: self.canary.unwrap_or_default() as usize,
            batch_wait_ms: self.batch_wait_ms.unwrap_or_default(),
        }
    }
}

fn number(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| *percent <= 100)
            .map(Amount::Percent),
        None => text.parse().ok().map(Amount::Count),
    }
}

fn bad(what: &'static str, text: &str, zero: bool) -> BadPace {
    BadPace {
        what,
        text: text.to_owned(),
        zero,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_says_goes_before_what_the_file_says() {
        let file = PacePolicy {
            concurrency: Some(Amount::Percent(25)),
            canary: Some(1),
            ..PacePolicy::default()
        };
        let said = PacePolicy {
            concurrency: Some(Amount::Count(5)),
            max_errors: Some(Amount::Percent(10)),
            ..PacePolicy::default()
        };
        assert!(PacePolicy::default().is_unsaid() && !file.is_unsaid());
        assert_eq!(PacePolicy::default().over(&file), file);
        let both = said.over(&file);
        assert_eq!(
            both.of(20),
            Pace {
                concurrency: Some(5),
                max_errors: Some(2),
                canary: 1,
                batch_wait_ms: 0,
            }
        );
        assert_eq!(file.of(3).concurrency, Some(1), "never none");
        assert_eq!(
            file.of(3).max_errors,
            Some(0),
            "none, unless some are allowed"
        );
    }

    #[test]
    fn errors_that_are_allowed_are_no_pace() {
        let mut policy = PacePolicy {
            max_errors: Some(Amount::Count(1)),
            ..PacePolicy::default()
        };
        assert!(!policy.is_paced());
        policy.canary = Some(1);
        assert!(policy.is_paced());
    }

    #[test]
    fn a_record_of_before_says_nothing() {
        let none: PacePolicy = serde_json::from_str("{}").expect("reads");
        assert!(none.is_unsaid());
        assert_eq!(serde_json::to_string(&none).expect("writes"), "{}");
    }
}
