//! Start, stop, reboot: begun as a job, then followed until all are there.

use std::time::Duration;

use aot_model::job::JobKind;
use aot_model::machine::{ErrorKind, MachineState};
use aot_model::world::{Answer, CallFailure, Input, LifecycleAsk};
use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::end::BegunJob;
use super::events::{Goal, Until};
use super::request::BegunEvents;
use super::{Asker, OperatorApi, refused, stopping, unanswered};
use crate::run::{JobUpdate, updates_queue};

/// Longest wait unless said.
const LIMIT: Duration = Duration::from_secs(15 * 60);

impl OperatorApi {
    pub(super) async fn do_lifecycle(
        &self,
        request: v1::LifecycleRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let kind = match request.action() {
            v1::LifecycleAction::Start => JobKind::Start,
            v1::LifecycleAction::Stop => JobKind::Stop,
            v1::LifecycleAction::Reboot => JobKind::Reboot,
            v1::LifecycleAction::Unspecified => {
                return Err(Status::invalid_argument(
                    "this master knows start, stop and reboot, not what was asked of it",
                ));
            }
        };
        let cluster = self.cluster(request.cluster.as_deref())?;
        let what = format!("{} {}", kind.as_str(), request.target);
        let wanted = asker.wants(kind, &cluster, &what);
        if let Some(job) = self.begun(asker.request, &wanted).await? {
            return Ok(self.joined(&job, false).await);
        }
        let instances = self.targets(&cluster, &request)?;
        let limit = match request.timeout_ms {
            0 => LIMIT,
            ms => Duration::from_millis(ms),
        };
        let published = self.engine.subscribe();
        let ask = LifecycleAsk {
            cluster: cluster.clone(),
            kind,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            by: wanted.by(asker.request),
            instances,
        };
        let job = match self.change(ask).await? {
            BegunJob::Now(job) => job,
            BegunJob::Before(id) => return self.rejoined(id, &wanted).await,
        };
        let movers = self.movers(&cluster, job);
        let until = Until::Reached {
            instances: movers.iter().map(|(name, _)| name.clone()).collect(),
            goal: match kind {
                JobKind::Stop => Goal::State(MachineState::Stopped),
                JobKind::Reboot => Goal::Rebooted(movers),
                _ => Goal::Up,
            },
            deadline: Some(tokio::time::Instant::now() + limit),
            job: Some(job),
        };
        let events = self.follow(cluster, until, published, Vec::new());
        let job = Some(job);
        Ok(BegunEvents { job, events })
    }

    /// Begins the job, and waits until the provider has taken all of it. It continues whether or not anybody waits here.
    async fn change(&self, ask: LifecycleAsk) -> Result<BegunJob, Status> {
        let (sender, mut updates) = mpsc::channel(updates_queue(ask.instances.len()));
        let answer = self.engine.follow(Input::Lifecycle(ask), sender).await;
        let job = match answer.map_err(unanswered)? {
            Answer::Exec { job, .. } => job,
            Answer::Begun(id) => return Ok(BegunJob::Before(id)),
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("unexpected reply from the engine")),
        };
        loop {
            let came = tokio::select! {
                came = updates.recv() => came,
                () = self.stop.cancelled() => None,
            };
            match came.ok_or_else(stopping)? {
                JobUpdate::Answered(None) => return Ok(BegunJob::Now(job)),
                JobUpdate::Answered(Some(failure)) => return Err(not_taken(&failure)),
                JobUpdate::Began(..) | JobUpdate::Ended(..) | JobUpdate::Note(..) => {}
            }
        }
    }

    /// The instances whose machines a job changes, each with its boot before that.
    fn movers(&self, cluster: &ClusterName, job: JobId) -> Vec<(InstanceName, String)> {
        self.engine.read(cluster, |world| {
            let call = world.jobs.get(&job).and_then(|job| job.call.as_ref());
            let machines = call.into_iter().flat_map(|call| &call.machines);
            machines
                .map(|(name, target)| (name.clone(), target.boot_id.clone()))
                .collect()
        })
    }
}

/// Why the provider did not take all of it.
fn not_taken(failure: &CallFailure) -> Status {
    match failure.kind {
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::NoCredentials => {
            Status::unavailable(failure.message.clone())
        }
        _ => Status::failed_precondition(failure.message.clone()),
    }
}
