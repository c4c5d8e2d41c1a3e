//! What machines stand on: what the file's names mean here, security groups, placement groups, the discovery token.
//! Called by the provider before machines are asked for; what it found is kept with the cluster.
//!
//! Whatever was recorded stays. A crash at any moment leaves only things that the next try finds again: all that is made
//! carries its tags, or its name, from the call that made it.

use std::collections::{BTreeMap, BTreeSet};

use aot_model::spec::PoolSpec;
use aot_provider::{
    Ask, Prerequisites, ProviderError, ResolvedSubnet, Thing, ThingAction, ThingKind,
};
use aot_user_data::variables::wants_token;
use aws_sdk_ec2::Client;

use super::asked::missing_pools;
use super::client::Clients;
use super::error::invalid;
use super::image_lookup::{Finder, ImageKey};
use super::{discovery, groups, image_lookup, lookup, placement};

/// Makes and finds it. Reads come first, so that a wrong name makes nothing; the token comes last, because a service has
/// only this many.
pub(super) async fn prepare(
    clients: &Clients,
    ask: &Ask<'_>,
) -> Result<Prerequisites, ProviderError> {
    let region = ask.spec.region.as_deref();
    let (ec2, _) = clients.client(region).await?;
    let ssm = clients.ssm(region).await?;
    prepare_with(
        &Finder {
            ec2: &ec2,
            ssm: &ssm,
        },
        ask,
    )
    .await
}

async fn prepare_with(finder: &Finder<'_>, ask: &Ask<'_>) -> Result<Prerequisites, ProviderError> {
    let mut prerequisites = ask.known.clone();
    find_types(finder.ec2, ask, &mut prerequisites).await?;
    find_subnets(finder.ec2, ask, &mut prerequisites).await?;
    find_images(finder, ask, &mut prerequisites).await?;
    groups::ensure(finder.ec2, ask, &mut prerequisites).await?;
    let places = placements(ask);
    if !places.is_empty() {
        let cluster = ask
            .cluster
            .ok_or_else(|| invalid("the cluster has no uuid yet"))?;
        placement::ensure(finder.ec2, cluster, &places, &mut prerequisites).await?;
    }
    let wants = ask.user_parts.values().any(|part| wants_token(part));
    if wants && prerequisites.discovery_token.is_none() {
        let instances = ask.spec.instances().count();
        let url = ask.spec.discovery_url.clone();
        let url = url.unwrap_or_else(|| discovery::default_url(instances));
        prerequisites.discovery_token = Some(discovery::fetch(&url).await?);
        prerequisites
            .notices
            .push("a discovery token was fetched".to_owned());
    }
    Ok(prerequisites)
}

/// What `prepare` would make or change, and the addresses that machines would be given. What is wrong with a name is for
/// preflight to say.
pub(super) async fn outline(clients: &Clients, ask: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    let region = ask.spec.region.as_deref();
    let (ec2, _) = clients.client(region).await?;
    let ssm = clients.ssm(region).await?;
    outline_with(
        &Finder {
            ec2: &ec2,
            ssm: &ssm,
        },
        ask,
    )
    .await
}

async fn outline_with(finder: &Finder<'_>, ask: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    let ec2 = finder.ec2;
    let mut things = Vec::new();
    if !ask.spec.security_groups.is_empty() {
        let mut prerequisites = ask.known.clone();
        let found = subnets(ec2, &ask.spec.pools, &prerequisites.subnets).await?;
        let good = found
            .into_iter()
            .filter_map(|(text, it)| Some((text, it.ok()?)));
        prerequisites.subnets.extend(good);
        things.extend(
            groups::GroupSurvey::new(ec2, ask, &prerequisites)
                .await?
                .things(),
        );
    }
    let places = placements(ask);
    let there = placement::names_of(&placement::find(ec2, &places).await?);
    for name in places {
        let (action, detail) = match there.contains(&name) {
            true => (ThingAction::Keep, "found"),
            false => (ThingAction::Create, "strategy cluster"),
        };
        things.push(Thing {
            action,
            kind: ThingKind::PlacementGroup,
            name,
            detail: detail.into(),
        });
    }
    things.extend(addresses(ask));
    things.extend(second_disks(finder, ask).await?);
    Ok(things)
}

/// Device names that images give their root disks.
const ROOTS: [&str; 4] = ["/dev/sda1", "/dev/sda", "/dev/xvda", "/dev/xvda1"];

/// Volumes with the name of a root disk that is not the root's in the pool's image: EC2 makes a second disk of each,
/// which is rarely intended. Asks only where there is such a name.
async fn second_disks(finder: &Finder<'_>, ask: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    let roots = |pool: &&PoolSpec| {
        let mut volumes = pool.machine.volumes.iter();
        volumes.any(|volume| ROOTS.contains(&volume.device.as_str()))
    };
    let pools: Vec<&PoolSpec> = missing_pools(ask).filter(roots).collect();
    if pools.is_empty() {
        return Ok(Vec::new());
    }
    let mut prerequisites = ask.known.clone();
    find_types(finder.ec2, ask, &mut prerequisites).await?;
    find_images(finder, ask, &mut prerequisites).await?;
    let image_of = |pool: &PoolSpec, kind: &String| {
        let arch = &prerequisites.types.get(kind)?.arch;
        let key = Prerequisites::image_key(pool.machine.ami.as_deref()?, arch);
        prerequisites.images.get(&key).cloned()
    };
    let ids = pools
        .iter()
        .flat_map(|pool| pool.machine.types.iter().map(move |kind| (*pool, kind)))
        .filter_map(|(pool, kind)| image_of(pool, kind));
    let images = image_lookup::describe(finder.ec2, &ids.collect()).await?;
    let mut things = Vec::new();
    for pool in pools {
        let mut types = pool.machine.types.iter();
        let image = types.find_map(|kind| images.get(&image_of(pool, kind)?));
        let Some(root) = image.and_then(|image| image.root_device_name()) else {
            continue;
        };
        let devices = pool.machine.volumes.iter().map(|volume| &volume.device);
        let others = devices.filter(|device| ROOTS.contains(&device.as_str()) && *device != root);
        things.extend(others.map(|device| Thing {
            action: ThingAction::Create,
            kind: ThingKind::Volume,
            name: format!("{} {device}", pool.label()),
            detail: format!(
                "a second disk: the root of this image is {root}; name that to change the root disk"
            ),
        }));
    }
    Ok(things)
}

/// Addresses of the machines that are to be made.
fn addresses(ask: &Ask<'_>) -> Vec<Thing> {
    let pools = missing_pools(ask).filter(|pool| pool.machine.allocate_ip_address);
    let count = |pool: &PoolSpec| ask.missing.get(pool.label()).copied().unwrap_or_default();
    pools
        .map(|pool| Thing {
            action: ThingAction::Allocate,
            kind: ThingKind::Address,
            name: pool.label().to_owned(),
            detail: match count(pool) {
                1 => "1 Elastic IP".to_owned(),
                count => format!("{count} Elastic IPs"),
            },
        })
        .collect()
}

/// Placement groups of the machines that are to be made.
fn placements(ask: &Ask<'_>) -> BTreeSet<String> {
    missing_pools(ask)
        .filter_map(|pool| pool.machine.placement_group.clone())
        .collect()
}

async fn find_types(
    ec2: &Client,
    ask: &Ask<'_>,
    prerequisites: &mut Prerequisites,
) -> Result<(), ProviderError> {
    let all = missing_pools(ask).flat_map(|pool| &pool.machine.types);
    let new = all
        .filter(|kind| !prerequisites.types.contains_key(*kind))
        .cloned();
    let found = lookup::types(ec2, &new.collect()).await?;
    prerequisites.types.extend(lookup::all(found)?);
    Ok(())
}

async fn find_subnets(
    ec2: &Client,
    ask: &Ask<'_>,
    prerequisites: &mut Prerequisites,
) -> Result<(), ProviderError> {
    // Wanted groups are made where any pool's machines may be.
    let found = if ask.spec.security_groups.is_empty() {
        subnets(ec2, missing_pools(ask), &prerequisites.subnets).await?
    } else {
        subnets(ec2, &ask.spec.pools, &prerequisites.subnets).await?
    };
    prerequisites.subnets.extend(lookup::all(found)?);
    Ok(())
}

/// The subnets of these pools that are not known yet; the empty text is where machines go that name none.
pub(super) async fn subnets<'p>(
    ec2: &Client,
    pools: impl IntoIterator<Item = &'p PoolSpec>,
    known: &BTreeMap<String, ResolvedSubnet>,
) -> Result<lookup::Each<String, ResolvedSubnet>, ProviderError> {
    let mut texts = BTreeSet::new();
    for pool in pools {
        texts.extend(pool.machine.subnets.iter().cloned());
        if pool.machine.subnets.is_empty() {
            texts.insert(String::new());
        }
    }
    texts.retain(|text| !known.contains_key(text));
    let by_default = texts.remove("");
    let shown = lookup::subnets(ec2, &texts).await?;
    let mut found: lookup::Each<String, ResolvedSubnet> = shown
        .into_iter()
        .map(|(text, subnet)| {
            (
                text,
                subnet.and_then(|subnet| lookup::resolved_subnet(&subnet)),
            )
        })
        .collect();
    if by_default {
        let vpc = lookup::default_vpc(ec2).await?;
        let prerequisites = vpc.map(|vpc| ResolvedSubnet {
            vpc,
            ..ResolvedSubnet::default()
        });
        let none = || invalid("this region has no default VPC: set `subnet`");
        found.insert(String::new(), prerequisites.ok_or_else(none));
    }
    Ok(found)
}

async fn find_images(
    finder: &Finder<'_>,
    ask: &Ask<'_>,
    prerequisites: &mut Prerequisites,
) -> Result<(), ProviderError> {
    let (keys, known) = image_keys(ask, prerequisites);
    let found = lookup::all(finder.find(&keys, &known).await?)?;
    let kept = found
        .into_iter()
        .map(|((text, arch), id)| (Prerequisites::image_key(&text, &arch), id));
    prerequisites.images.extend(kept);
    Ok(())
}

/// The images of the machines that are to be made, as far as the types are known, and those among them that were recorded.
pub(super) fn image_keys(
    ask: &Ask<'_>,
    prerequisites: &Prerequisites,
) -> (BTreeSet<ImageKey>, BTreeMap<ImageKey, String>) {
    let mut keys = BTreeSet::new();
    for pool in missing_pools(ask) {
        let Some(text) = &pool.machine.ami else {
            continue;
        };
        let types = pool.machine.types.iter();
        let archs = types.filter_map(|kind| Some(prerequisites.types.get(kind)?.arch.clone()));
        keys.extend(archs.map(|arch| (text.clone(), arch)));
    }
    let recorded = |key: &ImageKey| {
        let id = prerequisites
            .images
            .get(&Prerequisites::image_key(&key.0, &key.1))?;
        Some((key.clone(), id.clone()))
    };
    let known = keys.iter().filter_map(recorded).collect();
    (keys, known)
}

#[cfg(test)]
pub(super) mod tests;
