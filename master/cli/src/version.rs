//! `version`: of this program, and of the master that answers. Starts none.

use aot_proto::v1::{InfoReply, InfoRequest};
use serde_json::json;

use super::Ctx;
use super::dial::{QUERY, dial, within};
use super::error::{Error, Exit};

/// A line for each of the two.
///
/// # Errors
/// When the result can't be written.
pub(crate) async fn version(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let own = match ctx.env.build.as_str() {
        "" => env!("CARGO_PKG_VERSION").to_owned(),
        build => build.to_owned(),
    };
    let master = of_master(ctx).await;
    if ctx.json {
        let master = master.map(|info| {
            json!({"version": info.version, "build": info.build, "pid": info.pid, "listen": info.listen})
        });
        let version = env!("CARGO_PKG_VERSION");
        let line = json!({"version": version, "build": own, "master": master});
        ctx.print(&line.to_string())?;
        return Ok(Exit::Well);
    }
    ctx.print(&format!("aot-master {own}"))?;
    match master {
        Some(info) => {
            let build = if info.build.is_empty() {
                &info.version
            } else {
                &info.build
            };
            ctx.print(&format!(
                "master     {build}, pid {}, listens on {}",
                info.pid, info.listen
            ))?;
        }
        None => ctx.note("no master is running")?,
    }
    Ok(Exit::Well)
}

/// What the master says of itself, if one answers.
async fn of_master(ctx: &Ctx<'_>) -> Option<InfoReply> {
    let mut client = dial(ctx.env, None).await.ok()?;
    let info = client.info(within(QUERY, InfoRequest::default())).await;
    Some(info.ok()?.into_inner())
}
