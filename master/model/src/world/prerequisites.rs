//! The prerequisites of a launch: asked for once per launch, before the first machine, and again until they are there.

use aot_proto::ids::ClusterName;

use super::World;
use super::answer::Answer;
use super::provider_call::{Call, CallFailure};
use crate::batch::BatchState;
use crate::cluster::Cluster;
use crate::machine::ErrorKind;
use crate::prerequisites::Prerequisites;

impl World {
    /// Asks the provider for the launch's prerequisites, when they are not known yet.
    pub(super) fn prepare_if_due(&mut self, name: &ClusterName) {
        let now = self.now;
        if !self.clusters.get(name).is_some_and(lacks_prerequisites) {
            return;
        }
        let calls = self.calls(name);
        if calls.prepare.is_due(now) {
            calls.prepare.begin();
            self.call_provider(name, Call::Prepare);
        }
    }

    pub(super) fn prepared(
        &mut self,
        name: &ClusterName,
        result: Result<Prerequisites, CallFailure>,
    ) -> Answer {
        let now = self.now;
        let prepare = &mut self.calls(name).prepare;
        match &result {
            Ok(_) => prepare.worked(),
            Err(_) => prepare.failed(now),
        }
        let wait = prepare.left_ms(now);
        let Some(cluster) = self.cluster_mut(name) else {
            return Answer::Ack;
        };
        match result {
            Ok(mut prerequisites) => {
                let notices = std::mem::take(&mut prerequisites.notices);
                cluster.prerequisites = prerequisites;
                cluster.prepared_for = cluster.launch.as_ref().map(|launch| launch.job);
                if let Some(launch) = &mut cluster.launch {
                    launch.changed |= !notices.is_empty();
                }
                for text in notices {
                    self.emit_cluster(name, "notice", text);
                }
            }
            Err(failure) if is_passing(failure.kind) => {
                let text = format!(
                    "retrying the preparation of {name} in {} s: {}",
                    wait.div_ceil(1000),
                    failure.message
                );
                self.emit_cluster(name, "notice", text);
            }
            Err(failure) => self.prerequisites_failed(name, &failure.message),
        }
        if self.clusters.get(name).is_some_and(|c| c.cleaning) {
            self.poll_soon(name);
        }
        self.mark_due(name);
        Answer::Ack
    }

    /// They can't be had, for good: no machine is asked for.
    fn prerequisites_failed(&mut self, name: &ClusterName, why: &str) {
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

    /// A call to prepare is under way.
    pub(super) fn is_preparing(&self, name: &ClusterName) -> bool {
        let calls = self.calls.get(name);
        calls.is_some_and(|it| it.prepare.is_in_flight())
    }
}

/// A launch has machines to make, or groups whose rules may be missing, and was not prepared yet.
pub(super) fn lacks_prerequisites(cluster: &Cluster) -> bool {
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
    matches!(
        kind,
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::NoCredentials
    )
}
