//! Tells the master that a cluster was taken over from. It may live, and be cut off from nothing but the store: then it hears of it
//! here alone, and its machines stay with it until it does.

use std::time::Duration;

use aot_proto::v1;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ways::Ways;
use crate::run::TakenOver;

/// How often one that does not answer is told: it is dead, most likely.
const TRIES: usize = 60;

/// Between two tries, and for one.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells whoever is concerned, until `stop` fires.
pub(crate) async fn announce_losses(
    mut taken: broadcast::Receiver<TakenOver>,
    ways: Ways,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let one = tokio::select! {
            one = taken.recv() => one,
            () = stop.cancelled() => return,
        };
        match one {
            Ok(one) => {
                let (ways, stop) = (ways.clone(), stop.clone());
                tasks.spawn(async move {
                    let _ = stop.run_until_cancelled(announce_loss(&one, &ways)).await;
                });
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {} // those find out by their beats
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn announce_loss(taken: &TakenOver, ways: &Ways) {
    for _ in 0..TRIES {
        let known = ways.finder.known();
        let master = known.and_then(|view| view.masters.get(&taken.from).cloned());
        let Some(master) = master else {
            return; // it has left
        };
        let request = v1::TakenOverRequest {
            cluster: taken.cluster.to_string(),
            epoch: taken.epoch,
        };
        let told = async { ways.client(master, "")?.taken_over(request).await };
        if let Ok(Ok(_)) = tokio::time::timeout(PAUSE, told).await {
            tracing::info!(cluster = %taken.cluster, master = taken.from, "the master that had the cluster knows that it has lost it");
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
