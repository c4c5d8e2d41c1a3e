//! What a launch stands on: asked for once a launch, before the first machine, and again until it is there.

use aot_proto::ids::ClusterName;

use super::World;
use super::input::{Answer, Effect, Failure};
use crate::model::cluster::{BatchState, Cluster};
use crate::model::ground::Ground;
use crate::model::machine::ErrorKind;

impl World {
    /// Asks the provider for what the launch stands on, when that is not known yet.
    pub(super) fn prepare_if_due(&mut self, name: &ClusterName) {
        let now = self.now;
        if !self.clusters.get(name).is_some_and(lacks_ground) {
            return;
        }
        let attempts = self.preparing.entry(name.clone()).or_default();
        if attempts.is_due(now) {
            attempts.begin();
            self.do_later(Effect::CallPrepare {
                cluster: name.clone(),
            });
        }
    }

    pub(super) fn prepared(
        &mut self,
        name: &ClusterName,
        result: Result<Ground, Failure>,
    ) -> Answer {
        let now = self.now;
        let attempts = self.preparing.entry(name.clone()).or_default();
        match &result {
            Ok(_) => attempts.worked(),
            Err(_) => attempts.failed(now),
        }
        let wait = attempts.next_ms.saturating_sub(now);
        let Some(cluster) = self.cluster_mut(name) else {
            return Answer::None;
        };
        match result {
            Ok(mut ground) => {
                let news = std::mem::take(&mut ground.news);
                cluster.ground = ground;
                cluster.prepared_for = cluster.launch.as_ref().map(|launch| launch.job);
                if let Some(launch) = &mut cluster.launch {
                    launch.changed |= !news.is_empty();
                }
                for text in news {
                    self.tell_cluster(name, "notice", text);
                }
            }
            Err(failure) if is_passing(failure.kind) => {
                let text = format!(
                    "preparing {name} is tried again in {} s: {}",
                    wait.div_ceil(1000),
                    failure.message
                );
                self.tell_cluster(name, "notice", text);
            }
            Err(failure) => self.cannot_stand(name, &failure.message),
        }
        if self.clusters.get(name).is_some_and(|c| c.cleaning) {
            self.poll_soon(name);
        }
        self.mark_due(name);
        Answer::None
    }

    /// There is nothing to stand on, for good: no machine is asked for.
    fn cannot_stand(&mut self, name: &ClusterName, why: &str) {
        let cluster = self.cluster_mut(name).expect("its caller found it");
        let open: Vec<_> = cluster
            .batches
            .values()
            .filter(|batch| batch.state == BatchState::Requested)
            .cloned()
            .collect();
        for batch in &open {
            self.give_up(name, batch, why);
        }
        if self.clusters.get(name).is_some_and(Cluster::launching) {
            self.finish_launch(name, why.to_owned());
        }
    }

    /// A call for the ground is under way.
    pub(super) fn is_preparing(&self, name: &ClusterName) -> bool {
        self.preparing.get(name).is_some_and(|it| it.in_flight)
    }
}

/// A launch has something to make, or groups to look after, and nobody has looked yet.
pub(super) fn lacks_ground(cluster: &Cluster) -> bool {
    let job = cluster.launch.as_ref().map(|launch| launch.job);
    let wants = !cluster.spec.security_groups.is_empty()
        || cluster
            .batches
            .values()
            .any(|batch| batch.state == BatchState::Requested);
    cluster.launching() && !cluster.cleaning && wants && cluster.prepared_for != job
}

/// It may work by itself the next time.
pub(super) fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable)
}
