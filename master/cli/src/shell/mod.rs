//! `shell`: a terminal on an instance, shown in this one.

mod escape;
mod modes;
mod session;
mod signals;
mod terminal;

use std::io::{self, IsTerminal};

use aot_host::environment;
use aot_proto::v1::{
    Outcome, ShellEnded, ShellInput, ShellOpen, ShellOutput, shell_input, shell_output,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Ctx;
use super::args::ShellArgs;
use super::connect::{Start, connect};
use super::error::{Error, Exit};
use session::{TerminalEnd, TerminalSession};
use signals::TerminalSignals;

/// Messages that may wait for the master, past HTTP/2's own window.
const QUEUE: usize = 8;

/// What losing a terminal means for what ran in it.
const HUNG_UP: &str = "is hung up there: SIGHUP, after 5 s SIGKILL";

/// `aot-master shell`.
///
/// # Errors
/// When the master can't be asked, refuses, or is lost.
pub(crate) async fn shell(ctx: &mut Ctx<'_>, args: ShellArgs) -> Result<Exit, Error> {
    if ctx.json {
        return Err(Error::usage(
            "a terminal has no --json",
            "aot-master exec --json runs a command and prints its outcome",
        ));
    }
    let mut client = connect(ctx, Start::WithState).await?;
    let mut signals = TerminalSignals::new()?;
    let (typed, messages) = mpsc::channel(QUEUE);
    let open = ShellInput {
        body: Some(shell_input::Body::Open(open(ctx, args)?)),
    };
    let _ = typed.try_send(open); // the channel is empty
    let opening = async {
        let mut shown = client
            .shell(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let first = shown.message().await?;
        Ok::<_, Error>((first, shown))
    };
    let (first, shown) = tokio::select! {
        opened = opening => opened?,
        number = signals.fatal() => return Ok(Exit::Remote(128 + number)),
    };
    let Some(shell_output::Body::Started(started)) = first.and_then(|first| first.body) else {
        return Err(lost("this instance", None));
    };
    let end = run(typed, shown, signals).await?;
    let silent = matches!(&end, TerminalEnd::Remote(ended) if ended.detail.is_empty());
    if !silent && io::stdin().is_terminal() {
        // What is said now is not part of the program's last line.
        ctx.message("")?;
    }
    close(ctx, &started.instance, end)
}

fn open(ctx: &Ctx<'_>, args: ShellArgs) -> Result<ShellOpen, Error> {
    let (columns, rows) = terminal::size(&[&io::stdin(), &io::stdout()]);
    let term = environment::text("TERM")?.unwrap_or_default();
    Ok(ShellOpen {
        cluster: ctx.cluster.clone(),
        instance: args.name,
        user: args.user,
        term: if io::stdin().is_terminal() {
            term
        } else {
            "dumb".to_owned()
        },
        columns,
        rows,
        argv: args.command,
    })
}

/// With this process's terminal raw, when it has one; it is as before when this returns.
async fn run(
    typed: mpsc::Sender<ShellInput>,
    shown: Streaming<ShellOutput>,
    signals: TerminalSignals,
) -> Result<TerminalEnd, Error> {
    let stdin = io::stdin();
    let raw = match stdin.is_terminal() {
        true => Some(terminal::RawMode::enter(&stdin)?),
        false => None,
    };
    Ok(TerminalSession::new(typed, shown, signals, raw).run().await)
}

fn lost(instance: &str, source: Option<Box<tonic::Status>>) -> Error {
    Error::Lost {
        goes_on: format!(
            "what ran in the terminal of {instance} {HUNG_UP}; open another with aot-master shell"
        ),
        source,
    }
}

/// What to say and to exit with.
fn close(ctx: &mut Ctx<'_>, instance: &str, end: TerminalEnd) -> Result<Exit, Error> {
    match end {
        TerminalEnd::Remote(ended) => {
            let (exit, why) = remote(&ended);
            if !why.is_empty() {
                let line = ctx.style().bad(&format!("error: {instance}: {why}"));
                ctx.message(&line)?;
            }
            Ok(exit)
        }
        TerminalEnd::Left => {
            ctx.message(&format!(
                "left {instance}: what ran in the terminal {HUNG_UP}"
            ))?;
            Ok(Exit::Interrupted)
        }
        TerminalEnd::Signal(number) => Ok(Exit::Remote(128_u8.saturating_add(number))),
        TerminalEnd::Lost(source) => Err(lost(instance, source)),
        TerminalEnd::Output(error) => Err(Error::Output(error)),
    }
}

/// What the master's last word means: the exit code, and what there is to say.
fn remote(ended: &ShellEnded) -> (Exit, &str) {
    let exit = match (ended.exit_code, ended.outcome()) {
        // Only the low byte of an exit status is one (exit(3)).
        (Some(code), _) => match u8::try_from(code & 0xff) {
            Ok(0) => Exit::Well,
            Ok(code) => Exit::Remote(code),
            Err(_) => Exit::Failed,
        },
        (None, Outcome::LostContact) => Exit::Unreachable,
        (None, _) => Exit::Failed,
    };
    (exit, &ended.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_terminal_or_says_why_there_is_none() {
        let table = [
            (Outcome::Succeeded, Some(0), Exit::Well),
            (Outcome::Failed, Some(7), Exit::Remote(7)),
            (Outcome::Failed, Some(137), Exit::Remote(137)),
            (Outcome::Failed, Some(-1), Exit::Remote(255)),
            (Outcome::Absent, None, Exit::Failed),
            (Outcome::Rejected, None, Exit::Failed),
            (Outcome::Cancelled, None, Exit::Failed),
            (Outcome::LostContact, None, Exit::Unreachable),
        ];
        for (outcome, code, exit) in table {
            let ended = ShellEnded {
                outcome: outcome.into(),
                exit_code: code,
                detail: "why".to_owned(),
            };
            assert_eq!(remote(&ended), (exit, "why"), "{outcome:?} {code:?}");
        }
    }
}
