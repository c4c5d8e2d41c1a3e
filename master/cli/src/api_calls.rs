//! `-v`: every call to a provider's API on standard error, while a command runs. Opened by `connect` before the
//! command's own call, shown beside it; never changes what a command does.

use std::collections::HashMap;
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
    /// By the ids of masters, empty for the one that is asked: number of the last call that was shown, or was before our time.
    seen: HashMap<String, u64>,
    /// What was told before it was open.
    notes: Vec<ApiCall>,
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
    let request = ApiCallsRequest { all: true };
    let mut feed = CallFeed {
        calls: client.api_calls(request).await?.into_inner(),
        client,
        seen: HashMap::new(),
        notes: Vec::new(),
    };
    // The other masters' numbers come before that of the one that is asked: all of them tell their calls then.
    loop {
        let first = feed.calls.message().await?.unwrap_or_default();
        let is_own = first.master.is_empty();
        feed.count(&first);
        if !first.error.is_empty() {
            feed.notes.push(first);
        }
        if is_own {
            return Ok(feed);
        }
    }
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
                Some(mut opened) = self.opened.recv() => {
                    self.show_notes(&mut opened)?;
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

    fn show_notes(&self, opened: &mut CallFeed) -> Result<(), Error> {
        let mut notes = std::mem::take(&mut opened.notes).into_iter();
        notes.try_for_each(|note| self.verbose.show(&note))
    }

    /// Shows the calls up to the last one that each master has made.
    async fn drain(&self, mut opened: CallFeed) -> Result<(), Error> {
        self.show_notes(&mut opened)?;
        let deadline = Instant::now() + DRAIN_WITHIN;
        let all = InfoRequest { all: true };
        let info = opened.client.info(within(DRAIN_WITHIN, all));
        let Ok(Ok(info)) = timeout_at(deadline, info).await else {
            return Ok(()); // it is gone, and its calls with it
        };
        let info = info.into_inner();
        let others = info.others.iter();
        let mut last: HashMap<&str, u64> = others.map(|it| (&*it.master, it.api_calls)).collect();
        last.insert("", info.api_calls);
        while opened.is_behind(&last) {
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
        self.count(&call);
        Some(call)
    }

    fn count(&mut self, call: &ApiCall) {
        if call.operation.is_empty() && !call.error.is_empty() && !call.master.is_empty() {
            self.seen.remove(&call.master); // it may tell no more: it is not waited for
            return;
        }
        let seen = self.seen.entry(call.master.clone()).or_default();
        *seen = (*seen).max(call.number);
    }

    /// Whether a master that tells its calls has made more than were shown.
    fn is_behind(&self, last: &HashMap<&str, u64>) -> bool {
        let mut seen = self.seen.iter();
        seen.any(|(master, seen)| last.get(master.as_str()).is_some_and(|last| seen < last))
    }
}

/// The next call of what is open; never, when nothing is.
async fn next(open: &mut Option<CallFeed>) -> Option<ApiCall> {
    match open {
        Some(opened) => opened.next().await,
        None => std::future::pending().await,
    }
}
