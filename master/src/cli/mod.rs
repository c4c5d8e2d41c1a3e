//! The command line: asks the master over its unix socket and shows what it answers. Called by `main` for every command
//! but `serve`, `check`, `schema` and the machine's own; talks only operator.proto, never to the store or a provider.

pub mod args;

mod agents;
mod api_calls;
mod background;
mod confirm;
mod connect;
mod cp;
mod error;
mod exec;
mod exec_args;
mod facts;
mod follow;
mod following;
mod help;
mod interrupt;
mod inventory;
mod jobs;
mod launch;
mod lifecycle;
mod live;
mod logs;
mod orphans;
mod out_dir;
mod shape;
mod shell;
mod shutdown;
mod ssh_config;
mod status;
mod wait;

#[cfg(test)]
mod args_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches};
use time::UtcOffset;

use crate::view::{Aside, Look, Streams, Style};
use api_calls::Verbose;
use args::{Cli, Command};

pub use background::BackgroundDaemon;
pub use error::{Error, Exit};
pub use exec_args::{ExecArgs, What};

/// What the settings say that the commands need.
#[derive(Debug, Clone)]
pub struct CliEnv {
    /// The master's socket.
    pub socket: PathBuf,
    /// Its state dir: a master is started in the background for most commands only where there is a state.
    pub state_dir: PathBuf,
    /// How to start a master when none answers; `None` = never.
    pub background: Option<BackgroundDaemon>,
    /// Someone looks and can answer: standard input and standard error are terminals.
    pub interactive: bool,
    /// Standard output is a terminal.
    pub stdout_terminal: bool,
    /// Standard error is a terminal on which a line can be redrawn.
    pub stderr_terminal: bool,
    /// Colours are wanted.
    pub colour: bool,
    /// How far the clock of printed times is from UTC.
    pub offset: UtcOffset,
}

impl CliEnv {
    /// With what the process's terminal and `NO_COLOR` say, and UTC.
    pub fn detect(
        socket: PathBuf,
        state_dir: PathBuf,
        background: Option<BackgroundDaemon>,
    ) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value.is_empty() || value == "dumb");
        let (stdin, stdout, stderr) = (
            io::stdin().is_terminal(),
            io::stdout().is_terminal(),
            io::stderr().is_terminal(),
        );
        Self {
            socket,
            state_dir,
            background,
            interactive: stdin && stderr && !dumb,
            stdout_terminal: stdout,
            stderr_terminal: stderr && !dumb,
            colour: stdout && stderr && !dumb && !no_colour,
            offset: UtcOffset::UTC,
        }
    }
}

/// What every command is given.
pub(crate) struct Ctx<'a> {
    env: &'a CliEnv,
    io: &'a mut Streams,
    json: bool,
    /// `--cluster`; empty when it is left to the master.
    cluster: String,
    /// `-v`.
    verbose: Option<Verbose>,
}

impl Ctx<'_> {
    /// Colours of what goes to a person.
    fn style(&self) -> Style {
        Style {
            colour: self.env.colour && !self.json,
        }
    }

    /// How output of other machines is shown.
    fn look(&self) -> Look {
        Look {
            style: self.style(),
            terminal: self.env.stdout_terminal && !self.json,
        }
    }

    /// Width of the terminal that shows results; `None` where there is none.
    fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let size = size.filter(|size| self.env.stdout_terminal && size.ws_col > 0);
        size.map(|size| usize::from(size.ws_col))
    }

    /// Prints a line of the result, without an empty line for an empty text.
    fn print(&mut self, text: &str) -> Result<(), Error> {
        if !text.is_empty() {
            writeln!(self.io.stdout, "{text}")?;
        }
        Ok(())
    }

    /// Says something that is no result.
    fn say(&mut self, text: &str) -> Result<(), Error> {
        self.io.stdout.flush()?;
        writeln!(self.io.stderr, "{text}")?;
        Ok(())
    }
}

/// The parser, with the commands in groups.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let template = help::template(&command);
    command.help_template(template)
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// The text to print and whether it is help (standard output, exit 0) or an error (standard error, exit 2), as clap has
/// it: `error.print()` and `error.exit_code()`.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words).map_err(|error| {
        if error.kind() != clap::error::ErrorKind::MissingSubcommand {
            return error;
        }
        let text = "no command given\n\n  aot-master launch cluster.yml   makes a cluster\n  aot-master status               \
                    shows what there is\n  aot-master --help               lists all commands\n";
        clap::Error::raw(clap::error::ErrorKind::MissingSubcommand, text)
    })?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Runs one command on the process's own streams and says what to exit with. Not for `serve`, `check`, `schema`,
/// `machine-run` and `machine-init`, which are `main`'s.
pub async fn run(cli: Cli, env: CliEnv) -> Exit {
    run_on(cli, &env, &mut Streams::of_process()).await
}

/// [`run`] on any streams.
pub async fn run_on(cli: Cli, env: &CliEnv, io: &mut Streams) -> Exit {
    let style = Style {
        colour: env.colour && !cli.global.json,
    };
    let verbose = (cli.global.verbose > 0).then(|| Verbose::new(Aside::of(io), style));
    let (verbose, shown) = verbose.unzip();
    let mut ctx = Ctx {
        env,
        json: cli.global.json,
        cluster: cli.global.cluster.unwrap_or_default(),
        io,
        verbose,
    };
    let ran = match shown {
        Some(shown) => shown.beside(dispatch(cli.command, &mut ctx)).await,
        None => dispatch(cli.command, &mut ctx).await,
    };
    let ran = ran.and_then(|exit| {
        ctx.io.flush()?;
        Ok(exit)
    });
    match ran {
        Ok(exit) => exit,
        Err(error) => {
            // When even the error can't be written, the exit code still says it.
            let _ = ctx.io.stdout.flush();
            if let Some(report) = error.report() {
                let _ = writeln!(ctx.io.stderr, "{report}");
            }
            error.exit()
        }
    }
}

async fn dispatch(command: Command, ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    match command {
        Command::Plan { file, prune } => launch::plan(ctx, &file, prune).await,
        Command::Launch(args) => launch::launch(ctx, &args).await,
        Command::Status => status::status(ctx).await,
        Command::List(args) => status::list(ctx, &args).await,
        Command::Dns(args) => status::dns(ctx, args).await,
        Command::Ip(args) => status::ip(ctx, args).await,
        Command::Update(args) => status::update(ctx, args).await,
        Command::Facts(args) => facts::facts(ctx, args).await,
        Command::Wait(args) => wait::wait(ctx, args).await,
        Command::Exec(args) => exec::exec(ctx, args).await,
        Command::Apply(args) => launch::apply(ctx, args).await,
        Command::Logs(args) => logs::logs(ctx, args).await,
        Command::Jobs(args) => jobs::run(ctx, args).await,
        Command::Cp(args) => cp::cp(ctx, args).await,
        Command::Shell(args) => shell::shell(ctx, args).await,
        Command::Inventory(args) => inventory::inventory(ctx, args).await,
        Command::SshConfig(args) => ssh_config::ssh_config(ctx, args).await,
        Command::Agents(args) => agents::run(ctx, args).await,
        Command::Start(args) => lifecycle::start(ctx, args).await,
        Command::Stop(args) => lifecycle::asked(ctx, "stop", args).await,
        Command::Reboot(args) => lifecycle::asked(ctx, "reboot", args).await,
        Command::Orphans(args) => orphans::orphans(ctx, args).await,
        Command::Terminate { target, yes } => lifecycle::terminate(ctx, target, yes).await,
        Command::Cleanup { name, yes } => lifecycle::cleanup(ctx, name, yes).await,
        Command::Shutdown => shutdown::shutdown(ctx).await,
        Command::Serve(_)
        | Command::Check { .. }
        | Command::Schema
        | Command::MachineRun { .. }
        | Command::MachineInit { .. } => Err(Error::usage(
            "this command does not ask a master",
            "it is run before the command line comes here",
        )),
    }
}
