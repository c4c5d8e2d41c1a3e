//! The agent's life once it has started: get an identity, hold a session, come back when it breaks.

use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use tokio::select;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, unit};
use crate::identity::{ClientIdentity, enrol};
use crate::link::{self, Connection};
use crate::reconnect::{EndedSession, Reconnect};
use crate::session::protocol::Closed;
use crate::session::{Agent, paths};
use crate::{cluster_facts, power};

/// How long a reboot may take to take this process away before the master is dialled again.
const REBOOT_WAIT: Duration = Duration::from_secs(120);

/// Session after session, until `stop`.
pub(super) async fn live(agent: &mut Agent, stop: &CancellationToken) {
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut reconnect = Reconnect::new(backoff);
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
            connected = dial(agent, &identity, &reconnect) => connected,
            () = stop.cancelled() => return,
        };
        let wait = match connected {
            Err(link::Error::Refused(why)) => refused(agent, &why, stop, &mut reconnect).await,
            Err(error) => {
                let wait = reconnect.after_failure(unit);
                tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "no master; trying again");
                wait
            }
            Ok(connection) => {
                let address = connection.address.clone();
                let began = Instant::now();
                let (why, spread) = agent.attach(connection, &identity, stop).await;
                match spread {
                    Some(_) => reconnect.welcomed(),
                    None => agent.link.order().failed(&address),
                }
                match why {
                    Closed::Refused(why) => refused(agent, &why, stop, &mut reconnect).await,
                    // What the master's TLS said of it may have got lost with the connection.
                    Closed::Broken(why)
                        if spread.is_none()
                            && identity.not_after <= aot_host::clock::since_1970() =>
                    {
                        refused(agent, &why, stop, &mut reconnect).await
                    }
                    why => {
                        let lasted = began.elapsed();
                        let ended = EndedSession {
                            why: &why,
                            spread,
                            lasted,
                        };
                        after(agent, &ended, &mut reconnect).await
                    }
                }
            }
        };
        select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// After a session that was cut its own master is dialled alone: while it is well, nobody need take its agents over.
async fn dial(
    agent: &Agent,
    identity: &ClientIdentity,
    reconnect: &Reconnect,
) -> Result<Connection, link::Error> {
    match reconnect.is_to_the_same() {
        true => agent.link.redial(identity).await,
        false => agent.link.dial(Some(identity)).await,
    }
}

/// The master does not take the certificate: by its clock it is over, or it knows of a newer one. Ours may say otherwise,
/// so it is not asked; the key that was certified before may have another. Says how long to wait before the next connection.
async fn refused(
    agent: &Agent,
    why: &str,
    stop: &CancellationToken,
    reconnect: &mut Reconnect,
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
    let wait = reconnect.after_failure(unit);
    match enrolled {
        Ok(identity) => tracing::info!(instance = %identity.name.instance, "enrolled again"),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), wait_ms = wait.as_millis() as u64, "cannot enrol again; the certificate stays");
        }
    }
    wait
}

/// What follows the end of a session: how long to wait before the next one.
async fn after(agent: &Agent, ended: &EndedSession<'_>, reconnect: &mut Reconnect) -> Duration {
    let why = ended.why;
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
            let wait = reconnect.after_session(ended, unit);
            tracing::info!(
                reason,
                wait_ms = wait.as_millis() as u64,
                "the master said goodbye; reconnecting"
            );
            wait
        }
        Closed::Silent | Closed::Broken(_) | Closed::Refused(_) => {
            let wait = reconnect.after_session(ended, unit);
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
    let turn = agent.cluster_facts.clone().lock_owned().await;
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let last = cluster_facts::last_applied(&paths.state_dir);
        last.map_or(Ok(()), |content| {
            let (cluster, instance) = (name.cluster.as_str(), name.instance.as_str());
            cluster_facts::put(&paths, cluster, instance, &content).map(drop)
        })
    });
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
