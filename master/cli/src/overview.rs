//! `status`: the master, its clusters, their instances, and why those failed that did; once, or with `--watch` as it changes.

mod display;
mod seen;
mod text;

use std::time::{Duration, Instant};

use super::Ctx;
use super::args::{MaybeTarget, StatusArgs};
use super::connect::{Start, connect};
use super::dial::Client;
use super::error::{Error, Exit};
use super::follow_cluster::ctrl_c;
use display::Display;
use seen::see;
use text::print;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// So many times as long as a look takes comes before the next one: a large cluster is not asked about all the time.
const PAUSE_PER_LOOK: u32 = 10;

/// `aot-master status [TARGET]`.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn status(ctx: &mut Ctx<'_>, args: StatusArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    if !args.watch {
        let seen = see(ctx, &mut client, &args.which).await?;
        print(ctx, &seen, &args.which)?;
        return Ok(Exit::Well);
    }
    let mut display = Display::new(ctx);
    let shown = tokio::select! {
        shown = keep_showing(ctx, &mut client, &args.which, &mut display) => shown,
        () = ctrl_c() => Ok(()),
    };
    display.close(ctx)?;
    shown.map(|()| Exit::Interrupted)
}

/// Shows it again and again: ends only with an error.
async fn keep_showing(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    which: &MaybeTarget,
    display: &mut Display,
) -> Result<(), Error> {
    loop {
        let began = Instant::now();
        let seen = see(ctx, client, which).await?;
        let took = began.elapsed();
        display.show(ctx, &seen, which)?;
        ctx.has_shown = true;
        tokio::time::sleep(EVERY.max(took * PAUSE_PER_LOOK)).await;
    }
}
