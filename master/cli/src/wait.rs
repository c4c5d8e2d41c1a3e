//! `wait TARGET --state S`: until all are there.

use aot_proto::v1::WaitRequest;
use tokio::time::Instant;

use super::Ctx;
use super::args::WaitArgs;
use super::cluster_source::{ClusterAsk, ClusterSource};
use super::connect::{Start, connect};
use super::dial::millis;
use super::error::{Error, Exit};
use super::follow_cluster::follow;
use super::interrupt::Interrupt;

/// Follows the wait; the exit code is its last event's.
///
/// # Errors
/// When nothing matches, or the master can't be asked or followed.
pub(crate) async fn wait(ctx: &mut Ctx<'_>, args: WaitArgs) -> Result<Exit, Error> {
    let client = connect(ctx, Start::WithState).await?;
    let request = WaitRequest {
        cluster: ctx.cluster.clone(),
        exclude: args.target.narrow.exclude(),
        limit: args.target.narrow.limit(),
        target: args.target.target,
        goal: Some(args.state),
        timeout_ms: millis(args.timeout),
    };
    let until = Instant::now().checked_add(args.timeout);
    let until = until.ok_or_else(|| Error::usage("--timeout is too long", "give a shorter one"))?;
    let ask = ClusterAsk::Wait(request, until);
    let goes_on = "nothing depends on this wait";
    let mut source = ClusterSource::new(ctx, client, ask, Start::WithState, goes_on)?;
    let events = source.begin(ctx).await?;
    let followed = follow(
        ctx,
        &mut source,
        events,
        Interrupt::of_process(false),
        &mut |_| (),
    )
    .await?;
    let Some(last) = followed.last else {
        return Ok(Exit::Well);
    };
    let exit = Exit::from_wire(last.exit_code);
    // The plain view has said it already; the live one shows nothing that lasts.
    let is_unsaid = ctx.is_live() || ctx.quiet && exit != Exit::Well;
    if is_unsaid && !last.message.is_empty() {
        ctx.message(&last.message)?;
    }
    Ok(exit)
}
