//! Elastic IPs.

use aot_proto::ids::{InstanceName, MachineId};

use super::client::Clients;
use super::error::invalid;
use crate::provider::{ClusterRef, ElasticIp, ProviderError};

/// Gives each machine its address.
pub(super) async fn give(
    _: &Clients,
    _: &ClusterRef,
    machines: &[(MachineId, InstanceName)],
) -> Vec<(MachineId, Result<ElasticIp, ProviderError>)> {
    let none = |(id, _): &(MachineId, InstanceName)| (id.clone(), Err(invalid("not yet")));
    machines.iter().map(none).collect()
}
