//! `aot-masterd`: the master as a process of its own, what it keeps (AWS's certificates), a fleet's setup, and the processes of a clone.
//! Started by `aot-master`, with the arguments that were given to that; nobody types it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod fleet;
mod logging;
mod seal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use aot_cli::args::{AttestationCommand, Command};
use aot_cli::program::{BAD_USAGE, absolute, fail, message, print};
use aot_cli::view::{self, LogLines};
use aot_cli::{self as cli};
use aot_daemon::enrol::attest::certificates::Certificates;
use aot_daemon::{Error, Opened, Providers, ServeOptions, Stop};
use aot_ec2::Ec2Provider;
use aot_host::chain::Chain;
use aot_host::{core_dumps, descriptors};
use aot_local::{LocalProvider, machine_init, machine_run};
use aot_postgres::Postgres;
use aot_s3::S3;
use aot_settings::{self as settings, BlobSetting, Settings};
use aot_store::Backend;
use aot_store::blobs::{BlobFolder, BlobPlace};
use aot_store::room::KEEP_FREE;
use aot_store::sqlite::Sqlite;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use logging::Turning;
use seal::fleet_seal;

fn main() -> ExitCode {
    view::panics_are_harmless();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(cli::print_parsed(&error)),
    };
    match &cli.command {
        Command::MachineRun { dir } => return clone(dir),
        Command::MachineInit { dir } => return machine_init(dir),
        _ => {}
    }
    // Keys and secrets are in memory from here on.
    if let Err(error) = core_dumps::forbid() {
        message(&format!(
            "aot-masterd: cannot lower the limit on core dumps: {error}"
        ));
    }
    let settings = match settings::of_command_line(&cli) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    match &cli.command {
        Command::Serve(args) => run_daemon(&settings, args.background, cli.global.verbose),
        Command::Attestation(AttestationCommand::Import { files, region }) => {
            import(&settings, files, region.as_deref(), cli.global.json)
        }
        Command::Fleet(command) => {
            let blobs = settings.blobs.as_ref().map(blob_place);
            fleet::run(command, &settings, blobs, cli.global.json)
        }
        _ => {
            message("error: commands are for aot-master, which starts this program itself");
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// A clone is a machine of its own: its limits are not the master's.
fn clone(dir: &Path) -> ExitCode {
    if let Err(error) = descriptors::give_back() {
        message(&format!(
            "aot-masterd: cannot lower the limit on open files: {error}"
        ));
    }
    if let Err(error) = core_dumps::give_back() {
        message(&format!(
            "aot-masterd: cannot restore the limit on core dumps: {error}"
        ));
    }
    machine_run(dir)
}

/// `local` with its clones in the state folder, and EC2 by the AWS SDK.
fn providers(state_dir: &Path) -> Providers {
    Providers::new(
        Arc::new(LocalProvider::new(state_dir.join("local"))),
        Box::new(|region, calls| Arc::new(Ec2Provider::new(region, calls))),
    )
}

/// A file in the state folder, unless the settings name a database.
fn store(settings: &Settings) -> Result<Arc<dyn Backend>, aot_postgres::Error> {
    let store: Arc<dyn Backend> = match &settings.store {
        Some(url) => {
            let shares_keys = settings.fleet_key.is_some();
            Arc::new(Postgres::new(&url.0)?.sharing_keys(shares_keys))
        }
        None => Arc::new(Sqlite),
    };
    Ok(store)
}

/// A bucket, or a folder that masters share.
fn blob_place(setting: &BlobSetting) -> Arc<dyn BlobPlace> {
    match setting {
        BlobSetting::S3 { bucket, prefix } => Arc::new(S3::new(bucket, prefix)),
        BlobSetting::Folder(dir) => Arc::new(BlobFolder::new(dir)),
    }
}

fn certificates(settings: &Settings) -> Certificates {
    let folders = settings.certificates.iter().map(|folder| absolute(folder));
    Certificates::new(folders.collect())
}

/// Puts certificates where the master looks for them: it need not run, and counts them from its next question on.
fn import(settings: &Settings, files: &[PathBuf], region: Option<&str>, json: bool) -> ExitCode {
    let certificates = certificates(settings);
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match certificates.import(file, region) {
            Ok((region, path)) => {
                let path = path.display().to_string();
                let line = match json {
                    true => serde_json::json!({"region": region, "path": path}).to_string(),
                    false => format!("{region}  {path}"),
                };
                // What can't be printed was imported all the same; the exit code says it.
                if print(&line, json) != ExitCode::SUCCESS {
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => code = fail(&error, 1),
        }
    }
    code
}

fn run_daemon(settings: &Settings, background: bool, verbose: u8) -> ExitCode {
    // First of all: a Ctrl-C in the terminal of the command that started us is not meant for us.
    if background && let Err(error) = rustix::process::setsid() {
        message(&format!(
            "aot-masterd: still in the session that started it: setsid: {error}"
        ));
    }
    let log = background.then(|| absolute(&settings.state_dir).join("master.log"));
    log_to_stderr(
        settings,
        verbose,
        log.and_then(|path| Turning::of_stderr(&path)),
    );
    match descriptors::raise() {
        Ok(files) => tracing::debug!(files, "limit on open files"),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot raise the limit on open files");
        }
    }
    let beside = || {
        std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.to_owned()))
    };
    let store = match store(settings) {
        Ok(store) => store,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    let fleet_key = settings.fleet_key.as_ref().map(fleet_seal).transpose();
    let fleet_key = match fleet_key {
        Ok(key) => key,
        Err(error) => return fail(&error, BAD_USAGE),
    };
    let options = ServeOptions {
        fleet_key,
        build: cli::program::build(env!("BUILD_COMMIT")),
        providers: Arc::new(providers(&absolute(&settings.state_dir))),
        listen: settings.listen.clone(),
        peer_listen: settings.peer_listen.clone(),
        peer_advertise: settings.peer_advertise.clone(),
        advertise: settings.advertise.clone(),
        state_dir: absolute(&settings.state_dir),
        store,
        blobs: settings.blobs.as_ref().map(blob_place),
        socket: absolute(&settings.socket),
        agent_dir: settings
            .agent_dir
            .clone()
            .or_else(beside)
            .unwrap_or_else(|| PathBuf::from(".")),
        background,
        supervised: is_a_service(),
        settings: (
            absolute(&settings.state_dir).join(settings::LAST_START),
            settings.for_next_start(),
        ),
        retention: settings.keep,
        keep_free: settings.keep_free.unwrap_or(KEEP_FREE),
        certificates: certificates(settings),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let result = runtime.block_on(live(options));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// The life of a master: its state folder, its addresses, its tasks, and their end.
async fn live(options: ServeOptions) -> Result<(), Error> {
    let stop = Stop::on_signal(&options)?;
    let opened = Opened::open(options).await?;
    let bound = opened.bind().await?;
    match bound.run(stop).await {
        Err(Error::Interrupted) => Ok(()), // as asked
        running => running?.ended().await,
    }
}

/// Whether a service manager started this very process (systemd.exec(5), environment variables). Shells of a desktop carry
/// on what their terminal, a service itself, was given; before systemd 248 its children are told apart by their parent.
fn is_a_service() -> bool {
    match std::env::var_os("SYSTEMD_EXEC_PID") {
        Some(pid) => pid == *std::process::id().to_string(),
        None => {
            std::env::var_os("INVOCATION_ID").is_some()
                && rustix::process::getppid() == Some(rustix::process::Pid::INIT)
        }
    }
}

fn log_to_stderr(settings: &Settings, verbose: u8, turning: Option<Turning>) {
    let default = logging::filter(verbose);
    let filter = settings.log.as_deref().unwrap_or(default);
    // A bad one was refused with the other settings.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(default));
    let format = settings.log_format;
    match turning {
        Some(turning) => logging::log(filter, format, LogLines(turning)).init(),
        None => logging::log(filter, format, view::log_on_stderr()).init(),
    }
}
