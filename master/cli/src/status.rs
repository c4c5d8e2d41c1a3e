//! `status`, `list`, `dns`, `ip` and `update`: what there is.

use std::io::Write as _;

use aot_proto::v1::{
    ClusterView, InstanceView, MachineState, StatusReply, StatusRequest, TargetRequest,
};
use serde_json::{Value, json};

use super::Ctx;
use super::args::{ListArgs, MaybeTarget};
use super::connect::{Start, connect};
use super::dial::{ASK_PROVIDER, QUERY, within};
use super::error::{Error, Exit};
use crate::view::{
    Columns, explanations, instance_json, instances_table, public_or_private, stages_json,
};

/// Asks for the state of instances; `live` makes the master ask its provider first.
pub(crate) async fn ask(
    ctx: &mut Ctx<'_>,
    which: &MaybeTarget,
    live: bool,
) -> Result<StatusReply, Error> {
    ask_with(ctx, which, live, false).await
}

/// [`ask`], with what failed stages printed last when `stages`.
async fn ask_with(
    ctx: &mut Ctx<'_>,
    which: &MaybeTarget,
    live: bool,
    stages: bool,
) -> Result<StatusReply, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = StatusRequest {
        cluster: ctx.cluster.clone(),
        target: which.target.clone(),
        exclude: which.narrow.exclude(),
        limit: which.narrow.limit(),
        live,
        stages,
    };
    let limit = if live { ASK_PROVIDER } else { QUERY };
    let reply = client.status(within(limit, request)).await?.into_inner();
    ctx.compare_build_of(&mut client, &reply.build, reply.background)
        .await?;
    ctx.warn_of_absent(&reply.absent)?;
    match reply.instances.is_empty() && !which.is_all() {
        true => Err(Error::NoMatch {
            target: which.to_string(),
        }),
        false => Ok(reply),
    }
}

/// `aot-master status`.
///
/// # Errors
/// When the master can't be asked.
pub(crate) async fn status(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let reply = ask(ctx, &MaybeTarget::default(), false).await?;
    if ctx.json {
        return print_json(ctx, &reply.instances, ListArgs::default());
    }
    for note in &reply.notes {
        ctx.message(&format!("warning: {note}"))?;
    }
    if reply.clusters.is_empty() && reply.instances.is_empty() {
        ctx.message("no clusters yet: aot-master launch FILE creates one")?;
    }
    let columns = Columns {
        overview: true,
        ..Columns::default()
    };
    for (place, cluster) in reply.clusters.iter().enumerate() {
        if place > 0 {
            writeln!(ctx.io.stdout)?;
        }
        let head = ctx.style().bold(&cluster_line(cluster));
        ctx.print(&head)?;
        let members: Vec<InstanceView> = reply
            .instances
            .iter()
            .filter(|view| view.cluster == cluster.name)
            .cloned()
            .collect();
        if !members.is_empty() {
            ctx.print(&instances_table(
                &members,
                columns,
                ctx.style(),
                ctx.columns(),
            ))?;
            let told = members
                .iter()
                .map(|view| (&*view.name, view.phase(), &*view.explanation));
            let why = explanations(told, ctx.style());
            if !why.is_empty() {
                ctx.print(&why)?;
            }
        }
    }
    Ok(Exit::Well)
}

/// `hadoop  ec2 us-west-2, cluster facts generation 3, launching`.
fn cluster_line(cluster: &ClusterView) -> String {
    let mut line = format!("{}  {}", cluster.name, cluster.provider);
    if !cluster.region.is_empty() {
        line.push_str(&format!(" {}", cluster.region));
    }
    if cluster.generation > 0 {
        line.push_str(&format!(
            ", cluster facts generation {}",
            cluster.generation
        ));
    }
    if cluster.launching {
        line.push_str(", launching");
    }
    if !cluster.launch_error.is_empty() {
        line.push_str(&format!(", last launch failed: {}", cluster.launch_error));
    }
    line
}

/// `aot-master list [TARGET]`.
///
/// # Errors
/// When the master can't be asked, or nothing matches.
pub(crate) async fn list(ctx: &mut Ctx<'_>, args: &ListArgs) -> Result<Exit, Error> {
    let reply = ask_with(ctx, &args.which, args.query, args.stages).await?;
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
