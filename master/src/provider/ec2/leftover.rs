//! The things besides machines that carry a cluster's uuid, and what to do with each. Called by `cleanup`; reads only.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Address, NetworkInterface, NetworkInterfaceStatus, PlacementGroup, PlacementGroupState,
    SecurityGroup, Volume, VolumeState,
};

use super::cleanup::receipt;
use super::listing::{self, of_cluster};
use crate::provider::{ProviderError, Receipt};

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    pub what: What,
    pub id: String,
}

/// What it is, with what deleting it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
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
pub(super) struct Found {
    pub things: Vec<(Leftover, Fate)>,
    /// The groups among them, with their rules.
    pub groups: Vec<SecurityGroup>,
}

impl Leftover {
    /// The receipt's word for it.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Address { .. } => "address",
            What::Interface => "network-interface",
            What::Volume => "volume",
            What::Group { .. } => "security-group",
            What::Placement { .. } => "placement-group",
        }
    }

    /// Its state when all went well.
    pub fn done(&self) -> &'static str {
        match self.what {
            What::Address { .. } => "released",
            _ => "deleted",
        }
    }

    /// Its line; groups are known to people by their names.
    pub fn receipt(&self, state: &str, left: bool) -> Receipt {
        let id = match &self.what {
            What::Group { name } | What::Placement { name } => format!("{} ({name})", self.id),
            _ => self.id.clone(),
        };
        receipt(self.kind(), &id, state, left)
    }
}

/// Finds all. Something in use is only tried when it is one of `machines`, all gone, that uses it.
pub(super) async fn find(
    client: &Client,
    uuid: &str,
    machines: &BTreeSet<&str>,
) -> Result<Found, ProviderError> {
    let addresses = listing::addresses(client, of_cluster(uuid)).await?;
    let interfaces = listing::interfaces(client, of_cluster(uuid)).await?;
    let volumes = listing::volumes(client, of_cluster(uuid)).await?;
    let groups = listing::groups(client, of_cluster(uuid)).await?;
    let placement = listing::placement_groups(client, of_cluster(uuid)).await?;
    let mut things: Vec<(Leftover, Fate)> = addresses.iter().filter_map(address).collect();
    things.extend(interfaces.iter().filter_map(|it| interface(it, machines)));
    things.extend(volumes.iter().filter_map(|it| volume(it, machines)));
    things.extend(groups.iter().filter_map(group));
    things.extend(placement.iter().filter_map(placement_group));
    Ok(Found { things, groups })
}

fn thing(what: What, id: Option<&str>, fate: Fate) -> Option<(Leftover, Fate)> {
    let id = id?.to_owned();
    Some((Leftover { what, id }, fate))
}

fn address(it: &Address) -> Option<(Leftover, Fate)> {
    let association = it.association_id().filter(|id| !id.is_empty());
    let association = association.map(str::to_owned);
    thing(
        What::Address { association },
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
    thing(What::Interface, it.network_interface_id(), fate)
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
    thing(What::Volume, it.volume_id(), fate)
}

fn group(it: &SecurityGroup) -> Option<(Leftover, Fate)> {
    let name = it.group_name().unwrap_or("").to_owned();
    thing(What::Group { name }, it.group_id(), Fate::Delete)
}

fn placement_group(it: &PlacementGroup) -> Option<(Leftover, Fate)> {
    let name = it.group_name()?.to_owned();
    let state = it.state().map_or("unknown", PlacementGroupState::as_str);
    let fate = match state {
        "deleting" | "deleted" => Fate::Gone(state.to_owned()),
        _ => Fate::Delete,
    };
    let id = it.group_id().unwrap_or(&name).to_owned();
    thing(What::Placement { name }, Some(&id), fate)
}
