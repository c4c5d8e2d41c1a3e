//! `aot-master`: arguments to settings to whichever part answers the command. Decides nothing else. What the daemon's own
//! program does (`serve`, certificates, `fleet`, the processes of a clone) is handed on to it, so that a command that only asks
//! doesn't load it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod offline;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aot_cli::args::{CheckArgs, Cli, Command};
use aot_cli::init::InitError;
use aot_cli::program::{BAD_USAGE, absolute, fail, message, print};
use aot_cli::view;
use aot_cli::{self as cli, BackgroundDaemon, CliEnv, ServePlan};
use aot_settings::Settings;

/// The daemon's program, which is installed beside this one.
const DAEMON: &str = "aot-masterd";

fn main() -> ExitCode {
    view::panics_are_harmless();
    if cli::completion::answered(std::env::args_os(), asked_by_a_shell) {
        return ExitCode::SUCCESS;
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) if error.kind() == cli::PRINTS_VERSION => return print(&version(), false),
        Err(error) => return ExitCode::from(cli::print_parsed(&error)),
    };
    view::choose_colour(cli.global.color);
    match &cli.command {
        Command::MachineRun { .. }
        | Command::MachineInit { .. }
        | Command::Serve(_)
        | Command::Attestation(_)
        | Command::Fleet(_) => return become_daemon(),
        Command::Schema => return schema(),
        Command::Check(args) => return check(args, cli.global.json),
        Command::Init { dir } => return init(dir.as_deref()),
        Command::Completion { shell } => {
            return match cli::completion::script(*shell) {
                Ok(script) => print(script.trim_end(), false),
                Err(error) => fail(&error, 1),
            };
        }
        Command::Man { dir } => {
            return match cli::man::write(dir) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, 1),
            };
        }
        Command::Config => {
            return match offline::config(&cli) {
                Ok(text) => print(&text, cli.global.json),
                Err(error) => fail(&error, BAD_USAGE),
            };
        }
        _ => {}
    }
    match aot_settings::of_command_line(&cli) {
        Ok(settings) => run_command(cli, &settings),
        Err(error) => fail(&error, BAD_USAGE),
    }
}

fn schema() -> ExitCode {
    print(&offline::schema(), true)
}

/// With the commit.
fn version() -> String {
    format!("aot-master {}", cli::program::build(env!("BUILD_COMMIT")))
}

/// Where the master is that an unfinished command line means, and which cluster.
fn asked_by_a_shell(words: Vec<OsString>) -> Option<(CliEnv, Option<String>)> {
    let cli = cli::parse(words).ok()?;
    let settings = aot_settings::of_command_line(&cli).ok()?;
    let (state_dir, socket) = (absolute(&settings.state_dir), absolute(&settings.socket));
    Some((CliEnv::detect(socket, state_dir, None), settings.cluster))
}

fn init(dir: Option<&Path>) -> ExitCode {
    let dir = dir.unwrap_or(Path::new("."));
    match cli::init::init(dir) {
        Ok(files) => {
            let written = files.map(|file| format!("wrote {}", file.display()));
            let there = match dir == Path::new(".") {
                true => String::new(),
                false => format!("cd {} && ", dir.display()),
            };
            message(&format!("next: {there}aot-master launch"));
            print(&written.join("\n"), false)
        }
        Err(error @ InitError::IsThere(_)) => fail(&error, BAD_USAGE),
        Err(error) => fail(&error, 1),
    }
}

fn check(args: &CheckArgs, json: bool) -> ExitCode {
    match (offline::check(&args.file, &args.variables), json) {
        (Ok(good), true) if args.expanded => {
            print(&good.parsed.expanded.to_json().to_string(), true)
        }
        (Ok(good), true) => print(&good.to_json().to_string(), true),
        (Ok(good), false) => {
            for notice in good.notices() {
                message(&format!("notice: {notice}"));
            }
            if args.expanded {
                return match good.parsed.expanded.to_yaml() {
                    Ok(text) => print(text.trim_end_matches('\n'), false),
                    Err(error) => fail(&error, 1),
                };
            }
            print(&good.summary(), false)
        }
        (Err(error), true) => {
            print(&error.to_json().to_string(), true);
            ExitCode::from(BAD_USAGE)
        }
        (Err(error), false) => {
            let text = view::drawn_by_library(&error.render(false), &error.render(true));
            message(text.trim_end_matches('\n'));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// Where the daemon's program lies: beside this one, whatever link that was started by.
fn daemon() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(DAEMON)
}

/// Continues as the daemon's program, with the same arguments, process id and descriptors.
fn become_daemon() -> ExitCode {
    let program = daemon();
    let error = std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .exec();
    message(&format!(
        "error: cannot run {}: {error}: it is installed beside aot-master",
        program.display()
    ));
    ExitCode::FAILURE
}

fn run_command(mut cli: Cli, settings: &Settings) -> ExitCode {
    cli.global.cluster = cli.global.cluster.or_else(|| settings.cluster.clone());
    let (state_dir, socket) = (absolute(&settings.state_dir), absolute(&settings.socket));
    let daemon = BackgroundDaemon::new(
        daemon(),
        &state_dir,
        &socket,
        cli.global.config.as_deref().map(absolute).as_deref(),
    );
    let build = cli::program::build(env!("BUILD_COMMIT"));
    let plan = ServePlan {
        listen: settings.listen.clone(),
        agent_dir: settings.agent_dir.clone(),
    };
    let env = CliEnv::detect(socket, state_dir, Some(daemon));
    let mut env = env
        .built_as(build)
        .serving(plan)
        .reading_secrets(offline::secrets);
    if matches!(cli.command, Command::BundleLogs { .. }) {
        env.settings = offline::config_lines(&cli).ok(); // they were read just now
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(cli::run(cli, env));
            runtime.shutdown_background();
            exit.into()
        }
        Err(error) => fail(&error, 1),
    }
}
