//! `aot-master`: arguments to settings to whichever part answers the command. Decides nothing else. What the daemon's own
//! program does (`serve`, certificates, `fleet`, the processes of a clone) is handed on to it, so that a command that only asks
//! doesn't load it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod offline;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aot_cli::args::{Cli, Command};
use aot_cli::program::{BAD_USAGE, absolute, fail, message, print};
use aot_cli::view;
use aot_cli::{self as cli, BackgroundDaemon, CliEnv};
use aot_settings::Settings;

/// The daemon's program, which is installed beside this one.
const DAEMON: &str = "aot-masterd";

fn main() -> ExitCode {
    view::panics_are_harmless();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(cli::print_parsed(&error)),
    };
    match &cli.command {
        Command::MachineRun { .. }
        | Command::MachineInit { .. }
        | Command::Serve(_)
        | Command::Attestation(_)
        | Command::Fleet(_) => return become_daemon(),
        Command::Schema => return schema(),
        Command::Check { file } => return check(file, cli.global.json),
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

fn check(file: &Path, json: bool) -> ExitCode {
    match (offline::check(file), json) {
        (Ok(good), true) => print(&good.to_json().to_string(), true),
        (Ok(good), false) => {
            for notice in &good.parsed.notices {
                message(&format!("notice: {notice}"));
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

/// Goes on as the daemon's program, with the same arguments, process id and descriptors.
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
    let env = CliEnv::detect(socket, state_dir, Some(daemon)).built_as(build);
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
