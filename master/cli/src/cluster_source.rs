//! Where the events of a cluster come from: the call that begins something there, and, after the end of a master, the next one,
//! which is asked about the same job.

use aot_proto::headers;
use aot_proto::ids::JobId;
use aot_proto::v1::{
    ApplyFileRequest, ApplyRequest, CleanupRequest, DeleteOrphansRequest, Event, LaunchRequest,
    LifecycleRequest, TerminateRequest, WaitRequest, WatchRequest,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::Ctx;
use super::again::{Again, LOST, may_come, new_request, with_id, with_id_in};
use super::connect::Start;
use super::dial::{Client, about, millis};
use super::error::Error;
use super::follow_cluster::{EventSource, EventStream, lost};

/// What is asked for.
pub(crate) enum ClusterAsk {
    /// A launch: asked for twice, it is one.
    Launch(Box<LaunchRequest>),
    /// Stages again.
    Apply(ApplyRequest),
    /// Stages again, of a file that the cluster takes over with it.
    ApplyFile(Box<ApplyFileRequest>),
    /// The end of machines.
    Terminate(TerminateRequest),
    /// Start, stop or reboot.
    Lifecycle(LifecycleRequest),
    /// The end of this cluster.
    Cleanup(String),
    /// The end of an unknown one.
    DeleteOrphans(DeleteOrphansRequest),
    /// A state, until then.
    Wait(WaitRequest, Instant),
}

impl ClusterAsk {
    /// Whether it may be asked twice although a master does not take its id.
    fn is_harmless(&self) -> bool {
        matches!(self, Self::Launch(_) | Self::Wait(..))
    }

    /// Whether it is a job that runs stages, and continues without whoever follows it.
    fn runs_stages(&self) -> bool {
        matches!(self, Self::Launch(_) | Self::Apply(_) | Self::ApplyFile(_))
    }

    /// From now on it waits only for the time that is left.
    fn come_again(&mut self) {
        if let Self::Wait(wait, until) = self {
            wait.timeout_ms = millis(until.saturating_duration_since(Instant::now()));
        }
    }

    async fn ask(
        &self,
        client: &mut Client,
        id: JobId,
    ) -> Result<Response<Streaming<Event>>, Status> {
        match self {
            Self::Launch(launch) => client.launch(with_id(launch.as_ref().clone(), id)).await,
            Self::Apply(apply) => client.apply(with_id(apply.clone(), id)).await,
            Self::ApplyFile(apply) => {
                let apply = apply.as_ref().clone();
                client.apply_file(with_id(apply, id)).await
            }
            Self::Terminate(end) => client.terminate(with_id(end.clone(), id)).await,
            Self::Lifecycle(change) => client.lifecycle(with_id(change.clone(), id)).await,
            Self::Cleanup(cluster) => {
                let request = CleanupRequest {
                    cluster: Some(cluster.clone()),
                };
                let request = about(cluster, Request::new(request));
                client.cleanup(with_id_in(request, id)).await
            }
            Self::DeleteOrphans(delete) => client.delete_orphans(with_id(delete.clone(), id)).await,
            Self::Wait(wait, _) => client.wait(wait.clone()).await,
        }
    }
}

/// A cluster's events, and how to have them again.
pub(crate) struct ClusterSource {
    ask: ClusterAsk,
    id: JobId,
    /// What was begun or joined, once a master has said so.
    job: Option<String>,
    again: Again,
    goes_on: String,
    /// Only its first event is wanted.
    is_detached: bool,
}

impl ClusterSource {
    /// Asked of this master first.
    ///
    /// # Errors
    /// As [`new_request`].
    pub(crate) fn new(
        ctx: &Ctx<'_>,
        client: Client,
        ask: ClusterAsk,
        start: Start,
        goes_on: &str,
    ) -> Result<Self, Error> {
        Ok(Self {
            ask,
            id: new_request()?,
            job: None,
            again: Again::new(ctx, client, start),
            goes_on: goes_on.to_owned(),
            is_detached: false,
        })
    }

    /// Only the first event is wanted of it.
    #[must_use]
    pub(crate) fn detached(self, is_detached: bool) -> Self {
        Self {
            is_detached,
            ..self
        }
    }

    /// Asks for the events. When the master dies before it answers, the next one is asked, where that can do no harm.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) async fn begin(&mut self, ctx: &mut Ctx<'_>) -> Result<Streaming<Event>, Error> {
        let status = match self.ask.ask(self.again.client(), self.id).await {
            Ok(answer) => return Ok(self.taken(answer)),
            Err(status) => status,
        };
        if !may_come(&status) || !self.may_be_repeated() {
            return Err(status.into());
        }
        ctx.message(LOST)?;
        let again = self.rest(ctx, &status).await?;
        again.ok_or_else(|| lost(Some(status), self.goes_on.clone()))
    }

    fn taken(&mut self, answer: Response<Streaming<Event>>) -> Streaming<Event> {
        let job = headers::get(answer.metadata(), headers::JOB);
        self.job = job.map(str::to_owned).or(self.job.take());
        answer.into_inner()
    }

    fn may_be_repeated(&self) -> bool {
        self.ask.is_harmless() || self.again.keeps_requests()
    }

    /// The events from now on, of the next master; `None` when there is none in time.
    ///
    /// # Errors
    /// Why that one refuses.
    async fn rest(
        &mut self,
        ctx: &mut Ctx<'_>,
        why: &Status,
    ) -> Result<Option<Streaming<Event>>, Error> {
        if !self.again.broke(ctx, Some(why)) {
            return Ok(None);
        }
        loop {
            if self.again.next(ctx).await.is_none() {
                return Ok(None);
            }
            if let Err(status) = self.again.read_info().await {
                match self.again.may_pass(&status).await {
                    true => continue,
                    false => return Ok(None),
                }
            }
            let job = self.job.clone().filter(|_| self.again.keeps_requests());
            let asked = match job {
                Some(job) => {
                    let watch = WatchRequest {
                        cluster: None,
                        job_id: job.clone(),
                        ..WatchRequest::default()
                    };
                    let mut watch = Request::new(watch);
                    headers::set(watch.metadata_mut(), headers::JOB, &job);
                    self.again.client().watch(watch).await
                }
                None if !self.may_be_repeated() => return Ok(None),
                None => {
                    self.ask.come_again();
                    self.ask.ask(self.again.client(), self.id).await
                }
            };
            match asked {
                Ok(answer) => return Ok(Some(self.taken(answer))),
                Err(status) if self.again.may_pass(&status).await => {}
                Err(status) if may_come(&status) => return Ok(None),
                Err(status) => return Err(status.into()),
            }
        }
    }
}

impl EventSource for ClusterSource {
    fn goes_on(&self) -> String {
        match &self.job {
            Some(job) if self.ask.runs_stages() => {
                format!("{}; aot-master jobs cancel {job} ends it", self.goes_on)
            }
            _ => self.goes_on.clone(),
        }
    }

    fn cancels(&self) -> String {
        match self.ask.runs_stages() {
            true => self.job.clone().unwrap_or_default(),
            false => String::new(),
        }
    }

    fn is_detached(&self) -> bool {
        self.is_detached
    }

    fn came(&mut self) {
        self.again.came();
    }

    fn client(&mut self) -> &mut Client {
        self.again.client()
    }

    async fn next(
        &mut self,
        ctx: &mut Ctx<'_>,
        why: &Status,
    ) -> Result<Option<EventStream<'static>>, Error> {
        let rest = self.rest(ctx, why).await?;
        Ok(rest.map(|events| Box::pin(events) as EventStream<'static>))
    }
}
