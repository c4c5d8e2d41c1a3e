//! Copies between one terminal and the master until either ends. Bounded both ways: who does not read is not read from.

use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1::{ShellDown, ShellEnd, ShellUp, shell_down, shell_up};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::message;
use super::terminal::{Keeper, Terminal};

/// Largest piece of output in one message.
const PIECE_BYTES: usize = 32 << 10;
/// After the program's end its terminal is read until it is silent for this long: somebody else may still have it open.
const QUIET: Duration = Duration::from_millis(200);
/// And no further than this many pieces.
const MOST_DRAINED: usize = 64;

/// A smaller piece than this is followed by a pause: many small messages that are not read yet end the connection (HTTP/2, the
/// h2 crate). What is shown meanwhile comes as one piece.
const SMALL: usize = 256;
/// How long it is.
const PAUSE: Duration = Duration::from_millis(10);

/// How a terminal ended.
#[derive(Debug, PartialEq)]
pub(super) enum SpliceEnd {
    /// What ran in it has ended; to be reported.
    Over(ShellEnd),
    /// The operator, the master or the connection is gone: nobody is there to report to.
    HungUp,
}

/// What became of reading a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadOutcome {
    /// There is more to come, after this many bytes.
    More(usize),
    /// Nobody has it open any more.
    All,
    /// The master does not take it.
    Unread,
}

/// One terminal and the way up.
pub(super) struct Splice<'a> {
    pub terminal: Terminal,
    pub up: &'a mpsc::Sender<ShellUp>,
}

impl Splice<'_> {
    /// Copies until the program ends, or the master hangs up or is gone; `stop` hangs up too, but its end is reported. When this
    /// returns, what ran in the terminal has ended or is being hung up.
    pub(super) async fn run<S>(
        self,
        down: &mut S,
        keeper: Keeper,
        stop: &CancellationToken,
    ) -> SpliceEnd
    where
        S: Stream<Item = Result<ShellDown, Status>> + Unpin,
    {
        let Keeper { orders, end } = keeper;
        let (mut orders, mut shows) = (Some(orders), true);
        let mut end = std::pin::pin!(end.read());
        let mut show = Box::pin(self.show());
        let mut typed = std::pin::pin!(self.typed(down));
        let mut end = loop {
            tokio::select! {
                end = &mut end => break end,
                shown = &mut show, if shows => match shown {
                    ReadOutcome::Unread => return SpliceEnd::HungUp,
                    _ => shows = false,
                },
                () = &mut typed => return SpliceEnd::HungUp,
                () = self.up.closed() => return SpliceEnd::HungUp,
                () = stop.cancelled(), if orders.is_some() => orders = None,
            }
        };
        drop(show);
        if shows && self.drain().await == ReadOutcome::Unread {
            return SpliceEnd::HungUp;
        }
        match orders {
            Some(orders) => orders.heard().await,
            None => end.detail = "the agent was stopped".to_owned(),
        }
        SpliceEnd::Over(end)
    }

    /// Sends all that the terminal shows.
    async fn show(&self) -> ReadOutcome {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match self.show_piece(&mut buffer, Duration::MAX).await {
                ReadOutcome::More(bytes) if bytes < SMALL => sleep(PAUSE).await,
                ReadOutcome::More(_) => {}
                end => return end,
            }
        }
    }

    /// What the program printed last comes before its end.
    async fn drain(&self) -> ReadOutcome {
        let mut buffer = vec![0; PIECE_BYTES];
        for _ in 0..MOST_DRAINED {
            match self.show_piece(&mut buffer, QUIET).await {
                ReadOutcome::More(_) => {}
                end => return end,
            }
        }
        ReadOutcome::All
    }

    /// Sends what there is; silence for `quiet` counts as the end. Cancel safe: what was read is sent at once.
    async fn show_piece(&self, buffer: &mut [u8], quiet: Duration) -> ReadOutcome {
        let Ok(permit) = self.up.reserve().await else {
            return ReadOutcome::Unread;
        };
        match timeout(quiet, self.terminal.read(buffer)).await {
            Ok(Ok(len)) if len > 0 => {
                permit.send(message(shell_up::Body::Data(buffer[..len].to_vec())));
                ReadOutcome::More(len)
            }
            _ => ReadOutcome::All,
        }
    }

    /// Types all that the master sends, until it hangs up or is gone.
    async fn typed<S>(&self, down: &mut S)
    where
        S: Stream<Item = Result<ShellDown, Status>> + Unpin,
    {
        while let Some(Ok(ShellDown { body })) = down.next().await {
            match body {
                Some(shell_down::Body::Data(data)) => {
                    if let Err(error) = self.terminal.write_all(&data).await {
                        // It is ending: its end is on its way.
                        tracing::debug!(error = %Chain(&error), "input for a terminal that has ended");
                    }
                }
                Some(shell_down::Body::Resize(size)) => {
                    self.terminal.resize((size.columns, size.rows));
                }
                Some(shell_down::Body::HangUp(true)) => return,
                Some(shell_down::Body::HangUp(false)) | None => {}
            }
        }
    }
}
