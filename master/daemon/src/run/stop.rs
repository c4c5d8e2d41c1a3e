//! Two-step stop: the first signal drains, the second, or the deadline, ends at once.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long draining may take. Sessions say goodbye by themselves well within it; a server that hangs (hyper issue
/// 4170) is left behind.
const GRACE: Duration = Duration::from_secs(5);

/// Why the master stops, when nobody asked it to. One process is one master, and stops once.
static WHY: OnceLock<String> = OnceLock::new();

/// Notes why the master can't continue; the first reason counts.
pub(crate) fn because(why: String) {
    let _ = WHY.set(why); // an earlier one is the cause
}

/// Why the master stops, when nobody asked it to.
pub(crate) fn why() -> Option<&'static str> {
    WHY.get().map(String::as_str)
}

/// Fires the token at the first SIGTERM or SIGINT, and ends the process at the second.
///
/// # Errors
/// When signals can't be listened to.
pub(crate) fn on_signal(stop: &CancellationToken, tasks: &TaskTracker) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = stop.cancelled() => return,
        }
        tracing::info!("stopping; a second signal stops at once");
        stop.cancel();
    });
    Ok(())
}

/// Waits for all tasks, but not for ever. Says whether they all ended.
pub(crate) async fn drain(tasks: &TaskTracker) -> bool {
    tasks.close();
    let mut term = signal(SignalKind::terminate()).ok();
    let mut int = signal(SignalKind::interrupt()).ok();
    let again = async {
        match (&mut term, &mut int) {
            (Some(term), Some(int)) => {
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            }
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tasks.wait() => true,
        () = tokio::time::sleep(GRACE) => false,
        () = again => false,
    }
}
