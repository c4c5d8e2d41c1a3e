//! `wait TARGET --state S`: until all are there.

use aot_proto::v1::WaitRequest;

use super::Ctx;
use super::args::WaitArgs;
use super::connect::{Start, connect};
use super::error::{Error, Exit};
use super::follow_cluster::{ctrl_c, follow};
use super::launch::millis;

/// Follows the wait; the exit code is its last event's.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub(crate) async fn wait(ctx: &mut Ctx<'_>, args: WaitArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = WaitRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.target.narrow.exclude(),
        limit: args.target.narrow.limit(),
        target: args.target.target,
        goal: Some(args.state),
        timeout_ms: millis(args.timeout),
    };
    let events = client.wait(request).await?.into_inner();
    let followed = follow(ctx, events, ctrl_c(), "nothing depends on this wait", false).await?;
    let Some(last) = followed.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    // The plain view has said it already; the live one shows nothing that lasts.
    if ctx.is_live() && !last.message.is_empty() {
        ctx.message(&last.message)?;
    }
    Ok(exit)
}
