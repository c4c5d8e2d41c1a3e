//! What a cluster leaves behind besides machines: volumes and interfaces that carry its uuid. Deletes what is free.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, NetworkInterfaceStatus, VolumeState};

use super::client::call;
use crate::provider::{Machine, MachineState, ProviderError, Receipt, tags};

fn ours(uuid: &str) -> Filter {
    Filter::builder()
        .name(format!("tag:{}", tags::CLUSTER_UUID))
        .values(uuid)
        .build()
}

fn receipt(kind: &str, id: &str, state: impl Into<String>, left: bool) -> Receipt {
    Receipt {
        kind: kind.into(),
        id: id.into(),
        state: state.into(),
        left,
    }
}

/// Receipts of the machines as they are.
pub(super) fn machines(machines: &[Machine]) -> Vec<Receipt> {
    let line = |it: &Machine| {
        receipt(
            "instance",
            it.id.as_str(),
            it.state.as_str(),
            it.state != MachineState::Terminated,
        )
    };
    machines.iter().map(line).collect()
}

/// Deletes the cluster's free interfaces, then its free volumes. A volume that should outlive its machine
/// (`delete_on_termination: false`) was made by us too, and goes.
pub(super) async fn rest(client: &Client, uuid: &str) -> Result<Vec<Receipt>, ProviderError> {
    let mut receipts = interfaces(client, uuid).await?;
    receipts.extend(volumes(client, uuid).await?);
    Ok(receipts)
}

async fn interfaces(client: &Client, uuid: &str) -> Result<Vec<Receipt>, ProviderError> {
    let mut receipts = Vec::new();
    let mut next = None;
    loop {
        let request = client
            .describe_network_interfaces()
            .filters(ours(uuid))
            .set_next_token(next);
        let page = call("DescribeNetworkInterfaces", request.send()).await?;
        for interface in page.network_interfaces() {
            let Some(id) = interface.network_interface_id() else {
                continue;
            };
            let status = interface
                .status()
                .map_or("unknown", NetworkInterfaceStatus::as_str);
            receipts.push(if status == "available" {
                let deleted = call(
                    "DeleteNetworkInterface",
                    client
                        .delete_network_interface()
                        .network_interface_id(id)
                        .send(),
                );
                outcome("network-interface", id, deleted.await.map(drop))
            } else {
                receipt("network-interface", id, status, true)
            });
        }
        next = page
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(receipts);
        }
    }
}

async fn volumes(client: &Client, uuid: &str) -> Result<Vec<Receipt>, ProviderError> {
    let mut receipts = Vec::new();
    let mut next = None;
    loop {
        let request = client
            .describe_volumes()
            .filters(ours(uuid))
            .set_next_token(next);
        let page = call("DescribeVolumes", request.send()).await?;
        for volume in page.volumes() {
            let Some(id) = volume.volume_id() else {
                continue;
            };
            let state = volume.state().map_or("unknown", VolumeState::as_str);
            receipts.push(match state {
                "available" | "error" => {
                    let deleted = call("DeleteVolume", client.delete_volume().volume_id(id).send());
                    outcome("volume", id, deleted.await.map(drop))
                }
                "deleting" | "deleted" => receipt("volume", id, state, false),
                other => receipt("volume", id, other, true),
            });
        }
        next = page
            .next_token()
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        if next.is_none() {
            return Ok(receipts);
        }
    }
}

/// Gone already is as good as deleted.
fn outcome(kind: &str, id: &str, result: Result<(), ProviderError>) -> Receipt {
    match result {
        Ok(()) => receipt(kind, id, "deleted", false),
        Err(error)
            if error
                .code
                .as_deref()
                .is_some_and(|code| code.ends_with(".NotFound")) =>
        {
            receipt(kind, id, "deleted", false)
        }
        Err(error) => receipt(kind, id, error.message, true),
    }
}
