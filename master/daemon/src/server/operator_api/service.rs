//! The calls of operator.proto, one method each: hands the request, and who asks, to the file that answers it. Called by
//! tonic; nothing is decided here but whether a master may be shut down.

use std::pin::Pin;

use aot_proto::headers;
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_proto::v1::operator_server::Operator;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::follow::JobEvents;
use super::request::BegunEvents;
use super::{Asker, Events, OperatorApi, forward, request, shell, tunnel};
use crate::run::now_ms;
use crate::server::ways::{self, operator};

pub(super) type ApiCalls = Pin<Box<dyn Stream<Item = Result<v1::ApiCall, Status>> + Send>>;

fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    let is_master = ways::is_passed(request.extensions());
    Ok(Asker {
        operator: operator(request),
        is_master,
        here: is_master || request.metadata().contains_key(headers::HERE),
        request: request::id(request.metadata(), now_ms())?,
    })
}

#[tonic::async_trait]
impl Operator for OperatorApi {
    type LaunchStream = Events;
    type WatchStream = Events;
    type ApplyStream = Events;
    type ApplyFileStream = Events;
    type TerminateStream = Events;
    type CleanupStream = Events;
    type WaitStream = Events;
    type LifecycleStream = Events;
    type ApiCallsStream = ApiCalls;
    type DeleteOrphansStream = Events;
    type ExecStream = JobEvents;
    type FollowStream = JobEvents;
    type CancelJobStream = JobEvents;
    type RetryJobStream = JobEvents;
    type CopyStream = JobEvents;
    type ShellStream = shell::ShellEvents;
    type ForwardStream = forward::ForwardEvents;
    type TunnelStream = tunnel::TunnelEvents;
    type LogsStream = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;

    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoReply>, Status> {
        let asker = asker(&request)?;
        let info = self.info_of_all(request.into_inner(), &asker).await;
        Ok(Response::new(info))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanReply>, Status> {
        let asker = asker(&request)?;
        self.do_plan(request.into_inner(), asker)
            .await
            .map(Response::new)
    }

    async fn launch(
        &self,
        request: Request<v1::LaunchRequest>,
    ) -> Result<Response<Events>, Status> {
        let asker = asker(&request)?;
        self.do_launch(request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        self.do_watch(request.into_inner()).await.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let asker = asker(&request)?;
        self.status_of_all(request.into_inner(), asker)
            .await
            .map(Response::new)
    }

    async fn last_lines(
        &self,
        request: Request<v1::LastLinesRequest>,
    ) -> Result<Response<v1::LastLinesReply>, Status> {
        self.do_last_lines(request.into_inner())
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
        let asker = asker(&request)?;
        self.do_exec(request.into_inner(), asker)
            .await
            .map(Response::new)
    }

    async fn follow(
        &self,
        request: Request<v1::FollowRequest>,
    ) -> Result<Response<JobEvents>, Status> {
        self.do_follow(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<JobEvents>, Status> {
        let operator = operator(&request);
        self.do_cancel(request.into_inner(), operator)
            .await
            .map(Response::new)
    }

    async fn retry_job(
        &self,
        request: Request<v1::RetryJobRequest>,
    ) -> Result<Response<JobEvents>, Status> {
        let asker = asker(&request)?;
        self.do_retry(request.into_inner(), asker)
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

    async fn copy(&self, request: Request<v1::CopyRequest>) -> Result<Response<JobEvents>, Status> {
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

    async fn forward(
        &self,
        request: Request<v1::ForwardRequest>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let operator = operator(&request);
        self.do_forward(request.into_inner(), operator)
            .map(Response::new)
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<v1::TunnelInput>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let operator = operator(&request);
        self.do_tunnel(request.into_inner(), operator)
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
        let asker = asker(&request)?;
        self.do_apply(request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn apply_file(
        &self,
        request: Request<v1::ApplyFileRequest>,
    ) -> Result<Response<Events>, Status> {
        let asker = asker(&request)?;
        self.do_apply_file(request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.do_logs(request.into_inner()).await.map(Response::new)
    }

    async fn terminate(
        &self,
        request: Request<v1::TerminateRequest>,
    ) -> Result<Response<Events>, Status> {
        let asker = asker(&request)?;
        self.do_terminate(&request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn lifecycle(
        &self,
        request: Request<v1::LifecycleRequest>,
    ) -> Result<Response<Events>, Status> {
        let asker = asker(&request)?;
        self.do_lifecycle(request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
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
        let asker = asker(&request)?;
        self.do_delete_orphans(request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn api_calls(
        &self,
        request: Request<v1::ApiCallsRequest>,
    ) -> Result<Response<Self::ApiCallsStream>, Status> {
        let asker = asker(&request)?;
        let calls = self.do_api_calls(request.into_inner(), &asker);
        Ok(Response::new(calls.await))
    }

    async fn cleanup(
        &self,
        request: Request<v1::CleanupRequest>,
    ) -> Result<Response<Events>, Status> {
        let asker = asker(&request)?;
        self.do_cleanup(&request.into_inner(), asker)
            .await
            .map(BegunEvents::into_response)
    }

    async fn update(
        &self,
        request: Request<v1::TargetRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let asker = asker(&request)?;
        self.update_all(request.into_inner(), asker)
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
        let asker = asker(&request)?;
        self.agents_of_all(request.into_inner(), asker)
            .await
            .map(Response::new)
    }

    async fn jobs(
        &self,
        request: Request<v1::JobsRequest>,
    ) -> Result<Response<v1::JobsReply>, Status> {
        self.do_jobs(request.into_inner()).await.map(Response::new)
    }

    async fn examine(
        &self,
        _: Request<v1::ExamineRequest>,
    ) -> Result<Response<v1::ExamineReply>, Status> {
        Ok(Response::new(self.do_examine().await))
    }

    async fn masters(
        &self,
        request: Request<v1::MastersRequest>,
    ) -> Result<Response<v1::MastersReply>, Status> {
        let asker = asker(&request)?;
        Ok(Response::new(self.do_masters(&asker).await))
    }

    async fn move_cluster(
        &self,
        request: Request<v1::MoveClusterRequest>,
    ) -> Result<Response<v1::MoveClusterReply>, Status> {
        self.do_move(request.into_inner()).await.map(Response::new)
    }

    async fn drain_master(
        &self,
        request: Request<v1::DrainMasterRequest>,
    ) -> Result<Response<v1::DrainMasterReply>, Status> {
        self.do_drain(request.into_inner()).await.map(Response::new)
    }

    async fn taken_over(
        &self,
        request: Request<v1::TakenOverRequest>,
    ) -> Result<Response<v1::TakenOverReply>, Status> {
        let master = ways::passed_by(request.extensions()).map(str::to_owned);
        let master = master.ok_or_else(|| Status::permission_denied("only masters say that"))?;
        let v1::TakenOverRequest { cluster, epoch } = request.into_inner();
        let cluster = cluster.parse::<ClusterName>();
        let cluster = cluster.map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        self.ways.finder.note_taken(&cluster, &master, epoch);
        self.engine.lose(&cluster, epoch, &master);
        Ok(Response::new(v1::TakenOverReply {}))
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
