//! The agent's life: sort out what was left, get an identity, hold a session, come back when it breaks. Called by main.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::{Backoff, unit};
use crate::boot::boot_id;
use crate::config::Config;
use crate::files::private_dir;
use crate::identity::{Vault, enrol};
use crate::link::Link;
use crate::look::Looks;
use crate::runner::fetched::Fetched;
use crate::runner::launch::Launch;
use crate::runner::shims::Shims;
use crate::runner::{Runner, spool};
use crate::session::protocol::Closed;
use crate::session::{Agent, places};
use crate::shell::{Places, Shells};
use crate::{keys, power, stop, tls};

/// Longest wait that a master may ask for before the next connection.
const MOST_AWAY: Duration = Duration::from_secs(300);
/// How long a reboot may take to take this process away before the master is dialled again.
const REBOOT_WAIT: Duration = Duration::from_secs(120);
/// How long background work may go on after the end.
const DRAIN: Duration = Duration::from_secs(2);

/// An error with everything under it, in one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Serve until told to stop.
    Serve,
    /// Enrol, say as whom, end.
    EnrolCheck,
}

/// An agent that can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder, its content, or the runtime.
    #[error("cannot start")]
    Io(#[from] std::io::Error),
    /// The pinned authority.
    #[error("cannot use the settings")]
    Tls(#[from] tls::Error),
}

/// Runs the agent in a runtime of its own. Exit status 0 after a stop that was asked for, 1 when it can't start.
pub fn main(config: Config, mode: Mode) -> ExitCode {
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
pub async fn serve(config: Config, mode: Mode) -> Result<(), Error> {
    let (token, tracker) = (CancellationToken::new(), TaskTracker::new());
    tracker.spawn(stop::watch(token.clone())?);
    private_dir(&config.state_dir)?;
    let link = Link::new(config.master.clone(), &config.ca_pem)?;
    let vault = Vault::new(&config.state_dir);
    if mode == Mode::EnrolCheck {
        select! {
            identity = enrol::obtain(&config, &vault, &link) => println!("{}", identity.name),
            () = token.cancelled() => {}
        }
        return Ok(());
    }
    ask_for_a_larger_share();
    let (identity, seen) = watch::channel(None);
    let launch = Launch {
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
    let shells = Shells::new(Places {
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
        link: link.clone(),
        identity: launch.identity.clone(),
    });
    let runner = Runner::open(launch)?;
    tracing::info!(
        version = crate::VERSION,
        running = runner.running(),
        "agent started"
    );
    let started_unix_ms = spool::unix_ms();
    let mut agent = Agent {
        config,
        link,
        vault,
        identity,
        runner,
        shells,
        tracker,
        volumes: Arc::default(),
        looks: Looks::default(),
        started_unix_ms,
    };
    live(&mut agent, &token).await;
    agent.shells.close().await;
    agent.tracker.close();
    Ok(())
}

/// Where each session has an equal share of the processors (sched(7), autogroup), that of every command would be as large
/// as ours, and a busy machine would seem to be away. What runs is started in sessions of its own, and keeps its share.
fn ask_for_a_larger_share() {
    // Where it can't be had, nothing is lost but time.
    let _ = std::fs::write("/proc/self/autogroup", "-10");
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
            apply_kept(agent, identity.name.cluster.as_str()).await;
            applied = true;
        }
        let connected = select! {
            connected = agent.link.connect(Some(&identity)) => connected,
            () = stop.cancelled() => return,
        };
        let wait = match connected {
            Err(error) => {
                let wait = backoff.next(unit());
                tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "no master; trying again");
                wait
            }
            Ok(channel) => {
                let (why, welcome) = agent.attach(channel, &identity, stop).await;
                if welcome {
                    backoff.reset();
                }
                after(agent, &why, &mut backoff).await
            }
        };
        select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// What follows the end of a session: how long to wait before the next one.
async fn after(agent: &Agent, why: &Closed, backoff: &mut Backoff) -> Duration {
    match why {
        Closed::Stopping => Duration::ZERO,
        Closed::ByMaster(within) => {
            let wait = (*within).min(MOST_AWAY).mul_f64(unit());
            tracing::info!(
                wait_ms = wait.as_millis() as u64,
                "the master goes away; coming back"
            );
            wait.max(backoff.next(unit()).min(*within))
        }
        Closed::Reboot => {
            tracing::info!("rebooting");
            match power::reboot(agent.config.reboot.as_deref()).await {
                Ok(()) => REBOOT_WAIT,
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the machine does not reboot");
                    Duration::ZERO
                }
            }
        }
        Closed::Silent | Closed::Broken(_) => {
            let wait = backoff.next(unit());
            tracing::warn!(
                ?why,
                wait_ms = wait.as_millis() as u64,
                "the session is over; trying again"
            );
            wait
        }
    }
}

/// Puts the last cluster facts in place again: cloud-init may have rewritten /etc/hosts at boot.
async fn apply_kept(agent: &Agent, cluster: &str) {
    let (places, cluster) = (places(&agent.config), cluster.to_owned());
    let work = tokio::task::spawn_blocking(move || match keys::kept(&places.state_dir) {
        Some(facts) => keys::apply(&places, &cluster, &facts),
        None => Ok(()),
    });
    match timeout(Duration::from_secs(30), work).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = %Chain(&error), "cannot put the last cluster facts in place again")
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("putting the last cluster facts in place again broke off")
        }
    }
}
