//! `forward` and `connect`: connections to a machine, or to what it reaches, through its agent.

mod call;
mod listen;
pub(crate) mod place;

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use aot_proto::limits::MAX_TUNNELS;
use aot_proto::plural;
use aot_proto::v1::ForwardStarted;
use aot_tunnel::{Carried, Close, Leave};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::args::{ConnectArgs, ForwardArgs};
use super::error::{Error, Exit};
use super::{CliEnv, Ctx};
use call::Forwarded;
use listen::{Accepted, Listener};
use place::{ForwardPlace, Local};

/// How long the listener is left alone after a connection could not be taken: at once would only spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// `aot-master forward`.
///
/// # Errors
/// When the place can't be read, this host can't listen, or the master can't be asked, refuses or is lost.
pub(crate) async fn forward(ctx: &mut Ctx<'_>, args: ForwardArgs) -> Result<Exit, Error> {
    let place = ForwardPlace::parse(&args.place)?;
    let local = Local::parse(args.local.as_deref(), &place)?;
    // Before anything is on record.
    let listener = Listener::bind(&local).await?;
    let mut signals = EndSignals::new()?;
    let forwarded = tokio::select! {
        forwarded = call::begin(ctx, place) => forwarded?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    announce(ctx, &args.place, &listener, &forwarded.started)?;
    serve(ctx, &listener, forwarded, signals).await
}

fn announce(
    ctx: &mut Ctx<'_>,
    place: &str,
    listener: &Listener,
    started: &ForwardStarted,
) -> Result<(), Error> {
    let ForwardStarted {
        job_id, instance, ..
    } = started;
    if ctx.json {
        let line = json!({"job": job_id, "instance": instance, "to": place, "listen": listener.to_string()});
        ctx.print(&line.to_string())?;
    } else {
        ctx.print(&listener.to_string())?;
        ctx.message(&format!("leads to {place} until Ctrl-C ({job_id})"))?;
    }
    Ok(ctx.io.stdout.flush()?)
}

/// What a forward's connections have come to.
#[derive(Debug, Default)]
struct ForwardTotals {
    connections: usize,
    sent: u64,
    received: u64,
}

impl ForwardTotals {
    fn add(&mut self, carried: &Carried) {
        self.connections += 1;
        self.sent += carried.sent;
        self.received += carried.received;
    }
}

impl std::fmt::Display for ForwardTotals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections = plural::count(self.connections, "connection");
        let Self { sent, received, .. } = self;
        write!(f, "{connections}, {sent} bytes sent, {received} received")
    }
}

async fn serve(
    ctx: &mut Ctx<'_>,
    listener: &Listener,
    mut forwarded: Forwarded,
    mut signals: EndSignals,
) -> Result<Exit, Error> {
    let env = Arc::new(ctx.env.clone());
    let started = Arc::new(forwarded.started.clone());
    let mut connections: JoinSet<Result<Carried, Error>> = JoinSet::new();
    let mut totals = ForwardTotals::default();
    let exit = loop {
        // Every arm is cancel safe. Who comes when there are too many waits to be accepted.
        tokio::select! {
            caller = listener.accept(), if connections.len() < MAX_TUNNELS => match caller {
                Ok(caller) => {
                    connections.spawn(serve_one(Arc::clone(&env), Arc::clone(&started), caller));
                }
                Err(error) => {
                    ctx.message(&format!("cannot accept a connection for the moment: {error}"))?;
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(done) = connections.join_next() => match done {
                Ok(Ok(carried)) => {
                    totals.add(&carried);
                    if let Some(why) = broken(&carried.close) {
                        ctx.message(&format!("a connection broke: {why}"))?;
                    }
                }
                Ok(Err(error)) => {
                    let report = error.report(ctx.style()).unwrap_or_default();
                    ctx.message(&report)?;
                }
                Err(_) => {} // it was aborted, or has said why it panicked
            },
            ended = forwarded.ended() => {
                let ended = ended?;
                let line = ctx.style().bad(&format!("error: the forward has ended: {}", ended.detail));
                ctx.message(&line)?;
                break call::exit_of(&ended);
            }
            () = signals.next() => break Exit::Well,
        }
    };
    connections.shutdown().await;
    if exit == Exit::Well && !ctx.json {
        ctx.message(&format!("ended: {totals}"))?;
    }
    Ok(exit)
}

/// One connection, from its acceptance to its end.
async fn serve_one(
    env: Arc<CliEnv>,
    started: Arc<ForwardStarted>,
    caller: Accepted,
) -> Result<Carried, Error> {
    let connected = call::open(&env, &started).await;
    match caller {
        Accepted::Tcp(mut stream) => {
            let carried = match connected {
                Ok(connected) => {
                    let (read, write) = stream.split();
                    Ok(connected.carry(read, write, Leave::BothOver).await)
                }
                Err(error) => Err(error),
            };
            if !carried
                .as_ref()
                .is_ok_and(|it| matches!(it.close, Close::Whole))
            {
                // Dropped so, it is reset: whoever is on it learns that this was no end.
                let _ = stream.set_zero_linger();
            }
            carried
        }
        Accepted::Unix(mut stream) => {
            let (read, write) = stream.split();
            Ok(connected?.carry(read, write, Leave::BothOver).await)
        }
    }
}

/// Why a connection broke, where its own end does not say it: a reset by either program is theirs.
fn broken(close: &Close) -> Option<&str> {
    match close {
        Close::Lost(why) => Some(why),
        Close::Breach => Some("the agent does not keep to the protocol; update it"),
        Close::Whole | Close::ResetHere(_) | Close::ResetThere(_) => None,
    }
}

/// Signals that end a forward, which has no other end of its own.
struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn tokio_file(stream: BorrowedFd<'_>) -> Result<tokio::fs::File, Error> {
    let own = std::fs::File::from(stream.try_clone_to_owned()?);
    Ok(tokio::fs::File::from_std(own))
}

/// `aot-master connect`: standard input and output are the connection.
///
/// # Errors
/// When the master can't be asked, the machine refuses, or the connection breaks.
pub(crate) async fn connect(ctx: &mut Ctx<'_>, args: ConnectArgs) -> Result<Exit, Error> {
    if ctx.json {
        return Err(Error::usage(
            "a connection has no --json",
            "aot-master forward --json prints where it listens",
        ));
    }
    let forwarded = call::begin(ctx, ForwardPlace::port(args.name, args.port)).await?;
    let connected = call::open(ctx.env, &forwarded.started).await?;
    // As files, whose reads and writes are done on threads: whatever they are, nothing about them is changed for those who share
    // them.
    let read = tokio_file(std::io::stdin().as_fd())?;
    let write = tokio_file(std::io::stdout().as_fd())?;
    let carried = connected.carry(read, write, Leave::NothingComes).await;
    let instance = forwarded.started.instance;
    match carried.close {
        Close::Whole => Ok(Exit::Well),
        Close::ResetHere(error) => Err(Error::Output(error)),
        Close::ResetThere(why) => Err(Error::ConnectionBroke { instance, why }),
        Close::Lost(why) => Err(Error::ConnectionBroke { instance, why }),
        Close::Breach => {
            let why = "its agent does not keep to the protocol; update it".to_owned();
            Err(Error::ConnectionBroke { instance, why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_did_to_its_connection_is_not_reported_and_a_loss_is() {
        let lost = Close::Lost("the link was cut".to_owned());
        assert_eq!(broken(&lost), Some("the link was cut"));
        for quiet in [
            Close::Whole,
            Close::ResetThere("connection reset by peer".to_owned()),
            Close::ResetHere(std::io::ErrorKind::BrokenPipe.into()),
        ] {
            assert_eq!(broken(&quiet), None, "{quiet:?}");
        }
    }

    #[test]
    fn the_last_line_counts_all_connections() {
        let mut totals = ForwardTotals::default();
        for (sent, received) in [(1, 20), (300, 4)] {
            let close = Close::Whole;
            totals.add(&Carried {
                sent,
                received,
                close,
            });
        }
        let text = totals.to_string();
        assert_eq!(text, "2 connections, 301 bytes sent, 24 received");
    }
}
