//! How `launch` and `apply` change instances that are ready.

use std::time::Duration;

use aot_proto::v1::UpdatePace;
use clap::Args;

use super::exec::{amount, at_least_one};
use crate::dial::millis;

/// A pace; what is not given is as the file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct UpdateArgs {
    /// Change at most this many ready instances of a pool at a time, instead
    /// of the file's `update:`
    #[arg(long, value_name = "N|P%", value_parser = at_least_one)]
    pub concurrency: Option<String>,
    /// Change no more after more than this many have not come through
    #[arg(long, value_name = "N|P%", value_parser = amount)]
    pub max_errors: Option<String>,
    /// Change the first N of a pool alone; the others only if all of them
    /// come through (0 = none)
    #[arg(long, value_name = "N")]
    pub canary: Option<u32>,
    /// Wait this long between batches of `concurrency`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub batch_wait: Option<Duration>,
}

impl UpdateArgs {
    /// Whether anything is given.
    pub(crate) fn is_said(&self) -> bool {
        *self != Self::default()
    }

    /// Whether it is said that not all go at once.
    pub(crate) fn is_paced(&self) -> bool {
        aot_proto::pace::is_paced(self.concurrency.as_ref(), self.canary)
    }

    /// As a request has it.
    pub(crate) fn wire(&self) -> Option<UpdatePace> {
        self.is_said().then(|| UpdatePace {
            concurrency: self.concurrency.clone(),
            max_errors: self.max_errors.clone(),
            canary: self.canary,
            batch_wait_ms: self.batch_wait.map(millis),
        })
    }
}
