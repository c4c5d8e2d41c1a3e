//! `aot-master`: arguments to settings to whichever part answers the command. Decides nothing else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aot_master::cli::args::{Cli, Command, ListenArgs};
use aot_master::cli::{self, BackgroundDaemon, CliEnv};
use aot_master::config::master::{self as settings, OneOrMany, Partial, Settings};
use aot_master::offline;
use aot_master::server::serve::{ServeOptions, serve};
use tracing_subscriber::EnvFilter;

/// Bad usage, bad settings, bad file.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match &cli.command {
        Command::MachineRun { dir } => return aot_master::provider::local::machine_run(dir),
        Command::MachineInit { dir } => return aot_master::provider::local::machine_init(dir),
        Command::Schema => return schema(),
        Command::Check { file } => return check(file, cli.global.json),
        _ => {}
    }
    let settings = match load(&cli) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    match &cli.command {
        Command::Serve(args) => run_daemon(&settings, args.background, cli.global.verbose),
        _ => run_command(cli, &settings),
    }
}

/// Prints an error with all that it came from.
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    eprintln!("{text}");
    ExitCode::from(code)
}

fn schema() -> ExitCode {
    println!("{}", offline::schema());
    ExitCode::SUCCESS
}

fn check(file: &Path, json: bool) -> ExitCode {
    match (offline::check(file), json) {
        (Ok(good), true) => {
            println!("{}", good.to_json());
            ExitCode::SUCCESS
        }
        (Ok(good), false) => {
            for notice in &good.parsed.notices {
                eprintln!("notice: {notice}");
            }
            println!("{}", good.summary());
            ExitCode::SUCCESS
        }
        (Err(error), true) => {
            println!("{}", error.to_json());
            ExitCode::from(BAD_USAGE)
        }
        (Err(error), false) => {
            let colour = CliEnv::detect(PathBuf::new(), PathBuf::new(), None).colour;
            eprint!("{}", error.render(colour));
            ExitCode::from(BAD_USAGE)
        }
    }
}

fn listen_args(command: &Command) -> ListenArgs {
    match command {
        Command::Serve(args) => args.listen.clone(),
        Command::Launch(args) => args.listen.clone(),
        _ => ListenArgs::default(),
    }
}

fn load(cli: &Cli) -> Result<Settings, settings::SettingsError> {
    let listen = listen_args(&cli.command);
    let flags = Partial {
        listen: listen.listen,
        advertise: (!listen.advertise.is_empty()).then_some(OneOrMany::Many(listen.advertise)),
        state_dir: cli.global.state_dir.clone(),
        socket: cli.global.socket.clone(),
        agent_dir: listen.agent_dir,
        keep_jobs: listen.keep_jobs,
        keep_output: listen.keep_output,
        log: None,
        cluster: cli.global.cluster.clone(),
    };
    let uid = rustix::process::geteuid().as_raw();
    settings::load(
        &flags,
        cli.global.config.as_deref(),
        &|name| std::env::var(name).ok(),
        uid,
    )
}

fn run_command(mut cli: Cli, settings: &Settings) -> ExitCode {
    cli.global.cluster = cli.global.cluster.or_else(|| settings.cluster.clone());
    let (state_dir, socket) = (absolute(&settings.state_dir), absolute(&settings.socket));
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let daemon = BackgroundDaemon::new(
        program,
        &state_dir,
        &socket,
        cli.global.config.as_deref().map(absolute).as_deref(),
    );
    let env = CliEnv::detect(socket, state_dir, Some(daemon));
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

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn run_daemon(settings: &Settings, background: bool, verbose: u8) -> ExitCode {
    // First of all: a Ctrl-C in the terminal of the command that started us is not meant for us.
    if background && let Err(error) = rustix::process::setsid() {
        eprintln!("aot-master: still in the session that started it: setsid: {error}");
    }
    log_to_stderr(settings.log.as_deref(), verbose);
    let beside = || {
        std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.to_owned()))
    };
    let options = ServeOptions {
        listen: settings.listen.clone(),
        advertise: settings.advertise.clone(),
        state_dir: absolute(&settings.state_dir),
        socket: absolute(&settings.socket),
        agent_dir: settings
            .agent_dir
            .clone()
            .or_else(beside)
            .unwrap_or_else(|| PathBuf::from(".")),
        background,
        keep: settings.keep,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let result = runtime.block_on(serve(options));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn log_to_stderr(filter: Option<&str>, verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "info,aot_master=debug",
        _ => "debug",
    };
    let filter =
        EnvFilter::try_new(filter.unwrap_or(default)).unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
