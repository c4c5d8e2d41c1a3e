//! What stands in the way of a pool's machines: type, zone, image, subnet and its room, key pair, volumes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Image, ImageState};

use super::super::image;
use super::reach::{self, Network};
use super::report::Report;
use super::survey::{Place, Second, Survey};
use super::volumes;
use crate::model::file::PoolSpec;
use crate::provider::{ErrorKind, ProviderError};

/// A pool that needs machines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool<'a> {
    /// Its part of the file.
    pub spec: &'a PoolSpec,
    /// How many.
    pub count: usize,
}

impl<'a> Pool<'a> {
    /// Its label.
    pub fn label(&self) -> &'a str {
        self.spec.label()
    }

    /// Its subnets; the empty text is the default VPC.
    pub fn subnets(&self) -> Vec<&'a str> {
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
pub(super) struct Choice {
    /// Type.
    pub kind: String,
    /// Subnet; the empty text is the default VPC.
    pub subnet: String,
}

/// What needs no call.
pub(super) fn plain(report: &mut Report, pool: Pool<'_>) {
    let (label, machine) = (pool.label(), &pool.spec.machine);
    match machine.ami.as_deref().map(image::parse) {
        None => report.say(label, "no image is named", "set `ami`"),
        Some(Err(error)) => report.say(label, error.message, "correct `ami`"),
        Some(Ok(_)) => {}
    }
    if machine.types.is_empty() {
        report.say(label, "no instance type is named", "set `ec2_size`");
    }
    for (message, hint) in machine.volumes.iter().flat_map(volumes::wrongs) {
        report.say(label, message, format!("{hint} (key `ebs`)"));
    }
}

/// Types, subnets, key pair, snapshots.
pub(super) fn first(report: &mut Report, pool: Pool<'_>, survey: &Survey, region: &str) {
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
        match survey.places.as_ref().and_then(|places| places.get(text)) {
            Some(Err(error)) => wrong(
                report,
                label,
                error,
                "set `subnet` to the id or the Name tag of one subnet of this region",
                "subnets",
                "ec2:DescribeSubnets",
            ),
            Some(Ok(places)) if places.is_empty() => report.say(
                label,
                format!("no subnet is named, and {region} has no default VPC with subnets"),
                "set `subnet`",
            ),
            Some(Ok(places)) => {
                for place in places.iter().filter(|place| !place.available) {
                    report.say(
                        label,
                        format!("subnet {} is not available", place.id),
                        "wait until it is, or set another `subnet`",
                    );
                }
            }
            None => {}
        }
    }
    if let (Some(key), Some(keys)) = (&machine.ssh_key, &survey.keys)
        && !keys.contains(key)
    {
        report.say(
            label,
            format!("there is no key pair {key:?} in {region}"),
            "import it, or leave `ssh_key` out: nobody needs ssh",
        );
    }
    let snapshots = machine
        .volumes
        .iter()
        .filter_map(|volume| Some((&volume.device, volume.snapshot.as_ref()?)));
    for (device, id) in snapshots {
        match survey.snapshots.as_ref().map(|shown| shown.get(id).map(String::as_str)) {
            Some(None) => report.say(
                label,
                format!("volume {device}: there is no snapshot {id} in {region}, or it is not shared with this account"),
                "correct `snapshot` (key `ebs`)",
            ),
            Some(Some(state)) if state != "completed" => report.say(
                label,
                format!("volume {device}: snapshot {id} is {state}"),
                "wait until it is completed, or take another `snapshot` (key `ebs`)",
            ),
            _ => {}
        }
    }
}

/// A wrong name is a problem of the pool; a call that failed says nothing of it.
fn wrong(
    report: &mut Report,
    label: &str,
    error: &ProviderError,
    hint: &str,
    what: &str,
    action: &str,
) {
    if error.kind == ErrorKind::Invalid {
        report.say(label, error.message.clone(), hint);
    } else {
        report.failed(what, action, error);
    }
}

/// Types and places where the pool's machines can be had, in the file's order; says so when there is none.
pub(super) fn choices(report: &mut Report, pool: Pool<'_>, survey: &Survey) -> Vec<Choice> {
    let (Some(types), Some(_)) = (&survey.types, &survey.places) else {
        return Vec::new();
    };
    let is_known = |kind: &&String| types.get(*kind).is_some_and(Result::is_ok);
    let known: Vec<&String> = pool.spec.machine.types.iter().filter(is_known).collect();
    let places: Vec<(&str, &Place)> = pool
        .subnets()
        .into_iter()
        .flat_map(|text| {
            survey
                .places_of(text)
                .iter()
                .map(move |place| (text, place))
        })
        .filter(|(_, place)| place.available)
        .collect();
    if known.is_empty() || places.is_empty() {
        return Vec::new();
    }
    let offered = |kind: &str, zone: &str| {
        survey
            .offers
            .as_ref()
            .is_none_or(|offers| offers.contains(&(kind.to_owned(), zone.to_owned())))
    };
    let mut found = Vec::new();
    for (text, place) in &places {
        for kind in known.iter().filter(|kind| offered(kind, &place.zone)) {
            let choice = Choice {
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
        let zones: BTreeSet<&str> = places
            .iter()
            .map(|(_, place)| place.zone.as_str())
            .collect();
        let zones: Vec<&str> = zones.into_iter().collect();
        report.say(
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
    report: &mut Report,
    pool: Pool<'a>,
    survey: &Survey,
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
        let Some(Ok(ground)) = types.get(kind) else {
            continue;
        };
        match images.get(&(text.clone(), ground.arch.clone())) {
            Some(Ok(id)) => match fits(id, shown.get(id), kind, &ground.arch, region) {
                Ok(()) => drop(fitting.insert(kind.as_str())),
                Err((message, hint)) => report.say(pool.label(), message, hint),
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
            format!("there is no image {id} in {region}, or it is not shared with this account"),
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
pub(super) fn room(report: &mut Report, pools: &[Pool<'_>], survey: &Survey) {
    let mut first: BTreeMap<&str, Vec<Pool<'_>>> = BTreeMap::new();
    for pool in pools {
        if let Some(text) = pool.subnets().first().copied() {
            first.entry(text).or_default().push(*pool);
        }
    }
    let most = |text: &str| survey.places_of(text).iter().map(|place| place.free).max();
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
            report.say(
                pool.label(),
                format!(
                    "{name} has {free} free addresses, and {} are needed",
                    total(&bound)
                ),
                "set `subnet` to one with more room, or to a list that is tried in turn",
            );
        }
    }
}

/// Whether the pool's machines can dial the master.
pub(super) fn reaches(report: &mut Report, pool: Pool<'_>, survey: &Survey, advertise: &[String]) {
    let Some(nets) = &survey.nets else { return };
    let machine = &pool.spec.machine;
    let networks = |vpc: &str| {
        nets.get(vpc)
            .map_or(Vec::<Network>::new(), |net| net.networks.clone())
    };
    let places: Vec<reach::Place> = pool
        .subnets()
        .into_iter()
        .flat_map(|text| survey.places_of(text))
        .map(|place| reach::Place {
            name: place.id.clone(),
            networks: networks(&place.vpc),
            public: machine.allocate_ip_address || machine.auto_assign_ip.unwrap_or(place.public),
        })
        .collect();
    if let Some((place, why)) = reach::unreachable(advertise, &places) {
        report.say(
            pool.label(),
            format!("machines in {} could not reach the master: {why}", place.name),
            "set AOT_ADVERTISE (or --advertise of `serve`) to a public address or a host name of the master that machines \
             reach, or run the master inside the VPC and advertise its address there",
        );
    }
}
