//! What a cluster leaves behind besides machines: everything that carries its uuid, and nothing else. Deletes it once
//! the machines are gone, waits for what EC2 lets go of slowly, and says what became of each thing. Called by the
//! provider. What aot merely found carries no uuid and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aot_proto::ids::MachineId;
use aot_provider::{Listing, Machine, MachineState, ProviderError, Receipt};
use aws_sdk_ec2::Client;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::client::call;
use super::convert::receipt;
use super::leftover::{Fate, Leftover, LeftoverKind, find};
use super::references;

/// How long all is waited for together: a terminated machine holds its groups for up to a minute or so.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long a refusal is doubted while listings still show the thing: a volume is listed a moment after its machine.
const DOUBT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Things of one kind that are deleted at the same time.
const AT_ONCE: usize = 8;

/// Codes that say that something else still holds a thing, and will let go of it.
const HELD: [&str; 6] = [
    "DependencyViolation",
    "InvalidPlacementGroup.InUse",
    "InvalidNetworkInterface.InUse",
    "InvalidIPAddress.InUse",
    "VolumeInUse",
    "IncorrectState",
];

/// Receipts of the machines as they are.
pub(super) fn machines(listing: &Listing) -> Vec<Receipt> {
    let unclear = |id| {
        receipt(
            "instance",
            MachineId::as_str(id),
            "in an unclear state",
            true,
        )
    };
    let line = |it: &Machine| {
        receipt(
            "instance",
            it.id.as_str(),
            it.state.as_str(),
            it.state != MachineState::Terminated,
        )
    };
    let lines = listing.machines.iter().map(line);
    lines.chain(listing.unclear.iter().map(unclear)).collect()
}

/// Deletes the cluster's addresses, interfaces, volumes, security groups and placement groups. A volume that should
/// outlive its machine (`delete_on_termination: false`) was made by us too, and goes. `machines` are the cluster's, all
/// gone. Waits at most `patience` in all for what is still held; that is reported as left, with EC2's reason.
///
/// # Errors
/// When it can't be known what there is; then nothing was deleted.
pub(super) async fn rest(
    client: &Client,
    uuid: &str,
    machines: &[Machine],
    patience: Duration,
) -> Result<Vec<Receipt>, ProviderError> {
    let ids: BTreeSet<&str> = machines.iter().map(|machine| machine.id.as_str()).collect();
    let found = find(client, uuid, &ids).await?;
    references::revoke(client, &found.groups).await;
    let mut receipts: BTreeMap<usize, Receipt> = BTreeMap::new();
    let mut todo: Vec<(usize, Leftover)> = Vec::new();
    for (place, (thing, fate)) in found.things.into_iter().enumerate() {
        match fate {
            Fate::Delete => todo.push((place, thing)),
            Fate::Gone(state) => drop(receipts.insert(place, thing.receipt(&state, false))),
            Fate::Stays(state) => drop(receipts.insert(place, thing.receipt(&state, true))),
        }
    }
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    let doubt_until = Instant::now() + patience.min(DOUBT);
    while !todo.is_empty() {
        let mut held = Vec::new();
        let done = delete_all(client, todo).await;
        let mut done: Vec<(usize, Leftover, Deletion)> = done
            .into_iter()
            .map(|(place, thing, result)| {
                let outcome = outcome(&thing, result);
                (place, thing, outcome)
            })
            .collect();
        // Before anything is called left, or gone without having been deleted: EC2 may know better by now.
        if done.iter().any(|(_, _, outcome)| outcome.is_doubtful()) {
            let shown = find(client, uuid, &ids).await?;
            for (_, thing, outcome) in &mut done {
                let is_shown = shown
                    .things
                    .iter()
                    .any(|(it, fate)| it.id == thing.id && !matches!(fate, Fate::Gone(_)));
                outcome.judge(is_shown, Instant::now() < doubt_until);
            }
        }
        for (place, thing, outcome) in done {
            match outcome {
                Deletion::Held(why) if Instant::now() < deadline => held.push((place, thing, why)),
                Deletion::Held(why) | Deletion::Left(why) => {
                    receipts.insert(place, thing.receipt(&why, true));
                }
                Deletion::Gone | Deletion::Unknown(_) => {
                    receipts.insert(place, thing.receipt(thing.done(), false));
                }
            }
        }
        if let Some((_, thing, why)) = held.first() {
            tracing::debug!(held = held.len(), id = thing.id, why, "still held");
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        todo = held
            .into_iter()
            .map(|(place, thing, _)| (place, thing))
            .collect();
    }
    Ok(receipts.into_values().collect())
}

/// What one call came to.
#[derive(Debug, PartialEq, Eq)]
enum Deletion {
    Gone,
    /// EC2 says that it does not know it.
    Unknown(String),
    Held(String),
    Left(String),
}

impl Deletion {
    /// It may be otherwise: something that is gone has no tags, and a policy that asks for them refuses; something that
    /// was made a moment ago may be unknown.
    fn is_doubtful(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Left(_))
    }

    /// What it came to, as a listing made since shows the thing or not; `may_change` = what is listed may be about to go.
    fn judge(&mut self, is_shown: bool, may_change: bool) {
        *self = match (std::mem::replace(self, Self::Gone), is_shown) {
            (Self::Unknown(_) | Self::Left(_), false) => Self::Gone,
            (Self::Unknown(why) | Self::Left(why), true) if may_change => Self::Held(why),
            (Self::Unknown(why), true) => Self::Left(why),
            (other, _) => other,
        };
    }
}

/// Gone already is as good as deleted.
fn outcome(thing: &Leftover, result: Result<(), ProviderError>) -> Deletion {
    let Err(error) = result else {
        return Deletion::Gone;
    };
    let code = error.code.as_deref().unwrap_or("");
    let unknown = code.ends_with(".NotFound") || code == "InvalidPlacementGroup.Unknown";
    // Of an interface in use EC2 says InvalidParameterValue.
    let in_use = thing.what == LeftoverKind::Interface && error.message.contains("in use");
    if unknown {
        Deletion::Unknown(error.message)
    } else if in_use || HELD.contains(&code) {
        Deletion::Held(error.message)
    } else {
        Deletion::Left(error.message)
    }
}

/// One try for each; kind after kind, as some hold others.
async fn delete_all(
    client: &Client,
    todo: Vec<(usize, Leftover)>,
) -> Vec<(usize, Leftover, Result<(), ProviderError>)> {
    let mut done = Vec::with_capacity(todo.len());
    let mut todo = todo.into_iter().peekable();
    while let Some(first) = todo.next() {
        let kind = first.1.kind();
        let mut same = vec![first];
        while let Some(more) = todo.next_if(|(_, thing)| thing.kind() == kind) {
            same.push(more);
        }
        let calls = same.into_iter().map(|(place, thing)| async move {
            let result = delete(client, &thing).await;
            (place, thing, result)
        });
        let calls = futures::stream::iter(calls).buffered(AT_ONCE);
        done.extend(calls.collect::<Vec<_>>().await);
    }
    done
}

async fn delete(client: &Client, thing: &Leftover) -> Result<(), ProviderError> {
    let id = thing.id.as_str();
    match &thing.what {
        LeftoverKind::Address { association } => {
            if let Some(association) = association {
                let request = client.disassociate_address().association_id(association);
                let freed = call("DisassociateAddress", request.send()).await.map(drop);
                // Its machine's end may have freed it meanwhile.
                match outcome(thing, freed) {
                    Deletion::Gone | Deletion::Unknown(_) => {}
                    Deletion::Held(why) | Deletion::Left(why) => {
                        tracing::debug!(id, why, "not disassociated");
                    }
                }
            }
            let request = client.release_address().allocation_id(id);
            call("ReleaseAddress", request.send()).await.map(drop)
        }
        LeftoverKind::Interface => {
            let request = client.delete_network_interface().network_interface_id(id);
            call("DeleteNetworkInterface", request.send())
                .await
                .map(drop)
        }
        LeftoverKind::Volume => {
            let request = client.delete_volume().volume_id(id);
            call("DeleteVolume", request.send()).await.map(drop)
        }
        LeftoverKind::Group { .. } => {
            let request = client.delete_security_group().group_id(id);
            call("DeleteSecurityGroup", request.send()).await.map(drop)
        }
        LeftoverKind::Placement { name } => {
            let request = client.delete_placement_group().group_name(name);
            call("DeletePlacementGroup", request.send()).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests;
