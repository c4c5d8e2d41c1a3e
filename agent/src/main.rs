//! Arguments to settings to runtime to service. Decides nothing itself.

use std::path::PathBuf;
use std::process::ExitCode;

use aot_agent::{Config, DEFAULT_PATH, Mode, programs};
use aot_host::log::{self, LogFormat};
use aot_host::{core_dumps, descriptors, environment};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The agent of aot: dials the master, runs stages and commands.
#[derive(Parser)]
#[command(name = "aot-agent", version)]
struct Args {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Subcommand)]
enum AgentCommand {
    /// Serve the master that the settings name, until asked to stop
    Run {
        /// Settings
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Own the processes of runs (started by the agent itself, which sends commands on standard input)
    #[command(hide = true)]
    Shim,
    /// Give up root, then run a command (started by the shim itself)
    #[command(hide = true)]
    Become {
        /// User id
        uid: u32,
        /// Group id
        gid: u32,
        /// All group ids, comma-separated
        groups: String,
        /// Program and arguments
        #[arg(last = true, required = true)]
        argv: Vec<std::ffi::OsString>,
    },
    /// Pack files of a copy to standard output (started by the shim itself)
    #[command(hide = true)]
    Pack {
        /// What to pack
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Unpack files of a copy, and remove the archive (started by the shim itself)
    #[command(hide = true)]
    Unpack {
        /// The path is a folder, made when it is missing
        #[arg(long)]
        into: bool,
        /// A name that may stand at the archive's top; without any, all may
        #[arg(long)]
        only: Vec<std::ffi::OsString>,
        /// What was fetched
        archive: PathBuf,
        /// Where it goes
        path: PathBuf,
    },
    /// Own what runs in one terminal (started by the agent itself)
    #[command(hide = true)]
    Terminal {
        /// What to run, JSON
        login: String,
    },
    /// Own the terminal on standard input, then run a command (started by `terminal` itself)
    #[command(hide = true)]
    PtyExec {
        /// What to run, JSON
        login: String,
    },
    /// Read the settings, enrol when there is no certificate yet, and say as whom
    EnrolCheck {
        /// Settings
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    // Whoever started us may have blocked signals for itself; what we run must not inherit that (sigprocmask(2)).
    if let Err(error) = nix::sys::signal::SigSet::all().thread_unblock() {
        eprintln!("aot-agent: cannot unblock signals: {error}");
    }
    // What a shim or a terminal runs is not ours: it has the limits that there were.
    if let Err(error) = descriptors::give_back() {
        eprintln!("aot-agent: cannot lower the limit on open files: {error}");
    }
    if is_shim() {
        return programs::shim();
    }
    let args = Args::parse();
    // A shim holds secrets, and gives it back to what it starts alone.
    if matches!(args.command, AgentCommand::Terminal { .. })
        && let Err(error) = core_dumps::give_back()
    {
        eprintln!("aot-agent: cannot restore the limit on core dumps: {error}");
    }
    if matches!(
        args.command,
        AgentCommand::Run { .. } | AgentCommand::EnrolCheck { .. }
    ) && let Err(error) = log_to_stderr()
    {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    match args.command {
        AgentCommand::Run { config } => {
            with_settings(&config, |config| aot_agent::serve(config, Mode::Serve))
        }
        AgentCommand::EnrolCheck { config } => {
            with_settings(&config, |config| aot_agent::serve(config, Mode::EnrolCheck))
        }
        AgentCommand::Shim => programs::shim(),
        AgentCommand::Become {
            uid,
            gid,
            groups,
            argv,
        } => programs::become_and_exec(uid, gid, &groups, &argv),
        AgentCommand::Pack { paths } => programs::pack(&paths),
        AgentCommand::Unpack {
            into,
            only,
            archive,
            path,
        } => programs::unpack(&archive, &path, into, only),
        AgentCommand::Terminal { login } => programs::terminal(&login),
        AgentCommand::PtyExec { login } => programs::pty_exec(&login),
        AgentCommand::Version => {
            println!("aot-agent {}", aot_agent::VERSION);
            ExitCode::SUCCESS
        }
    }
}

/// Logs as `AOT_LOG` and `AOT_LOG_FORMAT` say. The journal has the time, so text goes without.
fn log_to_stderr() -> Result<(), String> {
    let env = |name| {
        let text = environment::text(name).map_err(|error| error.to_string());
        text.map(Option::unwrap_or_default)
    };
    let (filter, format) = log_settings(&env("AOT_LOG")?, &env("AOT_LOG_FORMAT")?)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match format {
        LogFormat::Text => log.without_time().init(),
        LogFormat::Json => log.json().with_span_list(false).init(),
    }
    Ok(())
}

/// What both are set to; empty counts as not set.
fn log_settings(filter: &str, format: &str) -> Result<(EnvFilter, LogFormat), String> {
    let bad = |name: &str, value: &str, why: &str| format!("{name} is {value:?}: {why}");
    let filter = if filter.is_empty() { "info" } else { filter };
    if let Some(part) = log::without_level(filter) {
        return Err(bad("AOT_LOG", part, log::LEVEL_EXPECTED));
    }
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed.map_err(|error| bad("AOT_LOG", filter, &error.to_string()))?;
    let name = if format.is_empty() { "text" } else { format };
    let format = LogFormat::from_name(name);
    let format = format.ok_or_else(|| bad("AOT_LOG_FORMAT", name, LogFormat::EXPECTED))?;
    Ok((parsed, format))
}

/// Whether this is `aot-agent shim`. It is started for many a run, so no parser is built for it.
fn is_shim() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == "shim") && words.next().is_none()
}

/// Reads the settings and hands them on; bad settings are exit status 2.
fn with_settings(path: &std::path::Path, go: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::read(path) {
        Ok(config) => go(config),
        Err(error) => {
            eprintln!("error: {}", aot_host::chain::Chain(&error));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_as_it_is_asked_for_is_refused() {
        let format = |filter, format| log_settings(filter, format).map(|(_, format)| format);
        assert_eq!(format("", ""), Ok(LogFormat::Text));
        assert_eq!(format("warn,aot_agent=debug", "json"), Ok(LogFormat::Json));
        for (filter, name, wanted) in [
            ("infoo", "", "AOT_LOG is \"infoo\": expected a level"),
            (
                "",
                "xml",
                "AOT_LOG_FORMAT is \"xml\": expected text or json",
            ),
        ] {
            let error = format(filter, name).expect_err(wanted);
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
