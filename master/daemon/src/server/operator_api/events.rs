//! Events for operators: what happens in a cluster, until something ends it.

mod joined;
mod until;
mod wait;

use std::collections::BTreeMap;

use aot_model::key::InstanceKey;
use aot_model::unix_ms::UnixMs;
use aot_model::world::{Input, World};
use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1;
use futures::StreamExt;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub(super) use until::{Goal, Until};

use joined::{JobEnd, recalled};
pub(super) use joined::{continues, has_left};

use super::notes::note;
use super::paced::paced;
use super::{EVENTS, Events, OperatorApi};
use crate::run::{Published, now_ms};

/// A last event that has not come for so long after its job's end was missed.
const MISSED_MS: UnixMs = 3_000;

/// How long a job that waits for room on the master's disk is followed.
const WITHOUT_ROOM: std::time::Duration = std::time::Duration::from_secs(30);

impl OperatorApi {
    /// Streams `first`, then what is published about the cluster. `published` was subscribed to before whatever `until`
    /// names began.
    pub(super) fn follow(
        &self,
        cluster: ClusterName,
        until: Until,
        published: broadcast::Receiver<Published>,
        first: Vec<v1::Event>,
    ) -> Events {
        self.follow_from(cluster, until, published, first, false)
    }

    /// Streams `first`, then all that is published about the cluster after `place`, until nothing is left of it.
    fn follow_all(
        &self,
        cluster: ClusterName,
        place: v1::EventPlace,
        published: broadcast::Receiver<Published>,
        first: Vec<v1::Event>,
    ) -> Events {
        self.stream(cluster, Until::Gone, published, first, |follower| {
            follower.place = Some(place);
        })
    }

    /// The same of a job that was begun before, where `is_joined`.
    fn follow_from(
        &self,
        cluster: ClusterName,
        until: Until,
        published: broadcast::Receiver<Published>,
        first: Vec<v1::Event>,
        is_joined: bool,
    ) -> Events {
        self.stream(cluster, until, published, first, |follower| {
            follower.is_joined = is_joined;
        })
    }

    fn stream(
        &self,
        cluster: ClusterName,
        until: Until,
        published: broadcast::Receiver<Published>,
        first: Vec<v1::Event>,
        with: impl FnOnce(&mut ClusterFollower),
    ) -> Events {
        let (sender, stream) = mpsc::channel(EVENTS);
        let mut follower = ClusterFollower {
            api: self.clone(),
            cluster,
            until,
            is_joined: false,
            place: None,
            refused: BTreeMap::new(),
            short_since: None,
            sender,
        };
        with(&mut follower);
        self.tasks.spawn(follower.run(published, first));
        paced(ReceiverStream::new(stream)).boxed()
    }

    /// One event per instance, as it is now.
    pub(super) fn snapshot(&self, cluster: &ClusterName) -> Vec<v1::Event> {
        self.engine.read(cluster, |world| {
            let Some(found) = world.clusters.get(cluster) else {
                return Vec::new();
            };
            let event = |name: &InstanceName| v1::Event {
                unix_ms: now_ms(),
                cluster: cluster.to_string(),
                instance: name.to_string(),
                event: "snapshot".to_owned(),
                view: world.event_view(&InstanceKey {
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

struct ClusterFollower {
    api: OperatorApi,
    cluster: ClusterName,
    until: Until,
    /// The job was begun before this, and may have ended before it.
    is_joined: bool,
    /// Up to where it has been sent, where all events are: what is remembered after that stands for what was missed.
    place: Option<v1::EventPlace>,
    /// Instances whose machines are not terminated, and why.
    refused: BTreeMap<String, String>,
    /// Since when there is too little room on the master's disk.
    short_since: Option<tokio::time::Instant>,
    sender: mpsc::Sender<Result<v1::Event, Status>>,
}

impl ClusterFollower {
    async fn run(mut self, mut published: broadcast::Receiver<Published>, first: Vec<v1::Event>) {
        for event in first {
            if self.sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
        if (self.is_joined && self.is_over_silently(0).await) || self.is_reached().await {
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
                next = published.recv() => next,
                () = self.sender.closed() => return,
                () = self.api.stop.cancelled() => {
                    return self.leave(&mut published, super::stopping()).await;
                }
                () = at(deadline) => return self.give_up().await,
                _ = recheck.tick() => {
                    if self.has_left(&mut published).await || self.is_gone().await || self.is_over_silently(MISSED_MS).await || self.is_out_of_room().await { return; }
                    self.poll_again().await;
                    continue;
                }
            };
            let over = match next {
                Ok(published) => self.pass_on(published).await,
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up(&mut published).await,
                Err(broadcast::error::RecvError::Closed) => true,
            };
            if over {
                return;
            }
        }
    }

    /// Says once that the disk is full, and gives up following a job that has waited for room for a while: it continues by
    /// itself when there is some.
    async fn is_out_of_room(&mut self) -> bool {
        let Err(full) = self.api.room.check() else {
            self.short_since = None;
            return false;
        };
        let Some(since) = self.short_since else {
            self.short_since = Some(tokio::time::Instant::now());
            let event = v1::Event {
                unix_ms: now_ms(),
                cluster: self.cluster.to_string(),
                event: "notice".to_owned(),
                message: format!(
                    "{full}; output of what runs waits with its agents until there is room"
                ),
                ..v1::Event::default()
            };
            return self.sender.send(Ok(event)).await.is_err();
        };
        if !matches!(self.until, Until::Job(_)) || since.elapsed() < WITHOUT_ROOM {
            return false;
        }
        let text = format!(
            "{full}; this continues when there is room: run the same command again to follow it"
        );
        let _ = self
            .sender
            .send(Err(Status::resource_exhausted(text)))
            .await; // whoever follows may have left
        true
    }

    /// Sends an event on; says whether it was the last.
    async fn pass_on(&mut self, published: Published) -> bool {
        let aside = match &self.until {
            Until::Aside(job) => Some(*job),
            _ => None,
        };
        if published.aside != aside || published.event.cluster != self.cluster.as_str() {
            return false;
        }
        if let (Some(place), Some(at)) = (&mut self.place, published.event.place) {
            *place = at;
        }
        if published.event.event == "instance-not-terminated" {
            let why = published.event.message.clone();
            self.refused.insert(published.event.instance.clone(), why);
        }
        let last = match &self.until {
            Until::Job(job) => published.ends == Some(*job),
            Until::Cleanup(job) | Until::Aside(job) => published.ends == Some(*job),
            Until::Gone | Until::Reached { .. } | Until::Terminated { .. } => false,
        };
        let mut event = v1::Event {
            last,
            ..published.event
        };
        if last && aside.is_none() {
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

    /// Too far behind: what is remembered stands for all that was missed, or the instances as they are now.
    async fn catch_up(&mut self, published: &mut broadcast::Receiver<Published>) -> bool {
        let missed = match self.place {
            Some(place) => {
                let cursor = v1::EventCursor {
                    seen: vec![place],
                    since_unix_ms: None,
                };
                let (remembered, next) = self.api.engine.subscribe_from(&self.cluster, &cursor);
                (*published, self.place) = (next, Some(remembered.place));
                recalled(&self.cluster, remembered)
            }
            None => self.api.snapshot(&self.cluster),
        };
        for event in missed {
            if self.sender.send(Ok(event)).await.is_err() {
                return true;
            }
        }
        self.is_over_silently(MISSED_MS).await || self.is_reached().await
    }

    /// While someone waits for a state, the provider is asked often: it may have shown an old one.
    async fn poll_again(&self) {
        if matches!(self.until, Until::Reached { .. } | Until::Terminated { .. }) {
            let cluster = self.cluster.clone();
            self.api.engine.submit(Input::Poll { cluster }).await;
        }
    }

    /// The job ended so long ago that its last event was missed.
    async fn is_over_silently(&self, missed_ms: UnixMs) -> bool {
        let job = match &self.until {
            Until::Job(job) | Until::Cleanup(job) | Until::Aside(job) => *job,
            Until::Terminated { job, .. } | Until::Reached { job: Some(job), .. } => *job,
            Until::Gone | Until::Reached { job: None, .. } => return false,
        };
        let Some(end) = self.end_of(job).await else {
            return false;
        };
        if end.ended_ms + missed_ms >= now_ms() {
            return false;
        }
        let _ = self.sender.send(Ok(self.end_event(job, end))).await; // whoever follows may have left
        true
    }

    /// How a job ended; `None` while it has not.
    async fn end_of(&self, id: JobId) -> Option<JobEnd> {
        let known = self
            .api
            .engine
            .read(&self.cluster, |world| world.jobs.get(&id).map(JobEnd::of));
        if let Some(end) = known {
            return end;
        }
        // So long ago that it is on record alone.
        match self.api.store.job(id).await {
            Ok(Some(job)) => JobEnd::of(&job),
            _ => Some(JobEnd {
                ended_ms: 0,
                error: format!("{id} has ended, and its record can't be read"),
            }),
        }
    }

    /// Nothing is left of a cluster that is followed until then; says so.
    async fn is_gone(&self) -> bool {
        let cluster = &self.cluster;
        let is_there = |world: &World| world.clusters.contains_key(cluster);
        if !matches!(self.until, Until::Gone) || self.api.engine.read(cluster, is_there) {
            return false;
        }
        let event = v1::Event {
            event: "cluster-gone".to_owned(),
            last: true,
            ..note(cluster, "nothing is left of it".to_owned())
        };
        let _ = self.sender.send(Ok(event)).await; // whoever follows may have left
        true
    }

    /// Another master has the cluster: what is followed is told by that one.
    async fn has_left(&mut self, published: &mut broadcast::Receiver<Published>) -> bool {
        if !has_left(&self.api, &self.cluster) {
            return false;
        }
        self.leave(published, aot_proto::status::left()).await;
        true
    }

    /// Ends the stream so, after all that has been published: nobody else knows of that.
    async fn leave(&mut self, published: &mut broadcast::Receiver<Published>, why: Status) {
        loop {
            let over = match published.try_recv() {
                Ok(published) => self.pass_on(published).await,
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.catch_up(published).await,
                Err(_) => break,
            };
            if over {
                return;
            }
        }
        let _ = self.sender.send(Err(why)).await; // whoever follows may have left
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
