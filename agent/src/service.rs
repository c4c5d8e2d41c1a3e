//! The agent's life: sort out what was left, get an identity, hold a session, come back when it breaks. Called by main.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::descriptors;
use aot_host::files::shut_dir;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, unit};
use crate::boot_id::boot_id;
use crate::config::Config;
use crate::file_builtins::FileReads;
use crate::identity::{ClientIdentity, Vault, enrol};
use crate::link::{self, Link};
use crate::masters::{DialOrder, kept};
use crate::runner::Runner;
use crate::runner::copy_progress::Fetched;
use crate::runner::prepare::Starter;
use crate::runner::shim_pool::Shims;
use crate::session::protocol::Closed;
use crate::session::{Agent, paths};
use crate::shell::{Context, Shells};
use crate::{cluster_facts, origin, power, reconnect, stop, tls};

/// How long a reboot may take to take this process away before the master is dialled again.
const REBOOT_WAIT: Duration = Duration::from_secs(120);
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
    if mode == Mode::Serve
        && let Err(error) = descriptors::raise()
    {
        tracing::warn!(error = %Chain(&error), "cannot raise the limit on open files");
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
    let link = Link::new(order, roots);
    if mode == Mode::EnrolCheck {
        select! {
            identity = enrol::obtain(&config, &vault, &link) => println!("{}", identity.name),
            () = token.cancelled() => {}
        }
        return Ok(());
    }
    aot_host::share::raise();
    let (identity, seen) = watch::channel(None);
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
    };
    let shells = Shells::new(Context {
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
        link: link.clone(),
        identity: starter.identity.clone(),
    });
    let runner = Runner::open(starter)?;
    tracing::info!(
        version = crate::VERSION,
        running = runner.running(),
        "agent started"
    );
    let started_unix_ms = aot_host::clock::unix_ms();
    let mut agent = Agent {
        config,
        link,
        vault,
        identity,
        runner,
        shells,
        tracker,
        volumes: Arc::default(),
        reads: FileReads::default(),
        started_unix_ms,
        process_id: process_id(),
    };
    live(&mut agent, &token).await;
    agent.shells.close().await;
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

/// Session after session, until `stop`.
async fn live(agent: &mut Agent, stop: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut applied = false;
    while !stop.is_cancelled() {
        let identity = select! {
            identity = enrol::obtain(&agent.config, &agent.vault, &agent.link) => Arc::new(identity),
            () = stop.cancelled() => return,
        };
        agent.identity.send_replace(Some(identity.clone()));
        if !applied {
            reapply_last(agent, &identity).await;
            applied = true;
        }
        let connected = select! {
            connected = agent.link.dial(Some(&identity)) => connected,
            () = stop.cancelled() => return,
        };
        let wait = match connected {
            Err(link::Error::Refused(why)) => refused(agent, &why, stop, &mut backoff).await,
            Err(error) => {
                let wait = backoff.next(unit());
                tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "no master; trying again");
                wait
            }
            Ok(connection) => {
                let address = connection.address.clone();
                let (why, spread) = agent.attach(connection, &identity, stop).await;
                match spread {
                    Some(_) => {
                        backoff.reset();
                        agent.link.order().restart();
                    }
                    None => agent.link.order().failed(&address),
                }
                match why {
                    Closed::Refused(why) => refused(agent, &why, stop, &mut backoff).await,
                    // What the master's TLS said of it may have got lost with the connection.
                    Closed::Broken(why)
                        if spread.is_none()
                            && identity.not_after <= aot_host::clock::since_1970() =>
                    {
                        refused(agent, &why, stop, &mut backoff).await
                    }
                    why => after(agent, &why, spread, &mut backoff).await,
                }
            }
        };
        select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The master does not take the certificate: by its clock it is over, or it knows of a newer one. Ours may say otherwise,
/// so it is not asked; the key that was certified before may have another. Says how long to wait before the next connection.
async fn refused(
    agent: &Agent,
    why: &str,
    stop: &CancellationToken,
    backoff: &mut Backoff,
) -> Duration {
    tracing::warn!(
        why,
        "the master does not accept the certificate; enrolling again"
    );
    let again = enrol::again(&agent.config, &agent.vault, &agent.link);
    let enrolled = select! {
        enrolled = again => enrolled,
        () = stop.cancelled() => return Duration::ZERO,
    };
    let wait = backoff.next(unit());
    match enrolled {
        Ok(identity) => tracing::info!(instance = %identity.name.instance, "enrolled again"),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "cannot enrol again; the certificate stays");
        }
    }
    wait
}

/// What follows the end of a session: how long to wait before the next one. `spread`: what the master asks all of its
/// agents to spread over when they lose it.
async fn after(
    agent: &Agent,
    why: &Closed,
    spread: Option<Duration>,
    backoff: &mut Backoff,
) -> Duration {
    match why {
        Closed::Stopping => Duration::ZERO,
        Closed::Reboot => {
            tracing::info!("rebooting");
            match power::reboot(agent.config.reboot.as_deref()).await {
                Ok(()) => REBOOT_WAIT,
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the machine did not reboot");
                    Duration::ZERO
                }
            }
        }
        Closed::ByMaster { reason, .. } => {
            let wait = reconnect::wait(why, spread, backoff, unit);
            tracing::info!(
                reason,
                wait_ms = wait.as_millis() as u64,
                "the master said goodbye; reconnecting"
            );
            wait
        }
        Closed::Silent | Closed::Broken(_) | Closed::Refused(_) => {
            let wait = reconnect::wait(why, spread, backoff, unit);
            tracing::warn!(
                ?why,
                wait_ms = wait.as_millis() as u64,
                "the session has ended; trying again"
            );
            wait
        }
    }
}

/// Puts the last cluster facts in place again: cloud-init may have rewritten /etc/hosts at boot.
async fn reapply_last(agent: &Agent, identity: &ClientIdentity) {
    let (paths, name) = (paths(&agent.config), identity.name.clone());
    let work =
        tokio::task::spawn_blocking(
            move || match cluster_facts::last_applied(&paths.state_dir) {
                Some(facts) => cluster_facts::apply(
                    &paths,
                    name.cluster.as_str(),
                    name.instance.as_str(),
                    &facts,
                ),
                None => Ok(()),
            },
        );
    match timeout(Duration::from_secs(30), work).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = %Chain(&error), "cannot put the last cluster facts in place again")
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("putting the last cluster facts in place again was interrupted")
        }
    }
}
