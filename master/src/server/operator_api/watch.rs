//! Events for operators: what happens in a cluster, until something ends it.

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1;
use futures::StreamExt;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{EVENTS, Events, OperatorApi};
use crate::model::cluster::{Instance, Key};
use crate::model::world::Input;
use crate::run::{Told, now_ms};

/// When a stream of events is over.
pub(super) enum Until {
    /// When whoever reads it leaves.
    Forever,
    /// When this job ends.
    Job(JobId),
    /// When a cleanup of the cluster ends.
    Cleanup,
    /// When these instances have reached a state or phase.
    Reached {
        /// Which.
        instances: Vec<InstanceName>,
        /// What all of them must be.
        goal: Goal,
        /// Not later than this; `None` = whenever.
        deadline: Option<tokio::time::Instant>,
    },
}

/// What instances are waited for to be.
pub(super) enum Goal {
    /// In this state or phase.
    State(String),
    /// Running, with their agents back.
    Up,
    /// Running, with their agents back after a boot that is not this one.
    Rebooted(Vec<(InstanceName, String)>),
}

impl Goal {
    /// The word in `[1/4] instances 'running'`.
    fn word(&self) -> &str {
        match self {
            Self::State(state) => state,
            Self::Up => "running",
            Self::Rebooted(_) => "rebooted",
        }
    }

    /// Whether an instance is there; `None` is one that the cluster no longer has.
    fn is_met(&self, name: &InstanceName, instance: Option<&Instance>) -> bool {
        let Some(instance) = instance else {
            return matches!(self, Self::State(state) if state == "terminated" || state == "gone");
        };
        let runs = instance.state() == "running";
        let back = instance.identity.is_none() || instance.connected();
        match self {
            Self::State(state) => instance.state() == state || instance.phase.as_str() == state,
            Self::Up => runs && back,
            Self::Rebooted(before) => {
                let old = before.iter().find(|(other, _)| other == name);
                let another = instance.identity.is_none()
                    || old.is_none_or(|(_, boot_id)| *boot_id != instance.boot_id);
                runs && back && another
            }
        }
    }
}

impl OperatorApi {
    /// Streams `first`, then what is told of the cluster. `told` was subscribed before whatever `until` names began.
    pub(super) fn follow(
        &self,
        cluster: ClusterName,
        until: Until,
        told: broadcast::Receiver<Told>,
        first: Vec<v1::Event>,
    ) -> Events {
        let (sender, stream) = mpsc::channel(EVENTS);
        let follower = Follower {
            api: self.clone(),
            cluster,
            until,
            sender,
        };
        self.tasks.spawn(follower.run(told, first));
        ReceiverStream::new(stream).boxed()
    }

    /// One event an instance, as it is now.
    pub(super) fn snapshot(&self, cluster: &ClusterName) -> Vec<v1::Event> {
        self.engine.look(|world| {
            let Some(found) = world.clusters.get(cluster) else {
                return Vec::new();
            };
            let event = |name: &InstanceName| v1::Event {
                unix_ms: now_ms(),
                cluster: cluster.to_string(),
                instance: name.to_string(),
                event: "snapshot".to_owned(),
                view: world.view(&Key {
                    cluster: cluster.clone(),
                    instance: name.clone(),
                }),
                ..v1::Event::default()
            };
            found
                .instances
                .values()
                .filter(|i| i.wanted)
                .map(|i| event(&i.name))
                .collect()
        })
    }
}

struct Follower {
    api: OperatorApi,
    cluster: ClusterName,
    until: Until,
    sender: mpsc::Sender<Result<v1::Event, Status>>,
}

impl Follower {
    async fn run(self, mut told: broadcast::Receiver<Told>, first: Vec<v1::Event>) {
        for event in first {
            if self.sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
        if self.is_reached().await {
            return;
        }
        let deadline = match &self.until {
            Until::Reached {
                deadline: Some(deadline),
                ..
            } => Some(*deadline),
            _ => None,
        };
        let mut recheck = tokio::time::interval(std::time::Duration::from_secs(2));
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = self.sender.closed() => return,
                () = self.api.stop.cancelled() => {
                    let _ = self.sender.send(Err(super::stopping())).await;
                    return;
                }
                () = at(deadline) => return self.give_up().await,
                _ = recheck.tick() => {
                    if self.is_over_silently().await { return; }
                    self.look_again().await;
                    continue;
                }
            };
            let over = match next {
                Ok(told) => self.pass_on(told).await,
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await,
                Err(broadcast::error::RecvError::Closed) => true,
            };
            if over {
                return;
            }
        }
    }

    /// Sends an event on; says whether it was the last.
    async fn pass_on(&self, told: Told) -> bool {
        if told.event.cluster != self.cluster.as_str() {
            return false;
        }
        let last = match &self.until {
            Until::Job(job) => told.ends == Some(*job),
            Until::Cleanup => told.event.event == "cleanup-ended",
            Until::Forever | Until::Reached { .. } => false,
        };
        let mut event = v1::Event { last, ..told.event };
        if last {
            event.fields_json = self.with_log(&event.fields_json);
        }
        self.sender.send(Ok(event)).await.is_err() || last || self.is_reached().await
    }

    /// The fields of a last event, with the path of the master's log where it has one.
    fn with_log(&self, fields: &str) -> String {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(fields).unwrap_or_default();
        if !self.api.info.log_path.is_empty() {
            fields.insert("log".to_owned(), self.api.info.log_path.clone().into());
        }
        serde_json::Value::Object(fields).to_string()
    }

    /// Too far behind: the instances as they are now stand for all that was missed.
    async fn catch_up(&self) -> bool {
        for event in self.api.snapshot(&self.cluster) {
            if self.sender.send(Ok(event)).await.is_err() {
                return true;
            }
        }
        self.is_over_silently().await || self.is_reached().await
    }

    /// While someone waits for a state, the provider is asked often: it may have shown an old one.
    async fn look_again(&self) {
        if matches!(self.until, Until::Reached { .. }) {
            let cluster = self.cluster.clone();
            self.api.engine.tell(Input::Poll { cluster }).await;
        }
    }

    /// The job ended and its last event was missed.
    async fn is_over_silently(&self) -> bool {
        let ended = match &self.until {
            Until::Job(job) => self.api.engine.look(|world| {
                let launch = world
                    .clusters
                    .get(&self.cluster)
                    .and_then(|c| c.launch.as_ref());
                launch
                    .filter(|launch| {
                        launch.job == *job
                            && launch.ended_ms.is_some_and(|end| end + 3_000 < now_ms())
                    })
                    .map(|launch| launch.error.clone())
            }),
            Until::Cleanup => {
                let there = self
                    .api
                    .engine
                    .look(|world| world.clusters.contains_key(&self.cluster));
                (!there).then(String::new)
            }
            Until::Forever | Until::Reached { .. } => None,
        };
        let Some(error) = ended else { return false };
        let event = v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: if matches!(self.until, Until::Cleanup) {
                "cleanup-ended"
            } else {
                "launch-ended"
            }
            .to_owned(),
            exit_code: u32::from(!error.is_empty()),
            message: error,
            last: true,
            ..v1::Event::default()
        };
        let _ = self.sender.send(Ok(event)).await;
        true
    }

    /// For a wait: tells how many are there; ends when all are.
    async fn is_reached(&self) -> bool {
        let Until::Reached {
            instances, goal, ..
        } = &self.until
        else {
            return false;
        };
        let there = self.api.engine.look(|world| {
            let cluster = world.clusters.get(&self.cluster);
            let is = |name: &&InstanceName| {
                goal.is_met(name, cluster.and_then(|c| c.instances.get(*name)))
            };
            instances.iter().filter(is).count()
        });
        let over = there == instances.len();
        let event = v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: "wait-progress".to_owned(),
            message: format!(
                "[{there}/{}] instances '{}'{}",
                instances.len(),
                goal.word(),
                if over { "" } else { ", waiting..." }
            ),
            last: over,
            ..v1::Event::default()
        };
        self.sender.send(Ok(event)).await.is_err() || over
    }

    async fn give_up(&self) {
        let Until::Reached {
            instances, goal, ..
        } = &self.until
        else {
            return;
        };
        let event = v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: "wait-ended".to_owned(),
            message: format!(
                "not all of {} instances became '{}' in time",
                instances.len(),
                goal.word()
            ),
            last: true,
            exit_code: 1,
            ..v1::Event::default()
        };
        let _ = self.sender.send(Ok(event)).await;
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
