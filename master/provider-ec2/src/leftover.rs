//! The things besides machines that carry a cluster's uuid, and what to do with each. Called by `cleanup`; reads only.

use std::collections::BTreeSet;

use aot_proto::ids::MachineId;
use aot_provider::{Machine, MachineState, ProviderError, Receipt};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, NetworkInterface, NetworkInterfaceStatus, PlacementGroup, PlacementGroupState,
    SecurityGroup, Volume, VolumeState,
};

use super::convert::receipt;
use super::listing::{self, of_cluster};

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    pub what: LeftoverKind,
    pub id: String,
}

/// What it is, with what deleting it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LeftoverKind {
    Address { association: Option<String> },
    Interface,
    Volume,
    Group { name: String },
    Placement { name: String },
}

/// What is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Delete,
    /// It is deleted, or EC2 is at it.
    Gone(String),
    /// Somebody else uses it.
    Stays(String),
}

/// All of a cluster's, in the order in which they can go.
#[derive(Debug, Default)]
pub(super) struct ClusterLeftovers {
    pub things: Vec<(Leftover, Fate)>,
    /// The groups among them, with their rules.
    pub groups: Vec<SecurityGroup>,
}

impl Leftover {
    /// What the receipt calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.what {
            LeftoverKind::Address { .. } => "address",
            LeftoverKind::Interface => "network-interface",
            LeftoverKind::Volume => "volume",
            LeftoverKind::Group { .. } => "security-group",
            LeftoverKind::Placement { .. } => "placement-group",
        }
    }

    /// Its state when all went well.
    pub(crate) fn done(&self) -> &'static str {
        match self.what {
            LeftoverKind::Address { .. } => "released",
            _ => "deleted",
        }
    }

    /// Its line; groups are known to people by their names.
    pub(crate) fn receipt(&self, state: &str, left: bool) -> Receipt {
        let id = match &self.what {
            LeftoverKind::Group { name } | LeftoverKind::Placement { name } => {
                format!("{} ({name})", self.id)
            }
            _ => self.id.clone(),
        };
        receipt(self.kind(), &id, state, left)
    }
}

/// Finds all. Something in use is only tried when it is one of `machines`, all gone, that uses it, or one that EC2 no
/// longer has: a machine's tags may go before what it held is let go of.
pub(super) async fn find(
    client: &Client,
    uuid: &str,
    machines: &BTreeSet<&str>,
) -> Result<ClusterLeftovers, ProviderError> {
    let addresses = listing::addresses(client, of_cluster(uuid)).await?;
    let interfaces = listing::interfaces(client, of_cluster(uuid)).await?;
    let volumes = listing::volumes(client, of_cluster(uuid)).await?;
    let groups = listing::groups(client, of_cluster(uuid)).await?;
    let placement = listing::placement_groups(client, of_cluster(uuid)).await?;
    let of_interfaces = interfaces.iter().filter_map(NetworkInterface::attachment);
    let of_interfaces = of_interfaces.filter_map(|held| held.instance_id());
    let of_volumes = volumes.iter().flat_map(Volume::attachments);
    let of_volumes = of_volumes.filter_map(|held| held.instance_id());
    let others = of_interfaces
        .chain(of_volumes)
        .filter(|holder| !machines.contains(holder));
    let gone = gone(client, others.collect()).await;
    let mut machines = machines.clone();
    machines.extend(gone.iter().map(MachineId::as_str));
    let machines = &machines;
    let mut things: Vec<(Leftover, Fate)> = addresses.iter().filter_map(address).collect();
    things.extend(interfaces.iter().filter_map(|it| interface(it, machines)));
    things.extend(volumes.iter().filter_map(|it| volume(it, machines)));
    things.extend(groups.iter().filter_map(group));
    things.extend(placement.iter().filter_map(placement_group));
    Ok(ClusterLeftovers { things, groups })
}

/// Those of these machines that are gone. None, when that can't be known.
async fn gone(client: &Client, machines: BTreeSet<&str>) -> Vec<MachineId> {
    let mut ids: Vec<MachineId> = machines.iter().filter_map(|id| id.parse().ok()).collect();
    if ids.is_empty() {
        return ids;
    }
    let Ok(shown) = listing::by_ids(client, "", &ids).await else {
        return Vec::new();
    };
    let lives = |machine: &&Machine| machine.state != MachineState::Terminated;
    let living: BTreeSet<&MachineId> = shown
        .machines
        .iter()
        .filter(lives)
        .map(|machine| &machine.id)
        .chain(&shown.unclear)
        .collect();
    ids.retain(|id| !living.contains(id));
    ids
}

fn thing(what: LeftoverKind, id: Option<&str>, fate: Fate) -> Option<(Leftover, Fate)> {
    let id = id?.to_owned();
    Some((Leftover { what, id }, fate))
}

fn address(it: &Address) -> Option<(Leftover, Fate)> {
    let association = it.association_id().filter(|id| !id.is_empty());
    let association = association.map(str::to_owned);
    thing(
        LeftoverKind::Address { association },
        it.allocation_id(),
        Fate::Delete,
    )
}

fn interface(it: &NetworkInterface, machines: &BTreeSet<&str>) -> Option<(Leftover, Fate)> {
    let status = it
        .status()
        .map_or("unknown", NetworkInterfaceStatus::as_str);
    let holder = it.attachment().and_then(|held| held.instance_id());
    let fate = match (status, holder) {
        ("available", _) => Fate::Delete,
        (_, Some(holder)) if machines.contains(holder) => Fate::Delete,
        (_, Some(holder)) => Fate::Stays(format!("{status} by {holder}")),
        (_, None) => Fate::Stays(status.to_owned()),
    };
    thing(LeftoverKind::Interface, it.network_interface_id(), fate)
}

fn volume(it: &Volume, machines: &BTreeSet<&str>) -> Option<(Leftover, Fate)> {
    let state = it.state().map_or("unknown", VolumeState::as_str);
    let holders: Vec<&str> = it
        .attachments()
        .iter()
        .filter_map(|held| held.instance_id())
        .collect();
    let by_ours = !holders.is_empty() && holders.iter().all(|holder| machines.contains(holder));
    let fate = match state {
        "available" | "error" | "creating" => Fate::Delete,
        "deleting" | "deleted" => Fate::Gone(state.to_owned()),
        "in-use" if by_ours => Fate::Delete,
        other if holders.is_empty() => Fate::Stays(other.to_owned()),
        other => Fate::Stays(format!("{other} by {}", holders.join(", "))),
    };
    thing(LeftoverKind::Volume, it.volume_id(), fate)
}

fn group(it: &SecurityGroup) -> Option<(Leftover, Fate)> {
    let name = it.group_name().unwrap_or("").to_owned();
    thing(LeftoverKind::Group { name }, it.group_id(), Fate::Delete)
}

fn placement_group(it: &PlacementGroup) -> Option<(Leftover, Fate)> {
    let name = it.group_name()?.to_owned();
    let state = it.state().map_or("unknown", PlacementGroupState::as_str);
    let fate = match state {
        "deleting" | "deleted" => Fate::Gone(state.to_owned()),
        _ => Fate::Delete,
    };
    let id = it.group_id().unwrap_or(&name).to_owned();
    thing(LeftoverKind::Placement { name }, Some(&id), fate)
}
