//! The dry runs of a launch: one for all pools that would make the same call, a few at once.

use std::collections::BTreeMap;

use aot_provider::LaunchSpec;
use aws_sdk_ec2::Client;
use futures::StreamExt as _;
use futures::stream;

use super::super::resolve::resolve;
use super::dry_run::{self, Setting};
use super::pools::{Pool, SubnetChoice};
use super::report::PreflightReport;

/// Dry runs under way at once.
const TRIALS: usize = 8;

/// One dry run, for all pools that would make the same call.
struct Trial<'p> {
    pools: Vec<Pool<'p>>,
    choice: SubnetChoice,
    /// There is no other type or subnet to try.
    only: bool,
    spec: LaunchSpec,
    user_data_bytes: usize,
}

/// Dry runs of the pools that have a type, a subnet and an image; what is not known yet has been reported.
fn trials<'p>(
    setting: &Setting<'_>,
    chosen: Vec<(Pool<'p>, SubnetChoice, bool)>,
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
        let spec = dry_run::batch(setting, pool, &choice);
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

/// Asks, and reports what stands in the way. The flag of a choice says that it is the pool's only one.
pub(super) async fn run_all(
    ec2: &Client,
    setting: &Setting<'_>,
    chosen: Vec<(Pool<'_>, SubnetChoice, bool)>,
    sizes: &BTreeMap<&str, usize>,
    report: &mut PreflightReport,
) {
    let trials = trials(setting, chosen, sizes);
    let run =
        |trial: &Trial<'_>| dry_run::run(ec2.clone(), trial.spec.clone(), trial.user_data_bytes);
    let calls: Vec<_> = trials.iter().map(run).collect();
    let answers: Vec<_> = stream::iter(calls).buffered(TRIALS).collect().await;
    for (trial, error) in trials.iter().zip(answers) {
        for pool in &trial.pools {
            dry_run::report_refusal(report, *pool, &trial.choice, &error, trial.only);
        }
    }
}
