//! Update: the provider is asked by a job, then the table is shown.

use aot_model::outcome::{Outcome, Verdict};
use aot_model::world::{Answer, AskedBy, Input};
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::select::{Selection, matching};
use super::{OperatorApi, refused, stopping, unanswered};
use crate::run::{JobUpdate, updates_queue};

impl OperatorApi {
    pub(super) async fn do_update(
        &self,
        request: v1::TargetRequest,
        operator: String,
    ) -> Result<v1::StatusReply, Status> {
        let request = v1::StatusRequest {
            cluster: request.cluster,
            target: request.target,
            exclude: request.exclude,
            limit: request.limit,
            ..v1::StatusRequest::default()
        };
        let by = AskedBy {
            what: match &request.target {
                Some(target) => format!("update {target}"),
                None => "update".to_owned(),
            },
            operator,
            request: None,
        };
        for name in self.meant(&request)? {
            let instances = self.to_update(&name, Selection::from(&request));
            match instances.is_empty() {
                true => self.refresh(&name).await?,
                false => self.update(name, instances, by.clone()).await?,
            }
        }
        self.do_status(request).await
    }

    /// The instances that are meant by what is known now; all of them when none is: the provider may say otherwise.
    fn to_update(&self, name: &ClusterName, selection: Selection<'_>) -> Vec<InstanceName> {
        self.engine.read(name, |world| {
            let Some(cluster) = world.clusters.get(name) else {
                return Vec::new();
            };
            let meant = matching(cluster, selection).unwrap_or_default();
            match meant.is_empty() {
                true => cluster.instances.keys().cloned().collect(),
                false => meant,
            }
        })
    }

    /// Begins the job and waits for its end, which comes whether or not anybody waits here.
    async fn update(
        &self,
        cluster: ClusterName,
        instances: Vec<InstanceName>,
        by: AskedBy,
    ) -> Result<(), Status> {
        let mut open = instances.len();
        let (sender, mut updates) = mpsc::channel(updates_queue(open));
        let input = Input::Update {
            cluster,
            instances,
            by,
        };
        match self
            .engine
            .follow(input, sender)
            .await
            .map_err(unanswered)?
        {
            Answer::Exec { .. } => {}
            Answer::Error(error) => return Err(refused(&error)),
            _ => return Err(Status::internal("unexpected reply from the engine")),
        }
        while open > 0 {
            let came = tokio::select! {
                came = updates.recv() => came,
                () = self.stop.cancelled() => None,
            };
            if let JobUpdate::Ended(_, verdict) = came.ok_or_else(stopping)? {
                open -= 1;
                seen(&verdict)?;
            }
        }
        Ok(())
    }
}

/// That the provider has shown a machine.
fn seen(verdict: &Verdict) -> Result<(), Status> {
    match verdict.outcome {
        Outcome::Succeeded => Ok(()),
        _ => Err(Status::unavailable(verdict.detail.clone())),
    }
}
