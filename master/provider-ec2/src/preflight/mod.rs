//! What stands in the way of a launch, all of it, before anything is paid for. Called by the provider for `plan` and
//! `launch`; makes nothing, changes nothing, and asks EC2 in calls that don't grow with the number of machines.
//!
//! A call that failed is reported as such ("could not check ..."): not as an absence, and not as all well. Nothing is
//! decided here: preflight only refuses, and what it could not find out, the calls themselves will say.

mod dry_run;
mod dry_runs;
mod listing;
mod pools;
mod reach;
mod region;
mod report;
mod survey;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use aot_provider::{Ask, ErrorKind, Prerequisites, Problem, ProviderError};
use aws_sdk_ec2::Client;

use self::dry_run::Setting;
use self::pools::Pool;
use self::report::{PreflightReport, is_forbidden};
use self::survey::{PreflightSurvey, Questions, Second};
use super::client::{Clients, call};
use super::error::lacks;
use super::groups::is_id;
use super::image_lookup::Finder;

/// Everything that can be known to make the launch fail. Only pools of `ask.missing` are looked at.
pub(super) async fn problems(clients: &Clients, ask: &Ask<'_>) -> Vec<Problem> {
    let mut report = PreflightReport::default();
    let sizes = check_file(&mut report, ask);
    let region = ask.spec.region.as_deref();
    let mut unset = clients.problems(region).await;
    let anything = !sizes.is_empty() || !ask.spec.security_groups.is_empty();
    if unset.is_empty() && anything {
        match (clients.client(region).await, clients.ssm(region).await) {
            (Ok((ec2, region)), Ok(ssm)) => {
                let finder = Finder {
                    ec2: &ec2,
                    ssm: &ssm,
                };
                examine(&finder, &region, ask, &sizes, &mut report).await;
            }
            (Err(error), _) | (_, Err(error)) => report.failed("anything", "", &error),
        }
    }
    unset.extend(report.finish());
    unset
}

/// What needs no call; the sizes of user-data, by pool label.
fn check_file<'a>(report: &mut PreflightReport, ask: &Ask<'a>) -> BTreeMap<&'a str, usize> {
    let mut sizes = BTreeMap::new();
    for pool in wanted(ask) {
        pools::plain(report, pool);
        sizes.insert(pool.label(), user_data_bytes(report, ask, pool));
    }
    sizes
}

/// The pools that need machines.
fn wanted<'a>(ask: &Ask<'a>) -> Vec<Pool<'a>> {
    let count = |label: &str| ask.missing.get(label).copied().unwrap_or(0);
    let all = ask.spec.pools.iter().map(|spec| Pool {
        spec,
        count: count(spec.label()).min(spec.members.len()),
    });
    all.filter(|pool| pool.count > 0).collect()
}

/// Size of the pool's user-data; 0 when there is none, which is reported.
fn user_data_bytes(report: &mut PreflightReport, ask: &Ask<'_>, pool: Pool<'_>) -> usize {
    let part = ask.user_parts.get(pool.label()).cloned();
    let boot = aot_user_data::stand_in(ask.advertise, part);
    let token = ask
        .known
        .discovery_token
        .as_deref()
        .or(Some(aot_user_data::SAMPLE_TOKEN));
    match aot_user_data::for_batch(&boot, ask.spec.name.as_str(), &pool.spec.members, token) {
        Ok(data) => data.len(),
        Err(error) => {
            report.add_for_pool(
                pool.label(),
                error.to_string(),
                "change the file that `cloud_config` names",
            );
            0
        }
    }
}

/// All that needs calls: the region and the credentials first, and nothing more when those are wrong.
async fn examine(
    finder: &Finder<'_>,
    region: &str,
    ask: &Ask<'_>,
    sizes: &BTreeMap<&str, usize>,
    report: &mut PreflightReport,
) {
    if !is_open(finder.ec2, region, report).await {
        return;
    }
    let pools = wanted(ask);
    let survey = survey::ask(finder.ec2, &questions(ask, &pools), report).await;
    let mut prerequisites = survey::prerequisites(ask.known, &survey);
    let second = survey::ask_again(finder, ask, &prerequisites, report).await;
    let mut chosen = Vec::new();
    for pool in &pools {
        pools::first(report, *pool, &survey, region);
        pools::agents(report, *pool, &survey, ask.agents);
        let fitting = pools::fitting(report, *pool, &survey, &second, region);
        pools::reaches(report, *pool, &survey, ask.advertise);
        let choices = pools::choices(report, *pool, &survey);
        let mut usable = choices
            .iter()
            .filter(|it| fitting.contains(it.kind.as_str()));
        let choice = usable.next().cloned();
        chosen.extend(choice.map(|choice| (*pool, choice, usable.next().is_none())));
    }
    pools::room(report, &pools, &survey);
    groups(report, &pools, &survey, &second);
    complete(&mut prerequisites, &second);
    let setting = Setting {
        ask,
        prerequisites: &prerequisites,
        keys: survey.keys.as_ref(),
        snapshots: survey.snapshots.as_ref(),
        placement: survey.placement.as_ref(),
        group_ids: survey.group_ids.as_ref(),
    };
    dry_runs::run_all(finder.ec2, &setting, chosen, sizes, report).await;
}

/// Whether calls of these credentials are answered in this region; says so when not.
async fn is_open(ec2: &Client, region: &str, report: &mut PreflightReport) -> bool {
    let answer = call(
        "DescribeAvailabilityZones",
        ec2.describe_availability_zones().send(),
    )
    .await;
    match answer {
        Ok(answer) if answer.availability_zones().is_empty() => {
            report.add_for_file(
                format!("EC2 has no region {region:?}"),
                "correct `region`, or AWS_REGION",
            );
            false
        }
        Ok(_) => true,
        // The credentials are taken; a launch does not need this call, and others report what they may not do.
        Err(error) if is_forbidden(&error) => true,
        Err(error) => {
            closed(report, region, &error);
            false
        }
    }
}

fn closed(report: &mut PreflightReport, region: &str, error: &ProviderError) {
    match error.kind {
        _ if lacks(error.code.as_deref()).is_some() => report.failed("", "", error),
        ErrorKind::Denied | ErrorKind::NoCredentials => report.add_for_file(
            format!("EC2 does not accept the AWS credentials in {region}: {}", error.message),
            "renew them (see AWS_PROFILE), check this machine's clock, and see that the region is enabled for the account",
        ),
        ErrorKind::Throttled => report.failed("the region", "", error),
        _ => report.add_for_file(
            format!("EC2 does not answer in {region}: {}", error.message),
            "correct `region` (or AWS_REGION) if there is none of that name; check the network and AWS_ENDPOINT_URL",
        ),
    }
}

/// What is to be asked about these pools, and about wanted groups, which may be made where any pool is.
fn questions(ask: &Ask<'_>, pools: &[Pool<'_>]) -> Questions {
    let mut questions = Questions::default();
    let known = |text: &str| {
        let known = ask.known.subnets.get(text).map(|subnet| subnet.id.as_str());
        known.filter(|id| !id.is_empty()).unwrap_or(text).to_owned()
    };
    let mut subnets: BTreeSet<&str> = pools.iter().flat_map(|pool| pool.subnets()).collect();
    if !ask.spec.security_groups.is_empty() {
        subnets.extend(ask.spec.pools.iter().flat_map(pools::subnets));
    }
    questions.subnets = subnets
        .into_iter()
        .map(|text| (text.to_owned(), known(text)))
        .collect();
    for machine in pools.iter().map(|pool| &pool.spec.machine) {
        questions.types.extend(machine.types.iter().cloned());
        questions.keys.extend(machine.ssh_key.iter().cloned());
        questions
            .placement
            .extend(machine.placement_group.iter().cloned());
        let snapshots = machine
            .volumes
            .iter()
            .filter_map(|volume| volume.snapshot.clone());
        questions.snapshots.extend(snapshots);
        let ids = machine.security_groups.iter().filter(|name| is_id(name));
        questions.group_ids.extend(ids.cloned());
    }
    questions
}

/// Security groups that are not there, or must not be.
fn groups(
    report: &mut PreflightReport,
    pools: &[Pool<'_>],
    survey: &PreflightSurvey,
    second: &Second,
) {
    if let Some(there) = &survey.group_ids {
        for pool in pools {
            let ids = pool
                .spec
                .machine
                .security_groups
                .iter()
                .filter(|name| is_id(name));
            for id in ids.filter(|id| !there.contains(*id)) {
                report.add_for_pool(
                    pool.label(),
                    format!("no security group {id} in this region"),
                    "correct `security_groups`",
                );
            }
        }
    }
    for error in second.groups.iter().flat_map(|(problems, _)| problems) {
        report.add_for_file(
            error.message.clone(),
            "see the keys `security_groups` of the file and of its pools",
        );
    }
}

/// The second round's answers beside those of the first.
fn complete(prerequisites: &mut Prerequisites, second: &Second) {
    for ((text, arch), id) in second.images.iter().flatten() {
        if let Ok(id) = id {
            prerequisites
                .images
                .insert(Prerequisites::image_key(text, arch), id.clone());
        }
    }
    for ((vpc, name), id) in second.groups.iter().flat_map(|(_, ids)| ids) {
        prerequisites
            .groups
            .insert(Prerequisites::group_key(name, vpc), id.clone());
    }
}

#[cfg(test)]
mod tests;
