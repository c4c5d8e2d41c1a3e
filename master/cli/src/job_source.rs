//! Where the events of a job come from: the call that begins or shows it, and, after the end of a master, the next one.

use std::pin::Pin;

use aot_proto::ids::JobId;
use aot_proto::v1::{
    BuiltinName, CancelJobRequest, ExecRequest, FollowRequest, JobEvent, RetryJobRequest,
};
use futures::Stream;
use tonic::{Code, Status, Streaming};

use super::Ctx;
use super::again::{Again, LOST, may_come, new_request, with_id, with_id_in};
use super::connect::Start;
use super::dial::{Client, OfJob};
use super::error::Error;
use super::interrupt::Interrupt;

/// What is told of a job.
pub(crate) type JobEventStream<'e> = Pin<Box<dyn Stream<Item = Result<JobEvent, Status>> + 'e>>;

/// How a job is asked for.
#[derive(Debug, Clone)]
pub(crate) enum JobAsk {
    /// A command, or a question to the agents.
    Exec(Box<ExecRequest>),
    /// The same as another job.
    Retry(RetryJobRequest),
    /// One that there is.
    Follow(FollowRequest),
    /// The end of one.
    Cancel(CancelJobRequest),
}

impl JobAsk {
    /// Whether it begins something: asked twice, only its id keeps that from being begun twice.
    fn begins(&self) -> bool {
        match self {
            Self::Exec(exec) => exec.builtin() == BuiltinName::Unspecified,
            Self::Retry(_) => true,
            Self::Follow(_) | Self::Cancel(_) => false,
        }
    }

    async fn ask(&self, client: &mut Client, id: JobId) -> Result<Streaming<JobEvent>, Status> {
        let answer = match self {
            Self::Exec(exec) if self.begins() => {
                client.exec(with_id(exec.as_ref().clone(), id)).await
            }
            Self::Exec(exec) => client.exec(exec.as_ref().clone()).await,
            Self::Retry(retry) => {
                client
                    .retry_job(with_id_in(retry.clone().of_job(), id))
                    .await
            }
            Self::Follow(follow) => client.follow(follow.clone().of_job()).await,
            Self::Cancel(cancel) => client.cancel_job(cancel.clone().of_job()).await,
        };
        Ok(answer?.into_inner())
    }

    /// What shows a job from its beginning that has been told of.
    fn follow(&self, job: &str) -> FollowRequest {
        let (live, output) = match self {
            Self::Follow(follow) => (follow.live, follow.output),
            Self::Cancel(_) => (true, false),
            Self::Exec(_) | Self::Retry(_) => (true, true),
        };
        FollowRequest {
            job_id: job.to_owned(),
            live,
            output,
        }
    }

    /// The same once more, of another master. What agents answer by themselves is on record only at its end: that is asked anew.
    async fn ask_again(
        &self,
        client: &mut Client,
        id: JobId,
        job: &str,
    ) -> Result<Streaming<JobEvent>, Status> {
        let is_answer = matches!(self, Self::Exec(_)) && !self.begins();
        if !job.is_empty() && !is_answer {
            let follow = self.follow(job).of_job();
            return Ok(client.follow(follow).await?.into_inner());
        }
        match (self, self.ask(client, id).await) {
            // It was taken the first time, and has come to its end since.
            (Self::Cancel(cancel), Err(status)) if status.code() == Code::FailedPrecondition => {
                let follow = self.follow(&cancel.job_id).of_job();
                Ok(client.follow(follow).await?.into_inner())
            }
            (_, answer) => answer,
        }
    }
}

/// A job's events, and how to have them again.
pub(crate) struct JobSource {
    ask: JobAsk,
    id: JobId,
    again: Again,
}

impl JobSource {
    /// Asked of this master first.
    ///
    /// # Errors
    /// As [`new_request`].
    pub(crate) fn new(
        ctx: &Ctx<'_>,
        client: Client,
        ask: JobAsk,
        start: Start,
    ) -> Result<Self, Error> {
        Ok(Self {
            ask,
            id: new_request()?,
            again: Again::new(ctx, client, start),
        })
    }

    /// The master that was asked last.
    pub(crate) fn client(&mut self) -> &mut Client {
        self.again.client()
    }

    /// Something came of the job that was not shown before.
    pub(crate) fn came(&mut self) {
        self.again.came();
    }

    /// Asks for the events. When the master dies before it answers, the next one is asked, where that can do no harm.
    ///
    /// # Errors
    /// Why there are none, or Ctrl-C.
    pub(crate) async fn begin(
        &mut self,
        ctx: &mut Ctx<'_>,
        interrupt: &mut Interrupt,
    ) -> Result<JobEventStream<'static>, Error> {
        let asked = self.ask.ask(self.again.client(), self.id);
        let status = tokio::select! {
            asked = asked => match asked {
                Ok(events) => return Ok(Box::pin(events)),
                Err(status) => status,
            },
            () = interrupt.pressed() => {
                return Err(Error::Interrupted { goes_on: self.goes_on("") });
            }
        };
        if !may_come(&status) || !self.may_be_repeated("") {
            return Err(status.into());
        }
        ctx.message(LOST)?;
        let goes_on = self.goes_on("");
        let again = tokio::select! {
            again = self.next(ctx, "", Some(&status)) => again?,
            () = interrupt.pressed() => return Err(Error::Interrupted { goes_on }),
        };
        again.ok_or_else(|| super::follow_cluster::lost(Some(status), goes_on))
    }

    /// How to look at what continues.
    pub(crate) fn goes_on(&self, job: &str) -> String {
        match (job, self.ask.begins() && self.again.keeps_requests()) {
            ("", true) => format!(
                "it may have been started, then as {}; see aot-master jobs",
                self.id
            ),
            ("", false) => "it may have been started; see aot-master jobs".to_owned(),
            (job, _) => format!("{job} is still running; see aot-master jobs follow {job}"),
        }
    }

    /// Whether it may be asked for once more: `job` is what it is known by, if anything was told of it.
    pub(crate) fn may_be_repeated(&self, job: &str) -> bool {
        !job.is_empty() || !self.ask.begins() || self.again.keeps_requests()
    }

    /// All events from the beginning once more, of the next master; `None` when there is none in time, or none knows the job.
    ///
    /// # Errors
    /// Why that one refuses what nothing was told of yet.
    pub(crate) async fn next(
        &mut self,
        ctx: &mut Ctx<'_>,
        job: &str,
        why: Option<&Status>,
    ) -> Result<Option<JobEventStream<'static>>, Error> {
        if !self.again.broke(ctx, why) {
            return Ok(None);
        }
        loop {
            if self.again.next(ctx).await.is_none() || !self.may_be_repeated(job) {
                return Ok(None);
            }
            let asked = self.ask.ask_again(self.again.client(), self.id, job).await;
            match asked {
                Ok(events) => return Ok(Some(Box::pin(events))),
                Err(status) if self.again.may_pass(&status).await => {}
                Err(status) if job.is_empty() && !may_come(&status) => return Err(status.into()),
                Err(_) => return Ok(None),
            }
        }
    }
}
