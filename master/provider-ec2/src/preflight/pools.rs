//! What stands in the way of a pool's machines: type, zone, image, subnet and its room, key pair, volumes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aot_model::spec::PoolSpec;
use aot_provider::{ErrorKind, ProviderError};
use aws_sdk_ec2::types::{Image, ImageState};

use super::super::image_ref;
use super::reach::{self, Network};
use super::region::SubnetAnswer;
use super::report::PreflightReport;
use super::survey::{PreflightSurvey, Second};
use super::volumes;

/// A pool that needs machines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool<'a> {
    /// Its part of the file.
    pub spec: &'a PoolSpec,
    /// How many.
    pub count: usize,
}

impl<'a> Pool<'a> {
    pub(crate) fn label(&self) -> &'a str {
        self.spec.label()
    }

    /// Its subnets; the empty text is the default VPC.
    pub(crate) fn subnets(&self) -> Vec<&'a str> {
        subnets(self.spec)
    }
}

/// Subnets of a pool as the file names them; the empty text is the default VPC.
pub(super) fn subnets(spec: &PoolSpec) -> Vec<&str> {
    let named: Vec<&str> = spec.machine.subnets.iter().map(String::as_str).collect();
    if named.is_empty() { vec![""] } else { named }
}

/// A type and a subnet, as the file names them, in which machines can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubnetChoice {
    /// Type.
    pub kind: String,
    /// Subnet; the empty text is the default VPC.
    pub subnet: String,
}

/// What needs no call.
pub(super) fn plain(report: &mut PreflightReport, pool: Pool<'_>) {
    let (label, machine) = (pool.label(), &pool.spec.machine);
    match machine.ami.as_deref().map(image_ref::parse) {
        None => report.add_for_pool(label, "no image is named", "set `ami`"),
        Some(Err(error)) => report.add_for_pool(label, error.message, "correct `ami`"),
        Some(Ok(_)) => {}
    }
    if machine.types.is_empty() {
        report.add_for_pool(label, "no instance type is named", "set `ec2_size`");
    }
    for (message, hint) in machine.volumes.iter().flat_map(volumes::wrongs) {
        report.add_for_pool(label, message, format!("{hint} (key `ebs`)"));
    }
}

/// Types, subnets, key pair, snapshots.
pub(super) fn first(
    report: &mut PreflightReport,
    pool: Pool<'_>,
    survey: &PreflightSurvey,
    region: &str,
) {
    let (label, machine) = (pool.label(), &pool.spec.machine);
    for kind in &machine.types {
        if let Some(Err(error)) = survey.types.as_ref().and_then(|types| types.get(kind)) {
            wrong(
                report,
                label,
                error,
                "set `ec2_size` to types of this region",
                "instance types",
                "ec2:DescribeInstanceTypes",
            );
        }
    }
    for text in pool.subnets() {
        match survey
            .subnets
            .as_ref()
            .and_then(|subnets| subnets.get(text))
        {
            Some(Err(error)) => wrong(
                report,
                label,
                error,
                "set `subnet` to the id or the Name tag of one subnet of this region",
                "subnets",
                "ec2:DescribeSubnets",
            ),
            Some(Ok(subnets)) if subnets.is_empty() => report.add_for_pool(
                label,
                format!("no subnet is named, and {region} has no default VPC with subnets"),
                "set `subnet`",
            ),
            Some(Ok(subnets)) => {
                for subnet in subnets.iter().filter(|subnet| !subnet.available) {
                    report.add_for_pool(
                        label,
                        format!("subnet {} is not available", subnet.id),
                        "wait until it is, or set another `subnet`",
                    );
                }
                for subnet in subnets.iter().filter(|subnet| subnet.ipv6_only) {
                    report.add_for_pool(
                        label,
                        format!(
                            "subnet {} is for IPv6 alone, which aot does not support",
                            subnet.id
                        ),
                        "set `subnet` to one with IPv4 addresses",
                    );
                }
            }
            None => {}
        }
    }
    if let (Some(key), Some(keys)) = (&machine.ssh_key, &survey.keys)
        && !keys.contains(key)
    {
        report.add_for_pool(
            label,
            format!("no key pair {key:?} in {region}"),
            "import it, or leave `ssh_key` out: nobody needs ssh",
        );
    }
    let snapshots = machine
        .volumes
        .iter()
        .filter_map(|volume| Some((&volume.device, volume.snapshot.as_ref()?)));
    for (device, id) in snapshots {
        match survey.snapshots.as_ref().map(|shown| shown.get(id).map(String::as_str)) {
            Some(None) => report.add_for_pool(
                label,
                format!("volume {device}: no snapshot {id} in {region}, or it is not shared with this account"),
                "correct `snapshot` (key `ebs`)",
            ),
            Some(Some(state)) if state != "completed" => report.add_for_pool(
                label,
                format!("volume {device}: snapshot {id} is {state}"),
                "wait until it is completed, or take another `snapshot` (key `ebs`)",
            ),
            _ => {}
        }
    }
}

/// Types that the master has no agent for: their machines would be paid for, and never call home.
pub(super) fn agents(
    report: &mut PreflightReport,
    pool: Pool<'_>,
    survey: &PreflightSurvey,
    agents: &BTreeMap<String, String>,
) {
    let Some(types) = survey.types.as_ref().filter(|_| !agents.is_empty()) else {
        return;
    };
    for kind in &pool.spec.machine.types {
        let Some(Ok(resolved)) = types.get(kind) else {
            continue;
        };
        // EC2's name, and that of `uname -m`.
        let arch = match resolved.arch.as_str() {
            "arm64" => "aarch64",
            other => other,
        };
        if !agents.contains_key(arch) {
            let have: Vec<&str> = agents.keys().map(String::as_str).collect();
            report.add_for_pool(
                pool.label(),
                format!("type {kind} is {}, and the master has no agent for {arch}", resolved.arch),
                format!(
                    "put aot-agent-{arch} into the folder of agents (AOT_AGENT_DIR) and start the master again, or set \
                     `ec2_size` to types of {}",
                    have.join(" or ")
                ),
            );
        }
    }
}

/// A wrong name is a problem of the pool; a call that failed says nothing of it.
fn wrong(
    report: &mut PreflightReport,
    label: &str,
    error: &ProviderError,
    hint: &str,
    what: &str,
    action: &str,
) {
    if error.kind == ErrorKind::Invalid {
        report.add_for_pool(label, error.message.clone(), hint);
    } else {
        report.failed(what, action, error);
    }
}

/// Types and subnets where the pool's machines can be had, in the file's order; says so when there is none.
pub(super) fn choices(
    report: &mut PreflightReport,
    pool: Pool<'_>,
    survey: &PreflightSurvey,
) -> Vec<SubnetChoice> {
    let (Some(types), Some(_)) = (&survey.types, &survey.subnets) else {
        return Vec::new();
    };
    let is_known = |kind: &&String| types.get(*kind).is_some_and(Result::is_ok);
    let known: Vec<&String> = pool.spec.machine.types.iter().filter(is_known).collect();
    let subnets: Vec<(&str, &SubnetAnswer)> = pool
        .subnets()
        .into_iter()
        .flat_map(|text| {
            survey
                .subnets_of(text)
                .iter()
                .map(move |subnet| (text, subnet))
        })
        .filter(|(_, subnet)| subnet.available)
        .collect();
    if known.is_empty() || subnets.is_empty() {
        return Vec::new();
    }
    let offered = |kind: &str, zone: &str| {
        survey
            .offers
            .as_ref()
            .is_none_or(|offers| offers.contains(&(kind.to_owned(), zone.to_owned())))
    };
    let mut found = Vec::new();
    for (text, subnet) in &subnets {
        for kind in known.iter().filter(|kind| offered(kind, &subnet.zone)) {
            let choice = SubnetChoice {
                kind: (*kind).clone(),
                subnet: (*text).to_owned(),
            };
            if !found.contains(&choice) {
                found.push(choice);
            }
        }
    }
    if found.is_empty() {
        let kinds: Vec<&str> = known.iter().map(|kind| kind.as_str()).collect();
        let zones: BTreeSet<&str> = subnets
            .iter()
            .map(|(_, subnet)| subnet.zone.as_str())
            .collect();
        let zones: Vec<&str> = zones.into_iter().collect();
        report.add_for_pool(
            pool.label(),
            format!(
                "{} is not offered in {}",
                kinds.join(", "),
                zones.join(", ")
            ),
            "set `ec2_size` to a type of this zone, or `subnet` to one of another zone",
        );
    }
    found
}

/// Types of the pool that its image fits; says of the others why not.
pub(super) fn fitting<'a>(
    report: &mut PreflightReport,
    pool: Pool<'a>,
    survey: &PreflightSurvey,
    second: &Second,
    region: &str,
) -> BTreeSet<&'a str> {
    let mut fitting = BTreeSet::new();
    let (Some(text), Some(types), Some(images), Some(shown)) = (
        &pool.spec.machine.ami,
        &survey.types,
        &second.images,
        &second.shown,
    ) else {
        return fitting;
    };
    for kind in &pool.spec.machine.types {
        let Some(Ok(resolved)) = types.get(kind) else {
            continue;
        };
        match images.get(&(text.clone(), resolved.arch.clone())) {
            Some(Ok(id)) => match fits(id, shown.get(id), kind, &resolved.arch, region) {
                Ok(()) => drop(fitting.insert(kind.as_str())),
                Err((message, hint)) => report.add_for_pool(pool.label(), message, hint),
            },
            Some(Err(error)) => {
                let by_parameter = error.message.contains("GetParameter");
                let action = if by_parameter {
                    "ssm:GetParameter"
                } else {
                    "ec2:DescribeImages"
                };
                wrong(
                    report,
                    pool.label(),
                    error,
                    "correct `ami`",
                    &format!("image {text:?}"),
                    action,
                );
            }
            None => {}
        }
    }
    fitting
}

fn fits(
    id: &str,
    image: Option<&Image>,
    kind: &str,
    arch: &str,
    region: &str,
) -> Result<(), (String, &'static str)> {
    let Some(image) = image else {
        return Err((
            format!("no image {id} in {region}, or it is not shared with this account"),
            "set `ami` to an image of this region: ids differ from region to region",
        ));
    };
    if let Some(state) = image
        .state()
        .filter(|state| **state != ImageState::Available)
    {
        return Err((
            format!("image {id} is {}, not available", state.as_str()),
            "set another `ami`",
        ));
    }
    match image.architecture().map(|arch| arch.as_str()) {
        Some(of_image) if of_image != arch => Err((
            format!("image {id} is for {of_image}, and type {kind} is {arch}"),
            "set `ami` and `ec2_size` to the same architecture; an alias such as debian-12 follows the type",
        )),
        _ => Ok(()),
    }
}

/// Whether the subnets have an address for each machine. A pool goes whole into one of its subnets; those that name
/// the same first one share its room.
pub(super) fn room(report: &mut PreflightReport, pools: &[Pool<'_>], survey: &PreflightSurvey) {
    let mut first: BTreeMap<&str, Vec<Pool<'_>>> = BTreeMap::new();
    for pool in pools {
        if let Some(text) = pool.subnets().first().copied() {
            first.entry(text).or_default().push(*pool);
        }
    }
    let most = |text: &str| {
        survey
            .subnets_of(text)
            .iter()
            .map(|subnet| subnet.free)
            .max()
    };
    for (text, pools) in first {
        let Some(free) = most(text) else { continue };
        let total = |pools: &[Pool<'_>]| pools.iter().map(|pool| pool.count).sum::<usize>();
        if total(&pools) <= free {
            continue;
        }
        // What can go elsewhere needs no room here.
        let elsewhere = |pool: &Pool<'_>| {
            let mut others = pool.subnets().into_iter().filter(|other| *other != text);
            others.any(|other| most(other).is_some_and(|free| free >= pool.count))
        };
        let bound: Vec<Pool<'_>> = pools.into_iter().filter(|pool| !elsewhere(pool)).collect();
        // In the default VPC each pool may go to another zone's subnet.
        let enough = if text.is_empty() {
            bound.iter().all(|pool| pool.count <= free)
        } else {
            total(&bound) <= free
        };
        if enough {
            continue;
        }
        let name = if text.is_empty() {
            "the largest default subnet".to_owned()
        } else {
            format!("subnet {text}")
        };
        for pool in &bound {
            report.add_for_pool(
                pool.label(),
                format!(
                    "{name} has {free} free addresses, and {} are needed",
                    total(&bound)
                ),
                "set `subnet` to one with more room, or to a list of subnets",
            );
        }
    }
}

/// Whether the pool's machines can dial the master.
pub(super) fn reaches(
    report: &mut PreflightReport,
    pool: Pool<'_>,
    survey: &PreflightSurvey,
    advertise: &[String],
) {
    let Some(nets) = &survey.nets else { return };
    let machine = &pool.spec.machine;
    let networks = |vpc: &str| {
        nets.get(vpc)
            .map_or(Vec::<Network>::new(), |net| net.networks.clone())
    };
    let subnets: Vec<reach::PoolSubnet> = pool
        .subnets()
        .into_iter()
        .flat_map(|text| survey.subnets_of(text))
        .map(|subnet| reach::PoolSubnet {
            name: subnet.id.clone(),
            networks: networks(&subnet.vpc),
            public: machine.allocate_ip_address || machine.auto_assign_ip.unwrap_or(subnet.public),
        })
        .collect();
    if let Some((subnet, why)) = reach::unreachable(advertise, &subnets) {
        report.add_for_pool(
            pool.label(),
            format!("machines in {} could not reach the master: {why}", subnet.name),
            "set AOT_ADVERTISE (or --advertise of `serve`) to a public address or a host name of the master that machines \
             reach, or run the master inside the VPC and advertise its address there",
        );
    }
}
