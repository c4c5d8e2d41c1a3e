//! Ends and deletes what carries the tag of a cluster that this master does not have. Asked for by an operator, by
//! uuid; refuses the uuids of clusters in the store.

use std::time::Duration;

use aot_proto::ids::MachineId;
use aot_proto::v1;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::{EVENTS, Events, OperatorApi};
use super::Place;
use crate::model::machine::{ClusterRef, Machine, MachineState};
use crate::provider::{Lifecycle, ProviderError, Receipt};
use crate::run::now_ms;

/// Longest time until every machine of one region is terminated and the rest deleted.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// How often machines are looked at until then.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One region that has things of the cluster.
struct Doomed {
    place: Place,
    cluster: ClusterRef,
}

impl OperatorApi {
    pub(in super::super) async fn do_delete_orphans(
        &self,
        request: v1::DeleteOrphansRequest,
    ) -> Result<Events, Status> {
        let v1::DeleteOrphansRequest { uuid, region } = request;
        if uuid.is_empty() {
            return Err(Status::invalid_argument("say which uuid"));
        }
        self.refuse_ours(&uuid)?;
        let default = self.default_region().await;
        let doomed = self.doomed(&uuid, &region, default.as_deref()).await?;
        if doomed.is_empty() {
            return Err(Status::not_found(format!(
                "nothing carries the tag of a cluster {uuid}"
            )));
        }
        let (sender, stream) = mpsc::channel(EVENTS);
        let (api, reporter) = (self.clone(), Reporter { sender });
        self.tasks.spawn(async move {
            tokio::select! {
                () = all(|| api.refuse_ours(&uuid), doomed, &reporter) => {}
                () = api.stop.cancelled() => reporter.broken(super::super::stopping()).await,
            }
        });
        Ok(ReceiverStream::new(stream).boxed())
    }

    /// A cluster of the store is cleaned up, not deleted behind its back.
    fn refuse_ours(&self, uuid: &str) -> Result<(), Status> {
        let ours = self.engine.look(|world| {
            let mut clusters = world.clusters.values();
            clusters
                .find(|cluster| cluster.uuid == uuid)
                .map(|cluster| cluster.spec.name.clone())
        });
        match ours {
            Some(name) => Err(Status::failed_precondition(format!(
                "{uuid} is cluster {name} of this master: aot-master cleanup {name} deletes it"
            ))),
            None => Ok(()),
        }
    }

    /// The places that have things with this uuid; only `region` when one is given.
    async fn doomed(
        &self,
        uuid: &str,
        region: &str,
        default: Option<&str>,
    ) -> Result<Vec<Doomed>, Status> {
        let mut doomed = Vec::new();
        for place in self.places(region, default).await? {
            if !region.is_empty() && place.name != region {
                continue;
            }
            let tagged = match place.tagged().await {
                Ok(tagged) => tagged,
                Err(status) if place.needed => return Err(status),
                Err(_) => continue,
            };
            let found = tagged
                .iter()
                .find(|thing| !thing.gone && thing.uuid == uuid);
            let Some(name) = found.map(|thing| &thing.cluster) else {
                continue;
            };
            let cluster = ClusterRef {
                name: name.parse().map_err(|_| {
                    Status::failed_precondition(format!(
                        "the Cluster tag {name:?} of what carries {uuid} is no name of a cluster: aot did not make it"
                    ))
                })?,
                uuid: uuid.to_owned(),
                region: (place.name != super::LOCAL).then(|| place.name.clone()),
            };
            doomed.push(Doomed { place, cluster });
        }
        Ok(doomed)
    }
}

/// One region after the other, and the end of the stream. `may` is asked before each.
async fn all(may: impl Fn() -> Result<(), Status>, doomed: Vec<Doomed>, reporter: &Reporter) {
    let (mut left, mut total) = (0, 0);
    for one in doomed {
        if let Err(status) = may() {
            return reporter.broken(status).await;
        }
        match delete(&one, reporter).await {
            Ok(receipts) => {
                total += receipts.len();
                left += receipts.iter().filter(|receipt| receipt.left).count();
                for receipt in receipts {
                    reporter.receipt(&one.cluster, receipt).await;
                }
            }
            Err(error) => {
                left += 1;
                let text = format!("in {}: {error}", one.place.name);
                reporter.tell(&one.cluster, "notice", text).await;
            }
        }
    }
    reporter.end(left, total).await;
}

/// Terminates what runs, waits until it is gone, deletes the rest.
async fn delete(one: &Doomed, reporter: &Reporter) -> Result<Vec<Receipt>, ProviderError> {
    let (provider, cluster) = (&one.place.provider, &one.cluster);
    let deadline = Instant::now() + LIMIT;
    let machines = provider.describe(cluster).await?;
    let ids: Vec<MachineId> = living(&machines).collect();
    if !ids.is_empty() {
        provider
            .lifecycle(cluster, Lifecycle::Terminate, &ids)
            .await?;
    }
    let (mut look, mut said) = (interval(LOOK_EVERY), None);
    loop {
        // What is still there at the deadline is told by the receipt.
        if ids.is_empty() || timeout_at(deadline, look.tick()).await.is_err() {
            break;
        }
        let left = living(&provider.describe(cluster).await?).count();
        let more = if left == 0 { "" } else { ", waiting..." };
        let (there, of) = (ids.len().saturating_sub(left), ids.len());
        let text = format!("[{there}/{of}] instances 'terminated'{more}");
        // Only what is new: a reader that has stopped reading must not hold up the deletion for long.
        if said != Some(left) {
            said = Some(left);
            reporter.tell(cluster, "wait-progress", text).await;
        }
        if left == 0 {
            break;
        }
    }
    provider.cleanup(cluster).await
}

fn living(machines: &[Machine]) -> impl Iterator<Item = MachineId> {
    machines
        .iter()
        .filter(|machine| machine.state != MachineState::Terminated)
        .map(|machine| machine.id.clone())
}

/// Tells the operator, if one still listens; what was begun goes on without.
struct Reporter {
    sender: mpsc::Sender<Result<v1::Event, Status>>,
}

impl Reporter {
    async fn send(&self, event: v1::Event) {
        let _ = self.sender.send(Ok(event)).await; // nobody listens any more
    }

    async fn broken(&self, status: Status) {
        let _ = self.sender.send(Err(status)).await; // nobody listens any more
    }

    async fn tell(&self, cluster: &ClusterRef, word: &str, message: String) {
        self.send(v1::Event {
            unix_ms: now_ms(),
            cluster: cluster.name.to_string(),
            event: word.to_owned(),
            message,
            ..v1::Event::default()
        })
        .await;
    }

    async fn receipt(&self, cluster: &ClusterRef, receipt: Receipt) {
        let text = format!("{} {}: {}", receipt.kind, receipt.id, receipt.state);
        let fields = serde_json::to_string(&receipt).unwrap_or_default();
        self.send(v1::Event {
            unix_ms: now_ms(),
            cluster: cluster.name.to_string(),
            event: "receipt".to_owned(),
            message: text,
            fields_json: fields,
            ..v1::Event::default()
        })
        .await;
    }

    async fn end(&self, left: usize, total: usize) {
        self.send(v1::Event {
            unix_ms: now_ms(),
            event: "orphans-deleted".to_owned(),
            message: match left {
                0 => format!("{total} things are gone"),
                1 => "1 thing is left; the same command tries again".to_owned(),
                _ => format!("{left} things are left; the same command tries again"),
            },
            exit_code: u32::from(left > 0),
            last: true,
            ..v1::Event::default()
        })
        .await;
    }
}

#[cfg(test)]
#[path = "delete_tests.rs"]
mod tests;
