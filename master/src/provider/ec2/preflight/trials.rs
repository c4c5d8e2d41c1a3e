//! The dry runs of a launch: one for all pools that would make the same call, a few at once.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use futures::StreamExt as _;
use futures::stream;

use super::super::resolve::resolve;
use super::pools::{Choice, Pool};
use super::report::Report;
use super::trial::{self, Setting};
use crate::provider::LaunchSpec;

/// Dry runs under way at once.
const TRIALS: usize = 8;

/// One dry run, for all pools that would make the same call.
struct Trial<'p> {
    pools: Vec<Pool<'p>>,
    choice: Choice,
    /// There is no other type or subnet to try.
    only: bool,
    spec: LaunchSpec,
    user_data_bytes: usize,
}

/// Dry runs of the pools that have a type, a place and an image; what is not known yet has been told.
fn trials<'p>(
    setting: &Setting<'_>,
    chosen: Vec<(Pool<'p>, Choice, bool)>,
    sizes: &BTreeMap<&str, usize>,
) -> Vec<Trial<'p>> {
    let mut trials: Vec<Trial<'p>> = Vec::new();
    for (pool, choice, only) in chosen {
        let same = |trial: &&mut Trial<'_>| {
            let first = trial.pools[0];
            trial.choice == choice
                && first.count == pool.count
                && first.spec.machine == pool.spec.machine
        };
        if let Some(trial) = trials.iter_mut().find(same) {
            trial.pools.push(pool);
            continue;
        }
        let spec = trial::batch(setting, pool, &choice);
        if resolve(&spec).is_ok() {
            trials.push(Trial {
                pools: vec![pool],
                choice,
                only,
                spec,
                user_data_bytes: sizes.get(pool.label()).copied().unwrap_or(0),
            });
        }
    }
    trials
}

/// Asks, and tells what stands in the way. The flag of a choice says that it is the pool's only one.
pub(super) async fn run_all(
    ec2: &Client,
    setting: &Setting<'_>,
    chosen: Vec<(Pool<'_>, Choice, bool)>,
    sizes: &BTreeMap<&str, usize>,
    report: &mut Report,
) {
    let trials = trials(setting, chosen, sizes);
    let run =
        |trial: &Trial<'_>| trial::run(ec2.clone(), trial.spec.clone(), trial.user_data_bytes);
    let calls: Vec<_> = trials.iter().map(run).collect();
    let answers: Vec<_> = stream::iter(calls).buffered(TRIALS).collect().await;
    for (trial, error) in trials.iter().zip(answers) {
        for pool in &trial.pools {
            trial::tell(report, *pool, &trial.choice, &error, trial.only);
        }
    }
}
