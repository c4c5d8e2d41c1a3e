//! `update:` and `health:` of instances and pools.

use std::time::Duration;

use aot_model::health::{HealthCheck, HealthSpec};
use aot_model::pace::{Amount, BadPace, PacePolicy};

use super::Build;
use crate::raw::{RawCommon, RawHealth, RawHealthOptions, RawUpdate};
use crate::read::{Located, Loosely, Span};

/// An instance that fails this often is not asked again.
const MAX_RETRIES: u32 = 1_000;
/// No pool has more.
const MAX_CANARY: u32 = 20_000;

impl Build {
    pub(super) fn update(&mut self, common: &RawCommon) -> PacePolicy {
        let Some(given) = &common.update else {
            return PacePolicy::default();
        };
        let raw: &RawUpdate = &given.value;
        let policy = PacePolicy {
            concurrency: self.amount(raw.concurrency.as_ref(), Amount::at_a_time),
            max_errors: self.amount(raw.max_errors.as_ref(), Amount::errors),
            canary: self.bounded(raw.canary.as_ref(), 1, MAX_CANARY, ""),
            batch_wait_ms: raw.batch_wait.as_ref().map(|it| millis(it.value.0)),
        };
        let said = [raw.concurrency.is_some(), raw.max_errors.is_some()];
        let said = said.contains(&true) || raw.canary.is_some() || raw.batch_wait.is_some();
        if !said && !self.unread_under(&given.at.path) {
            let problem = given.at.problem("says nothing");
            self.problems
                .push(problem.help("as in {concurrency: 25%, canary: 1}"));
        }
        if let (Some(wait), None) = (&raw.batch_wait, &raw.concurrency)
            && !self.unread_under(&given.at.path)
        {
            let problem = wait.at.problem("there are no batches to wait between");
            self.problems.push(problem.help("add concurrency"));
        }
        policy
    }

    fn amount(
        &mut self,
        given: Option<&Located<Loosely>>,
        read: fn(&str) -> Result<Amount, BadPace>,
    ) -> Option<Amount> {
        let given = given?;
        let amount = read(&given.value.0);
        if amount.is_err() {
            let text = &given.value.0;
            let problem = given
                .at
                .problem(format!("{text:?} is not a number of instances"));
            let from = if read("0").is_ok() { 0 } else { 1 };
            self.problems.push(problem.help(format!(
                "a number from {from} on, or a percentage up to 100%"
            )));
        }
        amount.ok()
    }

    pub(super) fn health(&mut self, common: &RawCommon) -> Option<HealthSpec> {
        Some(match &common.health.as_ref()?.value {
            RawHealth::Plain(text) => HealthSpec::new(check(&text.value.0)),
            RawHealth::Options(options) => self.health_options(options),
        })
    }

    fn health_options(&mut self, options: &RawHealthOptions) -> HealthSpec {
        let command = options.command.as_ref();
        let usual = HealthSpec::new(command.map_or(HealthCheck::Ping, |it| check(&it.value.0)));
        let ms = |given: &Option<Located<Span>>, usual| {
            given.as_ref().map_or(usual, |it| millis(it.value.0))
        };
        let retries = self.bounded(options.retries.as_ref(), 0, MAX_RETRIES, "");
        HealthSpec {
            retries: retries.unwrap_or(usual.retries),
            wait_ms: ms(&options.wait, usual.wait_ms),
            timeout_ms: ms(&options.timeout, usual.timeout_ms),
            check: usual.check,
        }
    }
}

fn check(text: &str) -> HealthCheck {
    match text.trim() {
        "ping" => HealthCheck::Ping,
        line => HealthCheck::Command(line.to_owned()),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
