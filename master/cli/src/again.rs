//! What a command does when its master, or the master of its cluster, is gone: asks for the next one for a minute, of this socket.
//! What may be asked of it then, `job_source`, `cluster_source` and `logs` know.

use std::time::Duration;

use aot_host::in_a_row::InARow;
use aot_proto::headers;
use aot_proto::ids::JobId;
use aot_proto::status::{is_owner_gone, is_stopping};
use aot_proto::v1::InfoRequest;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status};

use super::Ctx;
use super::connect::{Start, dial_once, is_dying};
use super::dial::Client;
use super::error::{Error, is_broken};

/// For so long the next master is asked for: a silent one is replaced after 15 s, and its records are read then.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a command asks for a next master with nothing new in between: where each one dies of the same, that is not the way out.
const MOST: u32 = 20;

/// What is said when a master is lost.
pub(crate) const LOST: &str = "the master is gone: asking for the next one, for up to a minute";

/// Whether the same may be answered in a moment: by another master, or by this one when it is back.
pub(crate) fn may_come(status: &Status) -> bool {
    is_dying(status) || is_owner_gone(status)
}

/// The id that the job is to have which a request begins: asked once more with it, a master finds that job.
///
/// # Errors
/// Without random numbers.
pub(crate) fn new_request() -> Result<JobId, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| std::io::Error::other("there are no random numbers"))?;
    let random = u128::from_le_bytes(bytes) >> 48; // 80 bits
    Ok(JobId::from_parts(aot_host::clock::unix_ms(), random))
}

/// A request that begins a job with this id.
pub(crate) fn with_id<T>(message: T, id: JobId) -> Request<T> {
    with_id_in(Request::new(message), id)
}

/// The same of one that has other headers.
pub(crate) fn with_id_in<T>(mut request: Request<T>, id: JobId) -> Request<T> {
    headers::set(request.metadata_mut(), headers::REQUEST, &id.to_string());
    request
}

/// The way to a master that answers, over the ends of those before.
pub(crate) struct Again {
    /// When one may be started.
    start: Start,
    /// The one that was asked last.
    client: Client,
    /// All masters that live take the ids of requests.
    keeps_requests: bool,
    breaks: InARow,
    until: Option<Instant>,
    /// It does not answer any more.
    is_lost: bool,
}

impl Again {
    /// With a master that answered just now. Another one is started only in the place of one that a command has started.
    pub(crate) fn new(ctx: &Ctx<'_>, client: Client, start: Start) -> Self {
        Self {
            // One that is served comes back by itself, or by whoever serves it: another would be in its way.
            start: match ctx.background {
                true => start,
                false => Start::Never,
            },
            client,
            keeps_requests: ctx.keeps_requests,
            breaks: InARow::new(MOST),
            until: None,
            is_lost: false,
        }
    }

    /// The one that was asked last.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Whether a request with an id may be made once more.
    pub(crate) fn keeps_requests(&self) -> bool {
        self.keeps_requests
    }

    /// Something came that was not known before.
    pub(crate) fn came(&mut self) {
        self.breaks.came();
    }

    /// What was asked for broke off, and so. `false` when it has been asked for too often since something last came.
    pub(crate) fn broke(&mut self, ctx: &Ctx<'_>, why: Option<&Status>) -> bool {
        self.until = Some(Instant::now() + ctx.env.asks_again);
        self.note(why);
        self.breaks.failed()
    }

    fn note(&mut self, why: Option<&Status>) {
        let Some(why) = why else { return };
        self.is_lost |= is_broken(why) || is_stopping(why);
        if is_stopping(why) {
            // Somebody wants it to stop: it is not for us to start another.
            self.start = Start::Never;
        }
    }

    /// The next master to ask, once there is one; `None` when the time is over.
    pub(crate) async fn next(&mut self, ctx: &mut Ctx<'_>) -> Option<&mut Client> {
        let until = self.until?;
        while self.is_lost {
            match timeout_at(until, dial_once(ctx, self.start)).await.ok()? {
                Ok((client, info)) => {
                    (self.client, self.is_lost) = (client, false);
                    self.keeps_requests = info.keeps_requests;
                    if let Some(verbose) = &ctx.verbose {
                        verbose.open(&self.client).await.ok()?;
                    }
                }
                Err(error) => {
                    if matches!(error, Error::NotStarted { .. }) {
                        self.start = Start::Never; // once is enough
                    }
                    self.pause().await?;
                }
            }
        }
        Some(&mut self.client)
    }

    /// Reads again whether all masters take the ids of requests: the one of a cluster may be another by now.
    ///
    /// # Errors
    /// As the master that is asked.
    pub(crate) async fn read_info(&mut self) -> Result<(), Status> {
        let until = self.until.unwrap_or_else(Instant::now);
        let info = self.client.info(InfoRequest::default());
        let info = timeout_at(until, info).await;
        let info = info.map_err(|_| Status::unavailable("no answer in time"))??;
        self.keeps_requests = info.into_inner().keeps_requests;
        Ok(())
    }

    /// An answer that was refused: waits before the next try where there may be one. `false` when it counts, or time is over.
    pub(crate) async fn may_pass(&mut self, status: &Status) -> bool {
        if status.code() != Code::Unavailable && !is_broken(status) {
            return false;
        }
        self.note(Some(status));
        self.pause().await.is_some()
    }

    async fn pause(&self) -> Option<()> {
        let until = self.until?;
        let next = Instant::now() + PAUSE.min(until.saturating_duration_since(Instant::now()));
        tokio::time::sleep_until(next).await;
        (next < until).then_some(())
    }
}
