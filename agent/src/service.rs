//! The agent's start: sort out what was left, make what its sessions share, then `live`. Called by main.

mod live;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::files::shut_dir;
use aot_host::{core_dumps, descriptors};
use tokio::select;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aws::SecretFetcher;
use crate::boot_id::boot_id;
use crate::config::{Config, Platform};
use crate::file_builtins::FileReads;
use crate::identity::{Vault, enrol};
use crate::link::Link;
use crate::masters::epoch::HighestEpoch;
use crate::masters::{DialOrder, kept};
use crate::runner::Runner;
use crate::runner::copy_progress::Fetched;
use crate::runner::prepare::Starter;
use crate::runner::shim_pool::Shims;
use crate::secrets::SecretFolders;
use crate::session::Agent;
use crate::shell::{Context, Shells};
use crate::tunnel::Tunnels;
use crate::{ignored_signals, origin, stop, tls};
use live::live;

/// How long background work may continue after the end.
const DRAIN: Duration = Duration::from_secs(2);

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Serve until asked to stop.
    Serve,
    /// Enrol, say as whom, end.
    EnrolCheck,
}

/// An agent that can't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The state folder, its content, or the runtime.
    #[error("cannot start")]
    Io(#[from] std::io::Error),
    #[error("cannot use the settings")]
    Tls(#[from] tls::Error),
    /// What is on the disk.
    #[error("cannot start as this machine")]
    Origin(#[from] origin::Error),
}

/// Runs the agent in a runtime of its own. Exit status 0 after a stop that was asked for, 1 when it can't start.
pub fn main(config: Config, mode: Mode) -> ExitCode {
    if let Err(error) = core_dumps::forbid() {
        tracing::warn!(error = %Chain(&error), "cannot lower the limit on core dumps: after a crash, keys and secrets may be on the disk");
    }
    if mode == Mode::Serve
        && let Err(error) = descriptors::raise()
    {
        tracing::warn!(error = %Chain(&error), "cannot raise the limit on open files");
    }
    if let Err(error) = ignored_signals::end_inheritance() {
        tracing::warn!(error = %Chain(&error), "what is started may ignore signals, as this process does");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(serve(config, mode));
    runtime.shutdown_timeout(DRAIN);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("error: {}", Chain(error));
    ExitCode::FAILURE
}

/// The agent's life.
///
/// # Errors
/// When it can't start at all; whatever goes wrong later is tried again.
pub(crate) async fn serve(config: Config, mode: Mode) -> Result<(), Error> {
    let (token, tracker) = (CancellationToken::new(), TaskTracker::new());
    tracker.spawn(stop::on_signals(token.clone())?);
    shut_dir(&config.state_dir)?;
    let config = select! {
        config = origin::own_settings(config) => config,
        () = token.cancelled() => return Ok(()),
    };
    shut_dir(&config.state_dir)?;
    let roots = tls::roots(&config.ca_pem)?;
    let vault = Vault::new(&config.state_dir);
    if let Some(former) = origin::claim(&config, &vault)? {
        tracing::warn!(
            former,
            machine = config.machine_id,
            "the state came from another machine, by way of an image: it was set aside"
        );
    }
    let order = DialOrder::new(
        config.machine_id.as_deref().unwrap_or_default(),
        config.master.clone(),
        kept::load(&config.state_dir),
    );
    let link = Link::new(order, roots, config.route.clone());
    if mode == Mode::EnrolCheck {
        select! {
            identity = enrol::obtain(&config, &vault, &link) => println!("{}", identity.name),
            () = token.cancelled() => {}
        }
        return Ok(());
    }
    aot_host::share::raise();
    let (identity, seen) = watch::channel(None);
    let imds = (config.provider == Platform::Ec2).then(|| config.imds.clone());
    let starter = Starter {
        state_dir: config.state_dir.clone(),
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
        boot_id: boot_id(config.boot_id_file.as_deref()),
        link: link.clone(),
        identity: seen,
        bulk: Arc::default(),
        fetched: Fetched::default(),
        shims: Shims::default(),
        secrets: SecretFolders::new(config.secrets_dir.clone()),
        aws: SecretFetcher::new(imds, config.aws.clone()),
    };
    let shells = Shells::new(Context {
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
        link: link.clone(),
        identity: starter.identity.clone(),
    });
    let tunnels = Tunnels::new(config.forward, link.clone(), starter.identity.clone());
    let runner = Runner::open(starter)?;
    tracing::info!(
        version = crate::VERSION,
        running = runner.running(),
        "agent started"
    );
    let started_unix_ms = aot_host::clock::unix_ms();
    let mut agent = Agent {
        epoch: HighestEpoch::load(&config.state_dir),
        config,
        link,
        vault,
        identity,
        runner,
        shells,
        tunnels,
        tracker,
        volumes: Arc::default(),
        cluster_facts: Arc::default(),
        reads: FileReads::default(),
        started_unix_ms,
        process_id: process_id(),
    };
    live(&mut agent, &token).await;
    tokio::join!(agent.shells.close(), agent.tunnels.close());
    agent.tracker.close();
    Ok(())
}

/// 128 random bits in hex; empty when there are none, which distinguishes this process from no other.
fn process_id() -> String {
    let mut bits = [0; 16];
    match aws_lc_rs::rand::fill(&mut bits) {
        Ok(()) => format!("{:032x}", u128::from_be_bytes(bits)),
        Err(_) => String::new(),
    }
}
