//! RunInstances with DryRun: what only EC2 knows (rights, instance profiles, combinations), one call a pool. Nothing is
//! made, and the machines' real user-data stays here.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::route::Route;
use aot_provider::{
    Ask, BootSpec, ClientToken, ClusterRef, ErrorKind, LaunchSpec, Prerequisites, ProviderError,
};
use aws_sdk_ec2::Client;

use super::super::client::call;
use super::super::error::invalid;
use super::super::groups::is_id;
use super::super::{fluent, request, resolve};
use super::pools::{Pool, SubnetChoice};
use super::report::{PreflightReport, is_forbidden};

/// What EC2 says when the call would have worked.
const WOULD_WORK: &str = "DryRunOperation";

/// What an answer to a dry run means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DryRunAnswer {
    /// The call would work, or what it lacks is nothing that lasts.
    Good,
    /// These actions are not allowed.
    Forbidden(Vec<&'static str>),
    /// Nothing was learned.
    Unknown,
    /// It would be refused; the way out.
    Refused(&'static str),
}

/// Reads an answer. `only` says that there is no other type or subnet to try; `profile` that one is given.
pub(super) fn verdict(error: &ProviderError, only: bool, profile: bool) -> DryRunAnswer {
    let code = error.code.as_deref().unwrap_or_default();
    if code == WOULD_WORK {
        return DryRunAnswer::Good;
    }
    if is_forbidden(error) {
        let passes = error.message.contains("iam:PassRole");
        return DryRunAnswer::Forbidden(match (passes, profile) {
            (true, _) => vec!["iam:PassRole"],
            // EC2 does not always say which of the two it was.
            (false, true) if !error.message.contains("ec2:") => {
                vec!["ec2:RunInstances", "iam:PassRole"]
            }
            _ => vec!["ec2:RunInstances"],
        });
    }
    match error.kind {
        // Capacity comes and goes, and `Unsupported` may hold for one zone only.
        ErrorKind::NoCapacity if code != "Unsupported" || !only => DryRunAnswer::Good,
        // The group has machines, and the launch will look for their zone.
        ErrorKind::OtherZone => DryRunAnswer::Good,
        ErrorKind::Throttled
        | ErrorKind::Unavailable
        | ErrorKind::Denied
        | ErrorKind::NoCredentials => DryRunAnswer::Unknown,
        ErrorKind::Quota => DryRunAnswer::Refused(
            "ask for a larger quota (Service Quotas), or launch fewer or smaller machines",
        ),
        _ => DryRunAnswer::Refused(way_out(code, &error.message)),
    }
}

/// The key of cluster.yml that a refusal is about.
fn way_out(code: &str, message: &str) -> &'static str {
    let message = message.to_lowercase();
    let about = |words: &[&str]| {
        words
            .iter()
            .any(|word| message.contains(word) || code.to_lowercase().contains(word))
    };
    if about(&["instance profile", "iaminstanceprofile"]) {
        "correct `instance_profile_name`, or make the instance profile"
    } else if about(&["keypair", "key pair"]) {
        "correct `ssh_key`"
    } else if about(&["placement group", "placementgroup"]) {
        "correct `placement_group`, or use a type that placement groups support"
    } else if about(&["group"]) {
        "correct `security_groups`"
    } else if about(&["snapshot", "volume", "iops", "throughput", "device"]) {
        "correct `ebs`"
    } else if about(&["subnet"]) {
        "correct `subnet`"
    } else if about(&["ami", "image", "architecture"]) {
        "correct `ami`"
    } else {
        "correct what the message names in this pool's part of the file"
    }
}

/// What a dry run is made of: with another client token than a launch's, filler in place of the user-data, and without what
/// is still to be made.
pub(super) struct Setting<'a> {
    /// What is launched.
    pub ask: &'a Ask<'a>,
    /// What the file's names stand for, as far as that is known.
    pub prerequisites: &'a Prerequisites,
    /// Key pairs that are there; `None` when that is not known, here as below.
    pub keys: Option<&'a BTreeSet<String>>,
    /// Snapshots that are there.
    pub snapshots: Option<&'a BTreeMap<String, String>>,
    /// Placement groups that are there.
    pub placement: Option<&'a BTreeSet<String>>,
    /// Security groups that are there, by id.
    pub group_ids: Option<&'a BTreeSet<String>>,
}

/// The batch as a launch would ask for it, without what is not there: that is reported elsewhere, or will be made.
pub(super) fn batch(setting: &Setting<'_>, pool: Pool<'_>, choice: &SubnetChoice) -> LaunchSpec {
    let Setting {
        ask, prerequisites, ..
    } = setting;
    let fresh = || ClusterRef {
        name: ask.spec.name.clone(),
        uuid: "0".repeat(32),
        region: ask.spec.region.clone(),
    };
    let mut machine = pool.spec.machine.clone();
    machine.ssh_key = machine
        .ssh_key
        .filter(|key| setting.keys.is_some_and(|keys| keys.contains(key)));
    machine.placement_group = machine
        .placement_group
        .filter(|name| setting.placement.is_some_and(|names| names.contains(name)));
    machine
        .volumes
        .retain(|volume| match (&volume.snapshot, setting.snapshots) {
            (Some(id), Some(shown)) => shown.contains_key(id),
            (Some(_), None) => false,
            (None, _) => volume.size_gib.is_some(),
        });
    let vpc = prerequisites
        .subnets
        .get(&choice.subnet)
        .map_or("", |subnet| &subnet.vpc);
    machine.security_groups.retain(|name| {
        if is_id(name) {
            setting.group_ids.is_some_and(|ids| ids.contains(name))
        } else {
            prerequisites
                .groups
                .contains_key(&Prerequisites::group_key(name, vpc))
        }
    });
    LaunchSpec {
        challenged: false,
        cluster: ask.cluster.cloned().unwrap_or_else(fresh),
        pool: pool.spec.name.clone(),
        members: pool.spec.members.iter().take(pool.count).cloned().collect(),
        owner: pool.spec.owner.clone(),
        user: pool.spec.user.clone(),
        machine,
        instance_type: Some(choice.kind.clone()),
        subnet: (!choice.subnet.is_empty()).then(|| choice.subnet.clone()),
        zone: None,
        on_demand: false,
        attempt: 1,
        prerequisites: (*prerequisites).clone(),
        boot: BootSpec {
            master: Vec::new(),
            route: Route::of(&ask.spec.name),
            ca_pem: String::new(),
            join_token: String::new(),
            agent_sha256: BTreeMap::new(),
            agent_path: std::path::PathBuf::new(),
            user_part: None,
        },
    }
}

/// Asks EC2 whether it would take the batch; `user_data_bytes` is the size of the real user-data. What EC2 says is
/// always an error: `DryRunOperation` is the good one.
pub(super) async fn run(client: Client, spec: LaunchSpec, user_data_bytes: usize) -> ProviderError {
    match send(&client, &spec, user_data_bytes).await {
        Err(error) => error,
        Ok(made) => invalid(format!(
            "this endpoint ignores dry runs and launched machines: {}; terminate them",
            made.join(", ")
        )),
    }
}

async fn send(
    client: &Client,
    spec: &LaunchSpec,
    user_data_bytes: usize,
) -> Result<Vec<String>, ProviderError> {
    let resolved = resolve::resolve(spec)?;
    let filler = vec![b'#'; user_data_bytes];
    let input = request::run_instances(spec, &ClientToken("dry-run".into()), &resolved, &filler)?;
    // Each call has a token of its own, or EC2 would compare it with others.
    let request = fluent(client, input).set_client_token(None).dry_run(true);
    let answer = call("RunInstances", request.send()).await?;
    Ok(answer
        .instances()
        .iter()
        .filter_map(|it| it.instance_id.clone())
        .collect())
}

/// Reports what the answer to a pool's dry run means.
pub(super) fn report_refusal(
    report: &mut PreflightReport,
    pool: Pool<'_>,
    choice: &SubnetChoice,
    error: &ProviderError,
    only: bool,
) {
    let label = pool.label();
    match verdict(
        error,
        only,
        pool.spec.machine.instance_profile_name.is_some(),
    ) {
        DryRunAnswer::Good => {}
        DryRunAnswer::Forbidden(actions) => {
            for action in actions {
                report.failed("", action, error);
            }
        }
        DryRunAnswer::Unknown => report.failed(
            &format!("whether EC2 would launch {label:?}"),
            "ec2:RunInstances",
            error,
        ),
        DryRunAnswer::Refused(hint) => {
            let place = if choice.subnet.is_empty() {
                "the default VPC"
            } else {
                &choice.subnet
            };
            report.add_for_pool(
                label,
                format!(
                    "EC2 would not launch {} in {place}: {}",
                    choice.kind, error.message
                ),
                hint,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::{Failure, classify};
    use super::*;

    fn answer(code: &str, status: u16, message: &str) -> ProviderError {
        let (kind, leftovers) = classify(Failure::Refused(Some(code), status));
        ProviderError {
            kind,
            leftovers,
            message: message.into(),
            code: Some(code.into()),
        }
    }

    #[test]
    fn what_a_dry_run_says() {
        let forbidden = |actions: &[&'static str]| DryRunAnswer::Forbidden(actions.to_vec());
        for (code, status, message, only, profile, verdict_is) in [
            ("DryRunOperation", 412, "", true, false, DryRunAnswer::Good),
            (
                "InsufficientInstanceCapacity",
                500,
                "",
                true,
                false,
                DryRunAnswer::Good,
            ),
            ("Unsupported", 400, "", false, false, DryRunAnswer::Good),
            (
                "RequestLimitExceeded",
                503,
                "",
                true,
                false,
                DryRunAnswer::Unknown,
            ),
            ("InternalError", 500, "", true, false, DryRunAnswer::Unknown),
            (
                "UnauthorizedOperation",
                403,
                "x",
                true,
                false,
                forbidden(&["ec2:RunInstances"]),
            ),
            (
                "UnauthorizedOperation",
                403,
                "x",
                true,
                true,
                forbidden(&["ec2:RunInstances", "iam:PassRole"]),
            ),
            (
                "UnauthorizedOperation",
                403,
                "to perform: ec2:RunInstances",
                true,
                true,
                forbidden(&["ec2:RunInstances"]),
            ),
            (
                "UnauthorizedOperation",
                403,
                "to perform: iam:PassRole on",
                true,
                true,
                forbidden(&["iam:PassRole"]),
            ),
        ] {
            assert_eq!(
                verdict(&answer(code, status, message), only, profile),
                verdict_is,
                "{code} {message}"
            );
        }
        for (code, message, word) in [
            ("Unsupported", "not supported in your zone", "message"),
            ("VcpuLimitExceeded", "limit of 32", "quota"),
            (
                "InvalidParameterValue",
                "Value (x) for parameter iamInstanceProfile.name is invalid",
                "instance_profile_name",
            ),
            (
                "InvalidPlacementGroup.Unknown",
                "unknown",
                "placement_group",
            ),
            (
                "InvalidGroup.NotFound",
                "The security group 'x' does not exist",
                "security_groups",
            ),
            ("InvalidBlockDeviceMapping", "snapshot", "ebs"),
            ("InvalidParameterCombination", "x", "message"),
        ] {
            let DryRunAnswer::Refused(hint) = verdict(&answer(code, 400, message), true, false)
            else {
                panic!("{code}");
            };
            assert!(hint.contains(word), "{code}: {hint}");
        }
    }
}
