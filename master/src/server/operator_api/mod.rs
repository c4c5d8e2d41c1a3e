//! What operators ask for, over the unix socket: each call is checked, put to whoever decides, and answered.

mod agents;
mod api_calls;
mod builtin;
mod copy;
mod exec;
mod follow;
mod jobs;
mod launch;
mod logs;
mod moves;
mod orphans;
mod plan;
mod read;
mod select;
mod shell;
mod watch;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_proto::v1::operator_server::Operator;
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use crate::model::world::OpError;
use crate::run::agents::Agents;
use crate::run::providers::Providers;
use crate::run::{Engine, prepare};
use crate::server::shells::Shells;
use crate::server::transfers::Transfers;
use crate::session::registry::Registry;
use crate::store::Store;
use crate::store::spool::Spools;
use follow::ExecEvents;

/// Events that may wait for one operator.
const EVENTS: usize = 256;

/// What the operators' service needs.
#[derive(Clone)]
pub struct OperatorApi {
    /// Who decides.
    pub engine: Engine,
    /// Who is there.
    pub registry: Arc<Registry>,
    /// Records.
    pub store: Arc<Store>,
    /// Outputs.
    pub spools: Arc<Spools>,
    /// Terminals that wait for their agents.
    pub shells: Shells<Streaming<v1::ShellUp>>,
    /// Who makes machines.
    pub providers: Arc<Providers>,
    /// What is handed out.
    pub agents: Arc<Agents>,
    /// Where bundles lie.
    pub bundles: Arc<Path>,
    /// Archives of copies.
    pub transfers: Arc<Transfers>,
    /// What this daemon is.
    pub info: Arc<v1::InfoReply>,
    /// Owner of tasks.
    pub tasks: TaskTracker,
    /// Stops the daemon.
    pub stop: CancellationToken,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;
type ApiCalls = Pin<Box<dyn Stream<Item = Result<v1::ApiCall, Status>> + Send>>;

/// Exhaustive: every refusal of a wish has its code.
fn refused(error: &OpError) -> Status {
    match error {
        OpError::NoCluster(_) | OpError::NoInstance(_) | OpError::NoJob(_) => {
            Status::not_found(error.to_string())
        }
        OpError::Conflict(_) => Status::failed_precondition(error.to_string()),
        OpError::Invalid(_) => Status::invalid_argument(error.to_string()),
    }
}

fn unprepared(error: &prepare::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopping() -> Status {
    Status::unavailable("the master is stopping")
}

/// Who is on the other side of the socket: `uid 0` and so on.
fn operator<T>(request: &Request<T>) -> String {
    let credentials = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    credentials.map_or_else(
        || "unknown".to_owned(),
        |peer| format!("uid {}", peer.uid()),
    )
}

impl OperatorApi {
    /// The cluster that is meant: the named one, or the only one.
    fn cluster(&self, name: &str) -> Result<ClusterName, Status> {
        let known: Vec<ClusterName> = self
            .engine
            .look(|world| world.clusters.keys().cloned().collect());
        let list = || {
            known
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (name, known.as_slice()) {
            ("", [only]) => Ok(only.clone()),
            ("", []) => Err(Status::not_found(
                "there is no cluster yet: launch one first",
            )),
            ("", _) => Err(Status::invalid_argument(format!(
                "say which cluster is meant, with --cluster: {}",
                list()
            ))),
            (name, _) => match known.iter().find(|cluster| cluster.as_str() == name) {
                Some(cluster) => Ok(cluster.clone()),
                None if known.is_empty() => Err(Status::not_found(format!(
                    "there is no cluster {name:?}; there is none at all"
                ))),
                None => Err(Status::not_found(format!(
                    "there is no cluster {name:?}; there are: {}",
                    list()
                ))),
            },
        }
    }
}

#[tonic::async_trait]
impl Operator for OperatorApi {
    type LaunchStream = Events;
    type WatchStream = Events;
    type ApplyStream = Events;
    type TerminateStream = Events;
    type CleanupStream = Events;
    type WaitStream = Events;
    type LifecycleStream = Events;
    type ApiCallsStream = ApiCalls;
    type DeleteOrphansStream = Events;
    type ExecStream = ExecEvents;
    type FollowStream = ExecEvents;
    type CancelJobStream = ExecEvents;
    type RetryJobStream = ExecEvents;
    type CopyStream = ExecEvents;
    type ShellStream = shell::ShellEvents;
    type LogsStream = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;

    async fn info(&self, _: Request<v1::InfoRequest>) -> Result<Response<v1::InfoReply>, Status> {
        let clusters = self
            .engine
            .look(|world| world.clusters.keys().map(ToString::to_string).collect());
        Ok(Response::new(v1::InfoReply {
            clusters,
            api_calls: self.providers.calls.last(),
            ..(*self.info).clone()
        }))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanReply>, Status> {
        self.do_plan(request.into_inner()).await.map(Response::new)
    }

    async fn launch(
        &self,
        request: Request<v1::LaunchRequest>,
    ) -> Result<Response<Events>, Status> {
        let operator = operator(&request);
        self.do_launch(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        let cluster = self.cluster(&request.into_inner().cluster)?;
        Ok(Response::new(self.follow(
            cluster,
            watch::Until::Forever,
            self.engine.watch(),
            Vec::new(),
        )))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.do_status(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn facts(
        &self,
        request: Request<v1::TargetRequest>,
    ) -> Result<Response<v1::FactsReply>, Status> {
        self.do_facts(&request.into_inner()).map(Response::new)
    }

    async fn exec(
        &self,
        request: Request<v1::ExecRequest>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let operator = operator(&request);
        self.do_exec(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<ExecEvents>, Status> {
        self.do_follow(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<ExecEvents>, Status> {
        let operator = operator(&request);
        self.do_cancel(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn retry_job(
        &self,
        request: Request<v1::RetryJobRequest>,
    ) -> Result<Response<ExecEvents>, Status> {
        let operator = operator(&request);
        self.do_retry(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadChunk>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        self.do_upload(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn copy(
        &self,
        request: Request<v1::CopyRequest>,
    ) -> Result<Response<ExecEvents>, Status> {
        let operator = operator(&request);
        self.do_copy(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn shell(
        &self,
        request: Request<Streaming<v1::ShellInput>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let operator = operator(&request);
        self.do_shell(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn revoke(
        &self,
        request: Request<v1::TargetRequest>,
    ) -> Result<Response<v1::AgentsReply>, Status> {
        let operator = operator(&request);
        self.do_revoke(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<Events>, Status> {
        let operator = operator(&request);
        self.do_apply(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.do_logs(request.into_inner()).map(Response::new)
    }

    async fn terminate(
        &self,
        request: Request<v1::TerminateRequest>,
    ) -> Result<Response<Events>, Status> {
        self.do_terminate(&request.into_inner())
            .await
            .map(Response::new)
    }

    async fn lifecycle(
        &self,
        request: Request<v1::LifecycleRequest>,
    ) -> Result<Response<Events>, Status> {
        self.do_lifecycle(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn orphans(
        &self,
        request: Request<v1::OrphansRequest>,
    ) -> Result<Response<v1::OrphansReply>, Status> {
        self.do_orphans(&request.into_inner())
            .await
            .map(Response::new)
    }

    async fn delete_orphans(
        &self,
        request: Request<v1::DeleteOrphansRequest>,
    ) -> Result<Response<Events>, Status> {
        self.do_delete_orphans(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn api_calls(
        &self,
        _: Request<v1::ApiCallsRequest>,
    ) -> Result<Response<Self::ApiCallsStream>, Status> {
        Ok(Response::new(self.do_api_calls()))
    }

    async fn cleanup(
        &self,
        request: Request<v1::CleanupRequest>,
    ) -> Result<Response<Events>, Status> {
        self.do_cleanup(&request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update(
        &self,
        request: Request<v1::TargetRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let v1::TargetRequest {
            cluster,
            target,
            exclude,
            limit,
        } = request.into_inner();
        self.do_status(v1::StatusRequest {
            cluster,
            target,
            live: true,
            exclude,
            limit,
        })
        .await
        .map(Response::new)
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<Events>, Status> {
        self.do_wait(request.into_inner()).map(Response::new)
    }

    async fn agents(
        &self,
        request: Request<v1::AgentsRequest>,
    ) -> Result<Response<v1::AgentsReply>, Status> {
        self.do_agents(&request.into_inner()).map(Response::new)
    }

    async fn jobs(
        &self,
        request: Request<v1::JobsRequest>,
    ) -> Result<Response<v1::JobsReply>, Status> {
        self.do_jobs(request.into_inner()).await.map(Response::new)
    }

    async fn shutdown(
        &self,
        _: Request<v1::ShutdownRequest>,
    ) -> Result<Response<v1::ShutdownReply>, Status> {
        if !self.info.background {
            return Err(Status::failed_precondition(
                "this master was started with `serve`: stop it where it was started (systemctl stop aot-master)",
            ));
        }
        tracing::info!("an operator asked for a shutdown");
        self.stop.cancel();
        Ok(Response::new(v1::ShutdownReply { pid: self.info.pid }))
    }
}
