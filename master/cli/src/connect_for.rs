//! A connection for a command that says how a master listens that it starts: `launch` and `restart`.

use std::ffi::OsString;

use aot_proto::v1::{InfoReply, InfoRequest};

use super::args::ListenArgs;
use super::connect::{Start, connect};
use super::dial::{Client, QUERY, within};
use super::error::Error;
use super::{CliEnv, Ctx};

/// Connects, giving a master that is started the flags that say how it listens.
pub(crate) async fn connect_for(
    ctx: &mut Ctx<'_>,
    listen: &ListenArgs,
    start: Start,
) -> Result<Client, Error> {
    let more = listen_args(listen);
    if more.is_empty() {
        return connect(ctx, start).await;
    }
    let daemon = ctx.env.background.clone().map(|daemon| daemon.with(more));
    let env = CliEnv {
        background: daemon,
        ..ctx.env.clone()
    };
    let mut inner = Ctx {
        env: &env,
        io: &mut *ctx.io,
        json: ctx.json,
        quiet: ctx.quiet,
        cluster: ctx.cluster.clone(),
        verbose: ctx.verbose.clone(),
        greets: ctx.greets,
        compared: ctx.compared,
        keeps_requests: ctx.keeps_requests,
        background: ctx.background,
        has_shown: ctx.has_shown,
    };
    let mut client = connect(&mut inner, start).await?;
    ctx.compared = inner.compared;
    (ctx.keeps_requests, ctx.background) = (inner.keeps_requests, inner.background);
    let info = client
        .info(within(QUERY, InfoRequest::default()))
        .await?
        .into_inner();
    ctx.compare_build(&info)?;
    for note in other_than_asked(listen, &info) {
        ctx.message(&note)?;
    }
    Ok(client)
}

/// What the master that runs was not started with, and the way out.
fn other_than_asked(listen: &ListenArgs, info: &InfoReply) -> Vec<String> {
    let mut notes = Vec::new();
    let listens = listen
        .listen
        .as_ref()
        .filter(|wanted| !wanted.ends_with(":0"));
    if let Some(wanted) = listens.filter(|wanted| **wanted != info.listen) {
        notes.push(format!("listens on {}, not on {wanted}", info.listen));
    }
    if !listen.advertise.is_empty() && listen.advertise != info.advertise {
        let (has, wanted) = (info.advertise.join(","), listen.advertise.join(","));
        notes.push(format!("advertises {has} to machines, not {wanted}"));
    }
    let way_out = match info.background {
        true => "aot-master restart with the same options changes that",
        false => "it was started with aot-master serve: change its settings there and restart it",
    };
    let line = |what| format!("note: the master that runs {what}; {way_out}");
    notes.into_iter().map(line).collect()
}

fn listen_args(listen: &ListenArgs) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(address) = &listen.listen {
        args.extend(["--listen".into(), address.into()]);
    }
    if !listen.advertise.is_empty() {
        args.extend(["--advertise".into(), listen.advertise.join(",").into()]);
    }
    if let Some(dir) = &listen.agent_dir {
        args.extend(["--agent-dir".into(), dir.into()]);
    }
    if let Some(age) = &listen.keep_jobs {
        args.extend(["--keep-jobs".into(), age.into()]);
    }
    if let Some(size) = &listen.keep_output {
        args.extend(["--keep-output".into(), size.into()]);
    }
    if let Some(size) = &listen.keep_free {
        args.extend(["--keep-free".into(), size.into()]);
    }
    args
}
