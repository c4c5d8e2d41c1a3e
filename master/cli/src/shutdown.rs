//! `shutdown`: stops a master, and waits until it is gone. Instances and agents stay.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aot_proto::v1::{InfoRequest, ShutdownRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::Ctx;
use super::args::ListenArgs;
use super::connect::{Start, connect};
use super::connect_for::connect_for;
use super::dial::{QUERY, within};
use super::error::{Error, Exit, is_broken};

/// Longest wait for the process to end once it has agreed.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Asks the master to stop.
///
/// # Errors
/// When it can't be asked, or refuses: one that a service manager runs is stopped there.
pub(crate) async fn shutdown(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::Never).await?;
    let info = client
        .info(within(QUERY, InfoRequest::default()))
        .await?
        .into_inner();
    // Held before it ends, so that another process with its number can't be taken for it.
    let process = hold(info.pid);
    let pid = match client.shutdown(within(QUERY, ShutdownRequest {})).await {
        Ok(reply) => reply.into_inner().pid,
        // It may be gone before its answer is sent.
        Err(status) if process.is_some() && is_broken(&status) => info.pid,
        Err(status) => return Err(status.into()),
    };
    drop(client);
    let gone = match process {
        // Not on this thread: the connection has to answer while the master closes it.
        Some(process) => tokio::task::spawn_blocking(move || wait_for(&process, GONE_WITHIN))
            .await
            .unwrap_or(false),
        None => true,
    };
    if ctx.json {
        ctx.print(&json!({"pid": pid, "stopped": gone}).to_string())?;
    } else if gone {
        ctx.message(&format!(
            "the master (pid {pid}) has stopped; instances and agents stay"
        ))?;
    } else {
        ctx.message(&format!(
            "error: the master (pid {pid}) agreed to stop, but is still running after {} s",
            GONE_WITHIN.as_secs()
        ))?;
    }
    Ok(if gone { Exit::Well } else { Exit::Failed })
}

/// Stops a master that was started in the background, if one runs, and starts it again with this shell's settings and
/// program. What the last start was told and this one is not stays as it was.
///
/// # Errors
/// As [`shutdown`], and when it does not start.
pub(crate) async fn restart(ctx: &mut Ctx<'_>, listen: &ListenArgs) -> Result<Exit, Error> {
    match shutdown(ctx).await {
        Ok(Exit::Well) | Err(Error::NoMaster { .. }) => {}
        other => return other,
    }
    connect_for(ctx, listen, Start::WithState).await?;
    Ok(Exit::Well)
}

/// A handle on a process; `None` when there is none with that number that we can see.
fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether the process ended within `limit`: its handle becomes readable (pidfd_open(2)).
fn wait_for(process: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}
