//! Ends and deletes what carries the uuid of a cluster in one region: the call of a job that deletes orphans.

use std::time::Duration;

use aot_model::machine::{ClusterRef, Listing, MachineState};
use aot_proto::ids::MachineId;
use aot_provider::{Changed, Lifecycle, Provider, ProviderError, Receipt};
use futures::future::BoxFuture;
use tokio::time::{Instant, interval, timeout_at};

/// Longest time until every machine of one region is terminated and the rest deleted.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// How often machines are listed until then.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// Terminates what runs, waits until it is gone, deletes the rest. `report` gets how far it is. Safe to repeat.
pub(super) async fn delete(
    provider: &dyn Provider,
    cluster: &ClusterRef,
    report: impl Fn(String) -> BoxFuture<'static, ()> + Send + Sync,
) -> Result<Vec<Receipt>, ProviderError> {
    let deadline = Instant::now() + LIMIT;
    let listing = provider.describe(cluster).await?;
    let ids: Vec<MachineId> = living(&listing).collect();
    if !ids.is_empty() {
        let changed = provider
            .lifecycle(cluster, Lifecycle::Terminate, &ids)
            .await?;
        // What is not known is gone, and the listing will say so; what is refused stays for good.
        Changed {
            unknown: Vec::new(),
            ..changed
        }
        .of_all()?;
    }
    let (mut poll, mut reported) = (interval(POLL_EVERY), None);
    loop {
        // What is still there at the deadline is in the receipt.
        if ids.is_empty() || timeout_at(deadline, poll.tick()).await.is_err() {
            break;
        }
        let left = living(&provider.describe(cluster).await?).count();
        let more = if left == 0 { "" } else { ", waiting..." };
        let (there, of) = (ids.len().saturating_sub(left), ids.len());
        // Only what is new.
        if reported != Some(left) {
            reported = Some(left);
            report(format!("[{there}/{of}] instances 'terminated'{more}")).await;
        }
        if left == 0 {
            break;
        }
    }
    provider.cleanup(cluster).await
}

fn living(listing: &Listing) -> impl Iterator<Item = MachineId> {
    let running = listing
        .machines
        .iter()
        .filter(|machine| machine.state != MachineState::Terminated)
        .map(|machine| &machine.id);
    running.chain(&listing.unclear).cloned()
}

#[cfg(test)]
pub(super) mod tests;
