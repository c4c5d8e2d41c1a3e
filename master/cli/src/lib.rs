//! The command line: asks the master over its unix socket and shows what it answers. Called by `main` for every command
//! but those that need no master; talks only operator.proto, never to the store or a provider.

#![warn(unreachable_pub)]

pub mod args;
pub mod completion;
pub mod init;
pub mod man;
pub mod program;
mod repeats;
pub mod view;

mod again;
mod agents;
mod api_calls;
mod background;
mod bundle_logs;
mod cluster_source;
mod confirm;
mod connect;
mod connect_for;
mod cp;
mod dial;
mod doctor;
mod error;
mod events;
mod exec;
mod facts;
mod follow_cluster;
mod follow_job;
mod forward;
mod help;
mod hosts;
mod interrupt;
mod inventory;
mod job_source;
mod jobs;
mod launch;
mod lifecycle;
mod logs;
mod masters;
mod orphans;
mod out_dir;
mod output_mode;
mod overview;
mod plan;
mod printing;
mod same_build;
mod secrets;
mod shell;
mod shown;
mod shutdown;
mod ssh_config;
mod stages;
mod star;
mod status;
mod usage;
pub mod variables;
mod version;
mod wait;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_proto::v1::LifecycleAction;
use clap::{CommandFactory, FromArgMatches};
use time::UtcOffset;

use crate::view::{StreamKind, Streams, Style, TerminalTraits, drawn_by_library};
use api_calls::Verbose;
use args::{Cli, Command};
use repeats::{Repeat, Repeats};

pub use background::BackgroundDaemon;
pub use doctor::ServePlan;
pub(crate) use error::Error;
pub use error::Exit;
pub use secrets::{OperatorSecret, ReadSecrets, SecretOrigin};

/// The file that is meant where none is named.
pub const CLUSTER_FILE: &str = "cluster.yml";

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
    /// Standard error is a terminal.
    pub stderr_terminal: bool,
    /// Lines of a terminal can be redrawn.
    pub redraws: bool,
    /// Colours are wanted where there is a terminal.
    pub colour: bool,
    /// They are wanted where there is none, too.
    pub colour_always: bool,
    /// How far the clock of printed times is from UTC.
    pub offset: UtcOffset,
    /// What this program is built from; empty = not known, and not compared with the master.
    pub build: String,
    /// For so long the next master is asked when one is gone.
    pub asks_again: Duration,
    /// All settings with their origins, as JSON; `None` = not known.
    pub settings: Option<String>,
    /// What a master that is started from here would go by; `None` = not known.
    pub serve: Option<ServePlan>,
    /// Says which secrets of a file are read here.
    pub secrets: ReadSecrets,
}

impl CliEnv {
    /// With what the process's terminal and `NO_COLOR` say, and UTC.
    pub fn detect(
        socket: PathBuf,
        state_dir: PathBuf,
        background: Option<BackgroundDaemon>,
    ) -> Self {
        let terminal = TerminalTraits::of_process();
        Self {
            socket,
            state_dir,
            background,
            interactive: terminal.stdin && terminal.stderr,
            stdout_terminal: terminal.stdout,
            stderr_terminal: terminal.stderr,
            redraws: terminal.redraws,
            colour: terminal.colour,
            colour_always: terminal.colour_always,
            offset: UtcOffset::UTC,
            build: String::new(),
            asks_again: again::WITHIN,
            settings: None,
            serve: None,
            secrets: |_, _, _| Vec::new(),
        }
    }

    /// For a program that knows the settings of a master.
    #[must_use]
    pub fn serving(self, plan: ServePlan) -> Self {
        let serve = Some(plan);
        Self { serve, ..self }
    }

    /// For a program that knows how files are read.
    #[must_use]
    pub fn reading_secrets(self, secrets: ReadSecrets) -> Self {
        Self { secrets, ..self }
    }

    /// For a program that knows what it is built from.
    #[must_use]
    pub fn built_as(self, build: String) -> Self {
        Self { build, ..self }
    }
}

/// What every command is given.
pub(crate) struct Ctx<'a> {
    env: &'a CliEnv,
    io: &'a mut Streams,
    json: bool,
    /// `--quiet`.
    quiet: bool,
    /// `--cluster`; `None` when it is left to the master.
    cluster: Option<String>,
    /// `-v`.
    verbose: Option<Verbose>,
    /// Ask the master first whether it is there: see [`connect::connect`].
    greets: bool,
    /// The master's build has been compared with ours.
    compared: bool,
    /// The master that was asked, and all others, take the ids of requests.
    keeps_requests: bool,
    /// The master that was asked was started by a command, and may be again.
    background: bool,
    /// Something was shown since a master last died: of a command that shows things again and again.
    has_shown: bool,
}

impl Ctx<'_> {
    /// Colours of what goes to a person.
    fn style(&self) -> Style {
        Style {
            colour: self.env.colour && !self.json,
        }
    }

    /// Someone sees lines that are redrawn on standard error.
    fn redraws(&self) -> bool {
        self.env.stderr_terminal && self.env.redraws && !self.json && !self.quiet
    }

    /// A running view can be drawn, and whoever sees it can answer.
    fn is_live(&self) -> bool {
        self.env.interactive && self.redraws()
    }

    /// Width of the terminal that shows results; `None` where there is none.
    fn columns(&self) -> Option<usize> {
        crate::view::columns().filter(|_| self.env.stdout_terminal)
    }

    /// Prints a line of the result, without an empty line for an empty text.
    fn print(&mut self, text: &str) -> Result<(), Error> {
        if !text.is_empty() {
            writeln!(self.io.stdout, "{text}")?;
        }
        Ok(())
    }

    /// Says what an answer of all masters lacks.
    fn warn_of_absent(&mut self, absent: &[String]) -> Result<(), Error> {
        for line in absent {
            self.message(&format!("warning: {line}"))?;
        }
        Ok(())
    }

    /// Says how it goes: nothing that anybody misses with `--quiet`.
    fn note(&mut self, text: &str) -> Result<(), Error> {
        match self.quiet {
            true => Ok(()),
            false => self.message(text),
        }
    }

    /// Prints something that is not a result.
    fn message(&mut self, text: &str) -> Result<(), Error> {
        self.io.stdout.flush()?;
        writeln!(self.io.stderr, "{text}")?;
        Ok(())
    }
}

/// The parser, with the commands in groups.
pub(crate) fn command() -> clap::Command {
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
    let words: Vec<OsString> = words.into_iter().collect();
    let mut command = command();
    let matches = command.try_get_matches_from_mut(&words).map_err(|error| {
        if error.kind() != clap::error::ErrorKind::MissingSubcommand {
            let is_file = |word: &str| Path::new(word).exists();
            return usage::made_true(error, &mut self::command(), &words, is_file);
        }
        let text = "no command given\n\n  aot-master launch cluster.yml   creates a cluster\n  aot-master status               \
                    shows what there is\n  aot-master --help               lists all commands\n";
        clap::Error::raw(clap::error::ErrorKind::MissingSubcommand, text)
    })?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// What [`parse`] says where the version is asked for: the program knows more of it.
pub const PRINTS_VERSION: clap::error::ErrorKind = clap::error::ErrorKind::DisplayVersion;

/// Prints what the parser has to say, help or an error, and says what to exit with.
pub fn print_parsed(error: &clap::Error) -> u8 {
    let text = error.render();
    // clap takes sequences out of its plain text, those of data too: nobody could tell them from its own.
    let quotes_any = std::env::args_os().any(|word| word.to_string_lossy().contains('\x1b'));
    let text = match quotes_any {
        true => text.to_string(),
        false => drawn_by_library(&text.to_string(), &text.ansi().to_string()),
    };
    let io = Streams::of_process();
    let mut out = match error.use_stderr() {
        true => io.stderr,
        false => io.stdout,
    };
    // Nowhere to say it: the exit code does.
    let _ = out.text(&text).and_then(|()| out.flush());
    u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code())
}

/// Runs one command on the process's own streams and says what to exit with. Not for `serve`, `check`, `schema`,
/// `machine-run` and `machine-init`, which are `main`'s.
pub async fn run(cli: Cli, env: CliEnv) -> Exit {
    run_on(cli, &env, &mut Streams::of_process()).await
}

/// [`run`] on any streams.
pub(crate) async fn run_on(cli: Cli, env: &CliEnv, io: &mut Streams) -> Exit {
    let style = Style {
        colour: env.colour && !cli.global.json,
    };
    let kind = |is_terminal| StreamKind::on(is_terminal || env.colour_always, env.colour);
    io.stdout.set_seen(StreamKind {
        json: cli.global.json,
        ..kind(env.stdout_terminal)
    });
    io.stderr.set_seen(kind(env.stderr_terminal));
    let verbose = cli.global.verbose > 0;
    let verbose = verbose.then(|| Verbose::new(io.stderr.clone(), style));
    let (verbose, shown) = verbose.unzip();
    let mut ctx = Ctx {
        env,
        json: cli.global.json,
        quiet: cli.global.quiet,
        cluster: cli.global.cluster,
        io,
        verbose,
        greets: true,
        compared: false,
        keeps_requests: false,
        background: false,
        has_shown: false,
    };
    let ran = match shown {
        Some(shown) => shown.beside(answered(cli.command, &mut ctx)).await,
        None => answered(cli.command, &mut ctx).await,
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
            if let Some(report) = error.report(style) {
                let _ = writeln!(ctx.io.stderr, "{report}");
            }
            error.exit()
        }
    }
}

/// Runs a command; when its master died before it answered, or that of its cluster, asks the next one where that can do no harm.
async fn answered(command: Command, ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let is_repeatable = command.may_be_repeated();
    ctx.greets = !is_repeatable || command.follows();
    let mut repeats = Repeats::new(ctx.env.asks_again);
    loop {
        let ran = dispatch(command.clone(), ctx).await;
        if std::mem::take(&mut ctx.has_shown) {
            repeats.came();
        }
        let now = tokio::time::Instant::now();
        let again = ran.as_ref().err().filter(|_| is_repeatable);
        match again.and_then(|error| repeats.after(error, now)) {
            None => return ran,
            Some(Repeat::AtOnce) => ctx.greets = true,
            Some(Repeat::AfterPause { first }) => {
                if first {
                    ctx.message(again::LOST)?;
                }
                tokio::time::sleep(repeats::PAUSE).await;
            }
        }
    }
}

async fn dispatch(command: Command, ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    match command {
        Command::Plan(args) => plan::plan(ctx, &args).await,
        Command::Launch(args) => launch::launch(ctx, &args).await,
        Command::Status(args) => overview::status(ctx, args).await,
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
        Command::Events(args) => events::events(ctx, &args).await,
        Command::Cp(args) => cp::cp(ctx, args).await,
        Command::Shell(args) => shell::shell(ctx, args).await,
        Command::Forward(args) => forward::forward(ctx, args).await,
        Command::Connect(args) => forward::connect(ctx, args).await,
        Command::Inventory(args) => inventory::inventory(ctx, args).await,
        Command::SshConfig(args) => ssh_config::ssh_config(ctx, args).await,
        Command::Agents(args) => agents::run(ctx, args).await,
        Command::Start(args) => lifecycle::start(ctx, args).await,
        Command::Stop(args) => lifecycle::asked(ctx, LifecycleAction::Stop, args).await,
        Command::Reboot(args) => lifecycle::asked(ctx, LifecycleAction::Reboot, args).await,
        Command::Orphans(args) => orphans::orphans(ctx, args).await,
        Command::Terminate { target, yes } => lifecycle::terminate(ctx, target, yes).await,
        Command::Cleanup { name, yes } => lifecycle::cleanup(ctx, name, yes).await,
        Command::Masters { command } => masters::masters(ctx, command).await,
        Command::Shutdown => shutdown::shutdown(ctx).await,
        Command::Restart(listen) => shutdown::restart(ctx, &listen).await,
        Command::Version => version::version(ctx).await,
        Command::Doctor => doctor::doctor(ctx).await,
        Command::BundleLogs { file } => bundle_logs::bundle_logs(ctx, file).await,
        Command::Serve(_)
        | Command::Check(_)
        | Command::Attestation(_)
        | Command::Fleet(_)
        | Command::Schema
        | Command::Init { .. }
        | Command::Config
        | Command::Completion { .. }
        | Command::Man { .. }
        | Command::MachineRun { .. }
        | Command::MachineInit { .. } => Err(Error::usage(
            "this command does not ask a master",
            "it is run before the command line comes here",
        )),
    }
}
