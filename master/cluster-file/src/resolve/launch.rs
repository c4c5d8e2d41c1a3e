//! `launch:`.

use std::time::Duration;

use aot_model::spec::{LaunchPolicy, MinReady, OnFailure};

use super::Build;
use crate::raw::RawLaunch;
use crate::read::{Located, Loosely};

/// Unless the file says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A machine that never calls home is not made again for ever.
const MAX_REPLACE: u32 = 10;

impl Build {
    pub(super) fn launch(
        &mut self,
        raw: Option<&Located<RawLaunch>>,
        total: usize,
    ) -> LaunchPolicy {
        let empty = RawLaunch::default();
        let raw = raw.map_or(&empty, |raw| &raw.value);
        let words = [("keep", OnFailure::Keep), ("rollback", OnFailure::Rollback)];
        LaunchPolicy {
            min_ready: raw
                .min_ready
                .as_ref()
                .map_or(MinReady::All, |given| self.min_ready(given, total)),
            on_failure: self
                .one_of(raw.on_failure.as_ref(), &words)
                .unwrap_or(OnFailure::Keep),
            timeout: raw
                .timeout
                .as_ref()
                .map_or(DEFAULT_TIMEOUT, |timeout| timeout.value.0),
            replace: raw.replace.as_ref().map_or(0, |given| self.replace(given)),
        }
    }

    fn replace(&mut self, given: &Located<u32>) -> u32 {
        if given.value > MAX_REPLACE {
            let message = format!("{} is more often than a machine is made again", given.value);
            let problem = given.at.problem(message);
            self.problems
                .push(problem.help(format!("0 to {MAX_REPLACE}")));
        }
        given.value
    }

    fn min_ready(&mut self, given: &Located<Loosely>, total: usize) -> MinReady {
        match min_ready(&given.value.0) {
            Some(MinReady::Count(count)) if count as usize > total && self.problems.is_empty() => {
                let message = format!("{count} can never be ready: the file has {total} instances");
                self.problems.push(given.at.problem(message));
                MinReady::All
            }
            Some(good) => good,
            None => {
                let problem = given
                    .at
                    .problem(format!("{:?} is not a number of instances", given.value.0));
                self.problems
                    .push(problem.help("all, a number, or a percentage from 1% to 100%"));
                MinReady::All
            }
        }
    }
}

fn min_ready(text: &str) -> Option<MinReady> {
    if text == "all" {
        return Some(MinReady::All);
    }
    match text.strip_suffix('%') {
        Some(percent) => percent
            .trim()
            .parse()
            .ok()
            .filter(|p| (1..=100).contains(p))
            .map(MinReady::Percent),
        None => text.parse().ok().map(MinReady::Count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_must_be_ready_has_three_forms() {
        assert_eq!(min_ready("all"), Some(MinReady::All));
        assert_eq!(min_ready("5"), Some(MinReady::Count(5)));
        assert_eq!(min_ready("90%"), Some(MinReady::Percent(90)));
        for bad in ["", "none", "-1", "0%", "101%", "5.5", "%"] {
            assert_eq!(min_ready(bad), None, "{bad:?}");
        }
    }
}
