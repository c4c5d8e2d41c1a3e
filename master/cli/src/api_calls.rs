//! `-v`: every call to a provider's API on standard error, while a command runs. Opened by `connect` before the
//! command's own call, shown beside it; never changes what a command does.

use std::future::Future;
use std::time::Duration;

use aot_proto::v1::{ApiCall, ApiCallsRequest, InfoRequest};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Status, Streaming};

use super::dial::{Client, within};
use super::error::{Error, Exit};
use crate::view::{Out, Style, api_call_line};

/// Longest wait for a master to say that it tells its calls.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait at the end for calls that the master has made and we have not seen.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// How the calls are asked for, and where they are shown.
#[derive(Clone)]
pub(crate) struct Verbose {
    /// Standard error, shared with the command.
    pub stderr: Out,
    style: Style,
    opened: mpsc::Sender<CallFeed>,
}

/// A master that tells its calls.
struct CallFeed {
    client: Client,
    calls: Streaming<ApiCall>,
    /// Number of the last call that was shown, or was before our time.
    seen: u64,
}

/// The other end of [`Verbose`]: shows what was opened.
pub(crate) struct CallPrinter {
    verbose: Verbose,
    opened: mpsc::Receiver<CallFeed>,
}

impl Verbose {
    /// Both ends.
    pub(crate) fn new(stderr: Out, style: Style) -> (Self, CallPrinter) {
        let (sender, opened) = mpsc::channel(1);
        let verbose = Self {
            stderr,
            style,
            opened: sender,
        };
        let shown = CallPrinter {
            verbose: verbose.clone(),
            opened,
        };
        (verbose, shown)
    }

    /// Asks a master for its calls; done once it tells them. One that does not is noted: the command continues.
    ///
    /// # Errors
    /// When the note can't be written.
    pub(crate) async fn open(&self, client: &Client) -> Result<(), Error> {
        let asked = timeout(OPEN_WITHIN, open(client.clone())).await;
        let asked = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        match asked {
            // Without a reader the command is over.
            Ok(opened) => drop(self.opened.send(opened).await),
            Err(status) => {
                let text = format!(
                    "note: the master's API calls cannot be shown: {}",
                    status.message()
                );
                self.stderr.above(&text)?;
            }
        }
        Ok(())
    }

    fn show(&self, call: &ApiCall) -> Result<(), Error> {
        Ok(self.stderr.above(&api_call_line(call, self.style))?)
    }
}

async fn open(mut client: Client) -> Result<CallFeed, Status> {
    let mut calls = client.api_calls(ApiCallsRequest {}).await?.into_inner();
    let first = calls.message().await?.unwrap_or_default();
    Ok(CallFeed {
        client,
        calls,
        seen: first.number,
    })
}

impl CallPrinter {
    /// Runs a command, and shows the calls that are made meanwhile: all of them, when it came to an end of its own.
    ///
    /// # Errors
    /// As the command; when a line can't be written.
    pub(crate) async fn beside(
        mut self,
        command: impl Future<Output = Result<Exit, Error>>,
    ) -> Result<Exit, Error> {
        futures::pin_mut!(command);
        let mut open: Option<CallFeed> = None;
        let ran = loop {
            let call = tokio::select! {
                biased;
                call = next(&mut open) => call,
                Some(opened) = self.opened.recv() => {
                    open = Some(opened);
                    continue;
                }
                ran = &mut command => break ran,
            };
            match call {
                Some(call) => self.verbose.show(&call)?,
                None => open = None,
            }
        };
        let lost = matches!(&ran, Err(Error::Interrupted { .. } | Error::Lost { .. }));
        // A command that never had to wait may be over before its master was taken up here.
        if let Some(opened) = open.or_else(|| self.opened.try_recv().ok())
            && !lost
        {
            self.drain(opened).await?;
        }
        ran
    }

    /// Shows the calls up to the last one that the master has made.
    async fn drain(&self, mut opened: CallFeed) -> Result<(), Error> {
        let deadline = Instant::now() + DRAIN_WITHIN;
        let info = opened.client.info(within(DRAIN_WITHIN, InfoRequest {}));
        let Ok(Ok(info)) = timeout_at(deadline, info).await else {
            return Ok(()); // it is gone, and its calls with it
        };
        let last = info.into_inner().api_calls;
        while opened.seen < last {
            let Ok(Some(call)) = timeout_at(deadline, opened.next()).await else {
                break;
            };
            self.verbose.show(&call)?;
        }
        Ok(())
    }
}

impl CallFeed {
    /// The next call; `None` at the end of the stream.
    async fn next(&mut self) -> Option<ApiCall> {
        let call = self.calls.next().await?.ok()?;
        self.seen = self.seen.max(call.number);
        Some(call)
    }
}

/// The next call of what is open; never, when nothing is.
async fn next(open: &mut Option<CallFeed>) -> Option<ApiCall> {
    match open {
        Some(opened) => opened.next().await,
        None => std::future::pending().await,
    }
}
