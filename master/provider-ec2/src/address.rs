//! Elastic IPs: each machine of a list gets one of its own, and keeps it over stop and start. Called by the provider;
//! what to do with which address is decided in pure code.

use std::collections::{BTreeMap, BTreeSet};

use aot_host::chain::Chain;
use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::{ClusterRef, ElasticIp, MachineState, ProviderError, tags};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Address, DomainType, ResourceType, Tag, TagSpecification};
use futures::StreamExt as _;

use super::client::{Clients, call};
use super::error::cut_off;
use super::{convert, fresh, listing};

/// Machines that are served at the same time.
const AT_ONCE: usize = 8;

/// The result for one machine.
type Given = (MachineId, Result<ElasticIp, ProviderError>);

/// An address that carries the cluster's uuid.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ours {
    ip: ElasticIp,
    /// The machine it sits on.
    machine: Option<String>,
    /// It sits on something: a machine, or an interface without one.
    associated: bool,
    /// The instance it was made for.
    instance: Option<String>,
}

/// What gives a machine its address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AddressPlan {
    /// It has this one.
    Keep(ElasticIp),
    /// This one is free, or sits on a machine that is gone.
    Reuse {
        ip: ElasticIp,
        /// It was another instance's.
        retag: bool,
        /// It sits on a machine that is gone.
        from_gone: bool,
    },
    /// A new one.
    Allocate,
}

fn ours(address: &Address) -> Option<Ours> {
    let instance = convert::tag_map(address.tags()).remove(tags::INSTANCE);
    let text = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
    let machine = text(address.instance_id());
    Some(Ours {
        ip: ElasticIp {
            allocation: address.allocation_id()?.to_owned(),
            address: address.public_ip()?.to_owned(),
        },
        associated: machine.is_some() || text(address.association_id()).is_some(),
        machine,
        instance,
    })
}

/// Whether it can be taken: it sits nowhere, or on a machine that is gone.
fn is_free(address: &Ours, gone: &BTreeSet<String>) -> bool {
    match &address.machine {
        Some(machine) => gone.contains(machine),
        None => !address.associated,
    }
}

/// A step for each machine, in their order, and free addresses that nobody needs: those of an instance that gets another
/// one. Its own comes first, then one made for it, then one made for none, then any free one.
fn decide(
    addresses: &[Ours],
    machines: &[(MachineId, InstanceName)],
    gone: &BTreeSet<String>,
) -> (Vec<AddressPlan>, BTreeMap<String, Vec<ElasticIp>>) {
    let mut free: Vec<&Ours> = addresses.iter().filter(|it| is_free(it, gone)).collect();
    // The same address for the same question, whatever EC2's order.
    free.sort_by_key(|it| (it.instance.is_some(), &it.ip.allocation));
    let sits_on = |machine: &MachineId| {
        let here = |it: &&Ours| it.machine.as_deref() == Some(machine.as_str());
        addresses.iter().find(here)
    };
    let mut steps: Vec<Option<AddressPlan>> = machines
        .iter()
        .map(|(machine, _)| sits_on(machine).map(|it| AddressPlan::Keep(it.ip.clone())))
        .collect();
    let mut spare: BTreeMap<String, Vec<ElasticIp>> = BTreeMap::new();
    for (step, (_, name)) in steps.iter_mut().zip(machines) {
        let (own, others): (Vec<&Ours>, _) = free
            .into_iter()
            .partition(|it| it.instance.as_deref() == Some(name.as_str()));
        free = others;
        let mut own = own.into_iter();
        if step.is_none() {
            *step = own.next().map(|it| reuse(it, name));
        }
        for it in own {
            spare
                .entry(name.to_string())
                .or_default()
                .push(it.ip.clone());
        }
    }
    let mut free = free.into_iter();
    let steps = steps
        .into_iter()
        .zip(machines)
        .map(|(step, (_, name))| {
            step.or_else(|| free.next().map(|it| reuse(it, name)))
                .unwrap_or(AddressPlan::Allocate)
        })
        .collect();
    (steps, spare)
}

fn reuse(address: &Ours, name: &InstanceName) -> AddressPlan {
    AddressPlan::Reuse {
        ip: address.ip.clone(),
        retag: address.instance.as_deref() != Some(name.as_str()),
        from_gone: address.machine.is_some(),
    }
}

/// Gives each machine its address; one failure is that machine's alone. A lost answer to AllocateAddress, which knows no
/// client token, may leave a second address: it carries the instance's name and is released here the next time, or by
/// `cleanup`.
pub(super) async fn give(
    clients: &Clients,
    cluster: &ClusterRef,
    machines: &[(MachineId, InstanceName)],
) -> Vec<Given> {
    if machines.is_empty() {
        return Vec::new();
    }
    let known = async {
        let (client, region) = clients.client(cluster.region.as_deref()).await?;
        let found = listing::addresses(&client, listing::of_cluster(&cluster.uuid)).await?;
        let found: Vec<Ours> = found.iter().filter_map(ours).collect();
        let gone = gone(&client, &region, cluster, machines, &found).await?;
        Ok((client, found, gone))
    };
    let (client, found, gone) = match known.await {
        Ok(known) => known,
        Err(error) => return all_failed(machines, &error),
    };
    let (steps, spare) = decide(&found, machines, &gone);
    let (client, spare) = (&client, &spare);
    let each = steps
        .into_iter()
        .zip(machines.to_vec())
        .map(|(step, (machine, name))| async move {
            let given = act(client, cluster, &machine, &name, step).await;
            if given.is_ok() {
                for ip in spare.get(name.as_str()).into_iter().flatten() {
                    release(client, ip).await;
                }
            }
            (machine, given)
        });
    futures::stream::iter(each)
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn all_failed(machines: &[(MachineId, InstanceName)], error: &ProviderError) -> Vec<Given> {
    machines
        .iter()
        .map(|(machine, _)| (machine.clone(), Err(error.clone())))
        .collect()
}

/// Machines with an address of ours that are gone. EC2 frees an address when its machine ends, so this is rarely asked.
async fn gone(
    client: &Client,
    region: &str,
    cluster: &ClusterRef,
    machines: &[(MachineId, InstanceName)],
    addresses: &[Ours],
) -> Result<BTreeSet<String>, ProviderError> {
    let asked_for = |id: &String| machines.iter().any(|(machine, _)| machine.as_str() == id);
    let sits_elsewhere = |it: &Ours| it.machine.as_ref().is_some_and(|id| !asked_for(id));
    let has = |machine: &MachineId| {
        let here = |it: &Ours| it.machine.as_deref() == Some(machine.as_str());
        addresses.iter().any(here)
    };
    let all_have = machines.iter().all(|(machine, _)| has(machine));
    if all_have || !addresses.iter().any(sits_elsewhere) {
        return Ok(BTreeSet::new());
    }
    let filter = listing::of_cluster(&cluster.uuid);
    let all = listing::machines(client, region, filter).await?;
    Ok(all
        .machines
        .into_iter()
        .filter(|machine| machine.state == MachineState::Terminated)
        .map(|machine| machine.id.to_string())
        .collect())
}

async fn act(
    client: &Client,
    cluster: &ClusterRef,
    machine: &MachineId,
    name: &InstanceName,
    step: AddressPlan,
) -> Result<ElasticIp, ProviderError> {
    let mut is_new = false;
    let (ip, from_gone) = match step {
        AddressPlan::Keep(ip) => return Ok(ip),
        AddressPlan::Reuse {
            ip,
            retag,
            from_gone,
        } => {
            if retag {
                let request = client
                    .create_tags()
                    .resources(&ip.allocation)
                    .set_tags(Some(own_tags(name)));
                call("CreateTags", request.send()).await?;
            }
            (ip, from_gone)
        }
        AddressPlan::Allocate => {
            is_new = true;
            (allocate(client, cluster, name).await?, false)
        }
    };
    let associate = || {
        let request = client
            .associate_address()
            .allocation_id(&ip.allocation)
            .instance_id(machine.as_str())
            .allow_reassociation(from_gone);
        call("AssociateAddress", request.send())
    };
    let done = match is_new {
        true => fresh::call(&fresh::ADDRESS, associate).await,
        false => fresh::with_tags(associate).await,
    };
    // The machine runs, as EC2 has shown: it is known everywhere soon.
    done.map_err(|error| match fresh::is(&error, &fresh::MACHINE) {
        true => fresh::passes(error),
        false => error,
    })?;
    tracing::info!(%machine, instance = %name, address = ip.address, "address given");
    Ok(ip)
}

fn own_tags(name: &InstanceName) -> Vec<Tag> {
    [tags::NAME, tags::INSTANCE]
        .map(|key| Tag::builder().key(key).value(name.as_str()).build())
        .to_vec()
}

async fn allocate(
    client: &Client,
    cluster: &ClusterRef,
    name: &InstanceName,
) -> Result<ElasticIp, ProviderError> {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let specification = TagSpecification::builder()
        .resource_type(ResourceType::ElasticIp)
        .set_tags(Some(own_tags(name)))
        .tags(tag(tags::CLUSTER, cluster.name.as_str()))
        .tags(tag(tags::CLUSTER_UUID, &cluster.uuid))
        .build();
    let request = client
        .allocate_address()
        .domain(DomainType::Vpc)
        .tag_specifications(specification);
    let answer = call("AllocateAddress", request.send()).await?;
    match (answer.allocation_id, answer.public_ip) {
        (Some(allocation), Some(address)) => Ok(ElasticIp {
            allocation,
            address,
        }),
        _ => Err(cut_off("EC2 AllocateAddress: the answer is cut off")),
    }
}

/// One too many; if it stays now, it goes the next time or at cleanup.
async fn release(client: &Client, ip: &ElasticIp) {
    let request = client.release_address().allocation_id(&ip.allocation);
    if let Err(error) = call("ReleaseAddress", request.send()).await {
        tracing::warn!(address = ip.address, error = %Chain(&error), "a surplus address is kept for now");
    }
}

#[cfg(test)]
mod tests;
