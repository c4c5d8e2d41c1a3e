//! One connection to the master over its unix socket: one `connect`, no retry, no name. Starts a master where the
//! command may.

use std::io;
use std::time::{Duration, Instant};

use aot_proto::status::{is_moved, is_stopping};
use aot_proto::v1::{InfoReply, InfoRequest};

use super::background;
use super::dial::{Client, QUERY, dial, within};
use super::error::{Error, is_broken};
use super::{CliEnv, Ctx};

/// When a command may start a master in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Whenever none answers.
    Always,
    /// The same, and also where a service serves this state when it runs.
    InPlaceOfAService,
    /// When none answers and there is a state that it could serve.
    WithState,
    /// Never.
    Never,
}

/// Connects, after starting a master when none answers and `start` allows it. With `-v`, the master's calls are shown
/// from here on.
///
/// # Errors
/// When nobody answers, or the start failed.
pub(crate) async fn connect(ctx: &mut Ctx<'_>, start: Start) -> Result<Client, Error> {
    let client = dial_alive(ctx, start).await?;
    // A master that may not be started is about to be stopped: it makes no calls for us, and should close in peace.
    if let Some(verbose) = ctx.verbose.as_ref().filter(|_| start != Start::Never) {
        verbose.open(&client).await?;
    }
    Ok(client)
}

/// How long a master that is dying, or is started again by its service, is waited for.
const DYING: Duration = Duration::from_secs(10);

/// How often it is tried until then.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Connects to a master that answers. One that was killed a moment ago still takes connections, and one that stops still
/// refuses what is asked: nothing has been asked of either yet, so the next one is waited for, or started. A command that
/// may be asked twice (see `Command::may_be_repeated`) spares that question the first time.
async fn dial_alive(ctx: &mut Ctx<'_>, start: Start) -> Result<Client, Error> {
    let deadline = Instant::now() + DYING;
    let mut met = None;
    loop {
        let error = match dial_or_start(ctx, start).await {
            Ok(client) if !ctx.greets => return Ok(client),
            Ok(mut client) => match client.info(within(QUERY, InfoRequest::default())).await {
                Err(status) if is_dying(&status) => Error::from(status),
                Err(_) => return Ok(client), // whatever it said, it is there
                Ok(info) => {
                    let info = info.into_inner();
                    (ctx.keeps_requests, ctx.background) = (info.keeps_requests, info.background);
                    // One that is about to be stopped is what it is.
                    if start != Start::Never {
                        ctx.compare_build(&info)?;
                    }
                    return Ok(client);
                }
            },
            Err(error @ Error::NotAMaster { .. }) if ctx.greets => error,
            Err(error @ (Error::NoMaster { .. } | Error::ServiceIsDown { .. }))
                if met.is_some() =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline || start == Start::Never {
            return Err(met.unwrap_or(error));
        }
        met.get_or_insert(error);
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Connects to the next master after the end of one that was asked; it must answer now.
///
/// # Errors
/// As [`connect`], and as its first answer.
pub(super) async fn dial_once(
    ctx: &mut Ctx<'_>,
    start: Start,
) -> Result<(Client, InfoReply), Error> {
    let mut client = dial_or_start(ctx, start).await?;
    let info = client.info(within(QUERY, InfoRequest::default())).await?;
    let info = info.into_inner();
    ctx.compare_build(&info)?;
    Ok((client, info))
}

/// Whether an answer is that of a master that ends or has just given the cluster to another, or none at all because it has ended.
pub(super) fn is_dying(status: &tonic::Status) -> bool {
    is_broken(status) || is_stopping(status) || is_moved(status)
}

async fn dial_or_start(ctx: &mut Ctx<'_>, start: Start) -> Result<Client, Error> {
    let error = match dial(ctx.env, ctx.cluster.as_deref()).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    let Error::NoMaster { source, .. } = &error else {
        return Err(error);
    };
    match &ctx.env.background {
        Some(daemon) if is_absent(source) && may_start(ctx.env, start) => {
            let cluster = ctx.cluster.as_deref();
            background::start(daemon, ctx.env, cluster, ctx.quiet, &mut ctx.io.stderr).await
        }
        Some(_) if is_absent(source) && belongs_to_a_service(ctx.env) => {
            Err(Error::ServiceIsDown {
                state_dir: ctx.env.state_dir.clone(),
            })
        }
        _ => Err(error),
    }
}

/// A service serves this state when it runs, and is perhaps only away for the moment: a master in the background would
/// be in its way when it comes back.
fn belongs_to_a_service(env: &CliEnv) -> bool {
    env.state_dir.join("service").exists()
}

/// Nobody listens, as opposed to: we may not ask.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn may_start(env: &CliEnv, start: Start) -> bool {
    if belongs_to_a_service(env) && start != Start::InPlaceOfAService {
        return false;
    }
    match start {
        Start::Always | Start::InPlaceOfAService => true,
        Start::Never => false,
        Start::WithState => {
            std::fs::read_dir(&env.state_dir).is_ok_and(|mut entries| entries.next().is_some())
        }
    }
}
