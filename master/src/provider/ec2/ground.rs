//! What machines stand on: what the file's names mean here, security groups, placement groups, the discovery token.
//! Called by the provider before machines are asked for; what it found is kept with the cluster.
//!
//! Whatever was recorded stays. A crash at any moment leaves only things that the next try finds again: all that is made
//! carries its tags, or its name, from the call that made it.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;

use super::client::Clients;
use super::error::invalid;
use super::images::{Finder, Key};
use super::user_data::variables::wants_token;
use super::{discovery, groups, lookup, placement};
use crate::model::file::PoolSpec;
use crate::provider::{Ask, Ground, ProviderError, SubnetGround, Thing};

/// The pools of which machines are to be made.
pub(super) fn missing_pools<'a>(ask: &Ask<'a>) -> impl Iterator<Item = &'a PoolSpec> {
    let missing = ask.missing;
    let wanted = move |pool: &&PoolSpec| missing.get(pool.label()).is_some_and(|count| *count > 0);
    ask.spec.pools.iter().filter(wanted)
}

/// Makes and finds it. Reads come first, so that a wrong name makes nothing; the token comes last, because a service has
/// only so many.
pub(super) async fn prepare(clients: &Clients, ask: &Ask<'_>) -> Result<Ground, ProviderError> {
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

async fn prepare_with(finder: &Finder<'_>, ask: &Ask<'_>) -> Result<Ground, ProviderError> {
    let mut ground = ask.known.clone();
    find_types(finder.ec2, ask, &mut ground).await?;
    find_subnets(finder.ec2, ask, &mut ground).await?;
    find_images(finder, ask, &mut ground).await?;
    groups::ensure(finder.ec2, ask, &mut ground).await?;
    let places = placements(ask);
    if !places.is_empty() {
        let cluster = ask
            .cluster
            .ok_or_else(|| invalid("the cluster has no uuid yet"))?;
        placement::ensure(finder.ec2, cluster, &places, &mut ground.news).await?;
    }
    let wants = ask.user_parts.values().any(|part| wants_token(part));
    if wants && ground.discovery_token.is_none() {
        let instances = ask.spec.instances().count();
        let url = ask.spec.discovery_url.clone();
        let url = url.unwrap_or_else(|| discovery::default_url(instances));
        ground.discovery_token = Some(discovery::fetch(&url).await?);
        ground.news.push("a discovery token was fetched".to_owned());
    }
    Ok(ground)
}

/// What `prepare` would make or change, and the addresses that machines would be given. What is wrong with a name is for
/// preflight to say.
pub(super) async fn outline(clients: &Clients, ask: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    let (ec2, _) = clients.client(ask.spec.region.as_deref()).await?;
    outline_with(&ec2, ask).await
}

async fn outline_with(ec2: &Client, ask: &Ask<'_>) -> Result<Vec<Thing>, ProviderError> {
    let mut things = Vec::new();
    if !ask.spec.security_groups.is_empty() {
        let mut ground = ask.known.clone();
        let found = subnets(ec2, &ask.spec.pools, &ground.subnets).await?;
        let good = found
            .into_iter()
            .filter_map(|(text, it)| Some((text, it.ok()?)));
        ground.subnets.extend(good);
        things.extend(groups::Survey::new(ec2, ask, &ground).await?.things());
    }
    let places = placements(ask);
    let there = placement::find(ec2, &places).await?;
    for name in places {
        let (action, detail) = match there.contains(&name) {
            true => ("keep", "found"),
            false => ("create", "strategy cluster"),
        };
        things.push(Thing {
            action,
            kind: "placement-group",
            name,
            detail: detail.into(),
        });
    }
    things.extend(addresses(ask));
    Ok(things)
}

/// Addresses of the machines that are to be made.
fn addresses(ask: &Ask<'_>) -> Vec<Thing> {
    let pools = missing_pools(ask).filter(|pool| pool.machine.allocate_ip_address);
    let count = |pool: &PoolSpec| ask.missing.get(pool.label()).copied().unwrap_or_default();
    pools
        .map(|pool| Thing {
            action: "allocate",
            kind: "address",
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

async fn find_types(ec2: &Client, ask: &Ask<'_>, ground: &mut Ground) -> Result<(), ProviderError> {
    let all = missing_pools(ask).flat_map(|pool| &pool.machine.types);
    let new = all
        .filter(|kind| !ground.types.contains_key(*kind))
        .cloned();
    let found = lookup::types(ec2, &new.collect()).await?;
    ground.types.extend(lookup::all(found)?);
    Ok(())
}

async fn find_subnets(
    ec2: &Client,
    ask: &Ask<'_>,
    ground: &mut Ground,
) -> Result<(), ProviderError> {
    // Wanted groups are made where any pool's machines may be.
    let found = if ask.spec.security_groups.is_empty() {
        subnets(ec2, missing_pools(ask), &ground.subnets).await?
    } else {
        subnets(ec2, &ask.spec.pools, &ground.subnets).await?
    };
    ground.subnets.extend(lookup::all(found)?);
    Ok(())
}

/// The subnets of these pools that are not known yet; the empty text is where machines go that name none.
pub(super) async fn subnets<'p>(
    ec2: &Client,
    pools: impl IntoIterator<Item = &'p PoolSpec>,
    known: &BTreeMap<String, SubnetGround>,
) -> Result<lookup::Each<String, SubnetGround>, ProviderError> {
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
    let mut found: lookup::Each<String, SubnetGround> = shown
        .into_iter()
        .map(|(text, subnet)| {
            (
                text,
                subnet.and_then(|subnet| lookup::subnet_ground(&subnet)),
            )
        })
        .collect();
    if by_default {
        let vpc = lookup::default_vpc(ec2).await?;
        let ground = vpc.map(|vpc| SubnetGround {
            vpc,
            ..SubnetGround::default()
        });
        let none = || invalid("there is no default VPC in this region: set `subnet`");
        found.insert(String::new(), ground.ok_or_else(none));
    }
    Ok(found)
}

async fn find_images(
    finder: &Finder<'_>,
    ask: &Ask<'_>,
    ground: &mut Ground,
) -> Result<(), ProviderError> {
    let (keys, known) = image_keys(ask, ground);
    let found = lookup::all(finder.find(&keys, &known).await?)?;
    let kept = found
        .into_iter()
        .map(|((text, arch), id)| (Ground::image_key(&text, &arch), id));
    ground.images.extend(kept);
    Ok(())
}

/// The images of the machines that are to be made, as far as the types are known, and those among them that were recorded.
pub(super) fn image_keys(ask: &Ask<'_>, ground: &Ground) -> (BTreeSet<Key>, BTreeMap<Key, String>) {
    let mut keys = BTreeSet::new();
    for pool in missing_pools(ask) {
        let Some(text) = &pool.machine.ami else {
            continue;
        };
        let types = pool.machine.types.iter();
        let archs = types.filter_map(|kind| Some(ground.types.get(kind)?.arch.clone()));
        keys.extend(archs.map(|arch| (text.clone(), arch)));
    }
    let recorded = |key: &Key| {
        let id = ground.images.get(&Ground::image_key(&key.0, &key.1))?;
        Some((key.clone(), id.clone()))
    };
    let known = keys.iter().filter_map(recorded).collect();
    (keys, known)
}

#[cfg(test)]
#[path = "ground_tests.rs"]
pub(super) mod tests;
