//! Terminate and cleanup: what ends machines, begun as jobs and followed until they are gone.

use aot_model::job::JobKind;
use aot_model::world::{Answer, Input};
use aot_proto::ids::{ClusterName, JobId};
use aot_proto::v1;
use tonic::Status;

use super::events::Until;
use super::request::BegunEvents;
use super::{Asker, OperatorApi, refused, unanswered};
use crate::run::Unanswered;

impl OperatorApi {
    pub(super) async fn do_terminate(
        &self,
        request: &v1::TerminateRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let what = format!("terminate {}", request.target);
        let wanted = asker.wants(JobKind::Terminate, &cluster, &what);
        if let Some(job) = self.begun(asker.request, &wanted).await? {
            return Ok(self.joined(&job, false).await);
        }
        let instances = self.targets(&cluster, request)?;
        let published = self.engine.subscribe();
        let input = Input::Terminate {
            cluster: cluster.clone(),
            instances: instances.clone(),
            by: wanted.by(asker.request),
        };
        let job = match started(self.engine.ask(input).await)? {
            BegunJob::Now(job) => job,
            BegunJob::Before(id) => return self.rejoined(id, &wanted).await,
        };
        let with_machine = self.engine.read(&cluster, |world| {
            let cluster = world.clusters.get(&cluster);
            let has = |name: &aot_proto::ids::InstanceName| {
                cluster
                    .and_then(|c| c.instances.get(name))
                    .is_some_and(|i| i.machine.is_some())
            };
            instances.into_iter().filter(has).collect()
        });
        let until = Until::Terminated {
            instances: with_machine,
            job,
        };
        let events = self.follow(cluster, until, published, Vec::new());
        let job = Some(job);
        Ok(BegunEvents { job, events })
    }

    pub(super) async fn do_cleanup(
        &self,
        request: &v1::CleanupRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        // Where the first of two requests has done all of it, the second finds no cluster.
        let named = request.cluster.as_deref().map(str::parse::<ClusterName>);
        if let Some(Ok(cluster)) = named {
            let what = cleanup_in_words(&cluster);
            let wanted = asker.wants(JobKind::Cleanup, &cluster, &what);
            if let Some(job) = self.begun(asker.request, &wanted).await? {
                return Ok(self.joined(&job, false).await);
            }
        }
        let cluster = self.cluster(request.cluster.as_deref())?;
        let what = cleanup_in_words(&cluster);
        let wanted = asker.wants(JobKind::Cleanup, &cluster, &what);
        let published = self.engine.subscribe();
        let input = Input::Cleanup {
            cluster: cluster.clone(),
            by: wanted.by(asker.request),
        };
        let job = match started(self.engine.ask(input).await)? {
            BegunJob::Now(job) => job,
            BegunJob::Before(id) => return self.rejoined(id, &wanted).await,
        };
        let events = self.follow(cluster, Until::Cleanup(job), published, Vec::new());
        let job = Some(job);
        Ok(BegunEvents { job, events })
    }
}

/// A job of a request.
pub(super) enum BegunJob {
    /// By this one.
    Now(JobId),
    /// By an earlier one with the same id, or another job has that.
    Before(JobId),
}

/// The job that was begun, or why none was.
pub(super) fn started(answer: Result<Answer, Unanswered>) -> Result<BegunJob, Status> {
    match answer.map_err(unanswered)? {
        Answer::Started(job) => Ok(BegunJob::Now(job)),
        Answer::Begun(id) => Ok(BegunJob::Before(id)),
        Answer::Error(error) => Err(refused(&error)),
        _ => Err(Status::internal("unexpected reply from the engine")),
    }
}

fn cleanup_in_words(cluster: &ClusterName) -> String {
    format!("cleanup {cluster}")
}
