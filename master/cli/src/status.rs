//! `list`, `dns`, `ip` and `update`: what there is.

use std::collections::HashMap;

use aot_proto::v1::{InstanceView, MachineState, StatusReply, StatusRequest, TargetRequest};
use serde_json::{Value, json};

use super::Ctx;
use super::args::{ListArgs, MaybeTarget};
use super::connect::{Start, connect};
use super::dial::{ASK_PROVIDER, Client, QUERY, within};
use super::error::{Error, Exit};
use crate::view::{Columns, instance_json, instances_table, public_or_private, stages_json};

/// What is wanted to know of instances besides what the master has at hand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StatusDetail {
    /// The master asks its provider first.
    pub live: bool,
    /// With what failed stages printed last.
    pub stages: bool,
}

/// Asks for the state of instances; `live` makes the master ask its provider first.
pub(crate) async fn ask(
    ctx: &mut Ctx<'_>,
    which: &MaybeTarget,
    live: bool,
) -> Result<StatusReply, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let stages = false;
    let reply = ask_of(ctx, &mut client, which, StatusDetail { live, stages }).await?;
    ctx.warn_of_absent(&reply.absent)?;
    Ok(reply)
}

/// The same of a master that is connected to. What the answer lacks is for whoever asks to say.
pub(crate) async fn ask_of(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    which: &MaybeTarget,
    StatusDetail { live, stages }: StatusDetail,
) -> Result<StatusReply, Error> {
    let request = StatusRequest {
        cluster: ctx.cluster.clone(),
        target: which.target.clone(),
        exclude: which.narrow.exclude(),
        limit: which.narrow.limit(),
        live,
        stages,
        equal_once: stages,
    };
    let limit = if live { ASK_PROVIDER } else { QUERY };
    let mut reply = client.status(within(limit, request)).await?.into_inner();
    ctx.compare_build_of(client, &reply.build, reply.background)
        .await?;
    give_equal_tails(&mut reply.instances);
    match reply.instances.is_empty() && !which.is_all() {
        true => Err(Error::NoMatch {
            target: which.to_string(),
        }),
        false => Ok(reply),
    }
}

/// What failed stages printed that is equal comes once, with the name of whose it is: gives it to all of them.
fn give_equal_tails(views: &mut [InstanceView]) {
    type Tails = HashMap<(String, u32), (Vec<String>, u32)>;
    let mut tails: HashMap<String, Tails> = HashMap::new();
    for view in views.iter() {
        let of_cluster = tails.entry(view.cluster.clone()).or_default();
        for stage in view.stage_views.iter().filter(|it| !it.tail.is_empty()) {
            let tail = (stage.tail.clone(), stage.tail_stderr);
            of_cluster.insert((view.name.clone(), stage.index), tail);
        }
    }
    for view in views {
        let of_cluster = tails.get(&view.cluster);
        for stage in view.stage_views.iter_mut() {
            let key = (std::mem::take(&mut stage.tail_of), stage.index);
            if let Some((tail, stderr)) = of_cluster.and_then(|all| all.get(&key)) {
                (stage.tail, stage.tail_stderr) = (tail.clone(), *stderr);
            }
        }
    }
}

/// `aot-master list [TARGET]`.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn list(ctx: &mut Ctx<'_>, args: &ListArgs) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let wanted = StatusDetail {
        live: args.query,
        stages: args.stages,
    };
    let reply = ask_of(ctx, &mut client, &args.which, wanted).await?;
    ctx.warn_of_absent(&reply.absent)?;
    if ctx.json {
        return print_json(ctx, &reply.instances, args.clone());
    }
    if reply.instances.is_empty() {
        ctx.message("no instances")?;
        return Ok(Exit::Well);
    }
    let columns = Columns {
        properties: args.properties,
        addresses: args.addresses,
        stages: args.stages,
        overview: false,
    };
    let table = instances_table(&reply.instances, columns, ctx.style(), ctx.columns());
    ctx.print(&table)?;
    Ok(Exit::Well)
}

fn print_json(ctx: &mut Ctx<'_>, views: &[InstanceView], args: ListArgs) -> Result<Exit, Error> {
    for view in views {
        let mut object = instance_json(view);
        if args.addresses {
            object["private_dns"] = (!view.private_dns.is_empty())
                .then_some(view.private_dns.as_str())
                .into();
        }
        if args.stages {
            object["stages"] = stages_json(view);
        }
        if args.properties {
            object["properties"] =
                serde_json::from_str(&view.properties_json).unwrap_or(Value::Null);
        }
        ctx.print(&object.to_string())?;
    }
    Ok(Exit::Well)
}

/// `aot-master dns [TARGET]`.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn dns(ctx: &mut Ctx<'_>, which: MaybeTarget) -> Result<Exit, Error> {
    values(ctx, &which, "dns", |view| {
        public_or_private(&view.public_dns, &view.private_dns)
    })
    .await
}

/// `aot-master ip [TARGET]`.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn ip(ctx: &mut Ctx<'_>, which: MaybeTarget) -> Result<Exit, Error> {
    values(ctx, &which, "ip", |view| {
        public_or_private(&view.public_ip, &view.private_ip)
    })
    .await
}

/// One value a line, in the instances' order. Fails when not one instance has it, so that `$(aot-master ip web1)`
/// stops a script instead of being empty.
async fn values(
    ctx: &mut Ctx<'_>,
    which: &MaybeTarget,
    what: &str,
    value: impl Fn(&InstanceView) -> Option<&str>,
) -> Result<Exit, Error> {
    let reply = ask(ctx, which, false).await?;
    let mut missing = 0;
    for view in &reply.instances {
        match (value(view), ctx.json) {
            (found, true) => {
                let object = json!({"cluster": view.cluster, "name": view.name, what: found});
                ctx.print(&object.to_string())?;
                missing += usize::from(found.is_none());
            }
            (Some(text), false) => ctx.print(text)?,
            (None, false) => {
                missing += 1;
                ctx.message(&no_value(view, what))?;
            }
        }
    }
    let none = missing > 0 && missing == reply.instances.len();
    Ok(if none { Exit::Failed } else { Exit::Well })
}

/// `web2 has no ip yet`, or why it has none for good or for the moment.
fn no_value(view: &InstanceView, what: &str) -> String {
    let state = MachineState::name_of(view.state);
    match MachineState::try_from(view.state) {
        Ok(MachineState::Unspecified | MachineState::Pending | MachineState::Running) => {
            format!("{} has no {what} yet", view.name)
        }
        _ => format!("{} has no {what}: it is {state}", view.name),
    }
}

/// `aot-master update [TARGET]`.
///
/// # Errors
/// When the master or its provider can't be asked, or nothing matches.
pub(crate) async fn update(ctx: &mut Ctx<'_>, which: MaybeTarget) -> Result<Exit, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = TargetRequest {
        cluster: ctx.cluster.clone(),
        exclude: which.narrow.exclude(),
        limit: which.narrow.limit(),
        target: which.target,
    };
    let reply = client
        .update(within(ASK_PROVIDER, request))
        .await?
        .into_inner();
    ctx.warn_of_absent(&reply.absent)?;
    if ctx.json {
        return print_json(ctx, &reply.instances, ListArgs::default());
    }
    let columns = Columns {
        addresses: true,
        ..Columns::default()
    };
    let table = instances_table(&reply.instances, columns, ctx.style(), ctx.columns());
    ctx.print(&table)?;
    Ok(Exit::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn equal_lines_that_came_once_are_everybodys() {
        let view = |cluster: &str, name: &str, tail: &[&str], tail_of: &str| {
            let mut view = samples::view(name, "failed", &["failed"]);
            view.cluster = cluster.into();
            let stage = &mut view.stage_views[0];
            stage.tail = tail.iter().map(|line| (*line).to_owned()).collect();
            stage.tail_stderr = u32::from(!tail.is_empty());
            stage.tail_of = tail_of.into();
            view
        };
        let mut views = [
            view("a", "web1", &["no disk"], ""),
            view("a", "web2", &[], "web1"),
            view("b", "web1", &["other"], ""),
            view("b", "web2", &[], "web1"),
            view("b", "web3", &[], ""),
            view("b", "web4", &[], "nobody"),
        ];
        give_equal_tails(&mut views);
        let tails = views.each_ref().map(|view| {
            let stage = &view.stage_views[0];
            (stage.tail.join(","), stage.tail_stderr)
        });
        let want = ["no disk", "no disk", "other", "other", "", ""];
        assert_eq!(
            tails,
            want.map(|tail| (tail.to_owned(), u32::from(!tail.is_empty())))
        );
    }
}
