//! `status` as text and as JSON.

use std::io::Write as _;

use aot_proto::plural;
use aot_proto::v1::{ClusterView, InfoReply, InstanceView};

use super::seen::{Overview, members, with_lines};
use crate::Ctx;
use crate::args::MaybeTarget;
use crate::error::Error;
use crate::view::{
    Columns, explanations, failed_stages, instance_json, instances_table, stages_json, stamp,
    versions,
};

/// All of it. With a target also the last lines of stages that failed.
pub(super) fn print(ctx: &mut Ctx<'_>, seen: &Overview, which: &MaybeTarget) -> Result<(), Error> {
    let reply = &seen.reply;
    ctx.warn_of_absent(&reply.absent)?;
    if ctx.json {
        return print_json(ctx, reply.instances.iter());
    }
    for note in &reply.notes {
        ctx.message(&format!("warning: {note}"))?;
    }
    if let Some(master) = &seen.master {
        let line = ctx.style().dim(&master_line(master));
        ctx.print(&line)?;
    }
    if reply.clusters.is_empty() && reply.instances.is_empty() {
        ctx.message("no clusters yet: aot-master launch FILE creates one")?;
    }
    for (place, cluster) in reply.clusters.iter().enumerate() {
        if place > 0 {
            writeln!(ctx.io.stdout)?;
        }
        let head = ctx.style().bold(&cluster_line(cluster));
        ctx.print(&head)?;
        let printing = seen.printing.get(&cluster.name);
        let printing = printing.map(Vec::as_slice).unwrap_or_default();
        let members = with_lines(members(reply, cluster), printing);
        print_members(ctx, &members, !which.is_all())?;
    }
    Ok(())
}

fn print_members(ctx: &mut Ctx<'_>, members: &[InstanceView], in_full: bool) -> Result<(), Error> {
    if members.is_empty() {
        return Ok(());
    }
    let columns = Columns {
        overview: true,
        ..Columns::default()
    };
    let (style, width) = (ctx.style(), ctx.columns());
    ctx.print(&instances_table(members, columns, style, width))?;
    for line in versions(members) {
        ctx.print(&line)?;
    }
    for line in failed_stages(members, in_full, style) {
        ctx.print(&line)?;
    }
    let told = members
        .iter()
        .map(|view| (&*view.name, view.phase(), &*view.explanation));
    ctx.print(&explanations(told, style))
}

/// An object per instance, with its stages.
pub(super) fn print_json<'r>(
    ctx: &mut Ctx<'_>,
    views: impl Iterator<Item = &'r InstanceView>,
) -> Result<(), Error> {
    for view in views {
        let mut object = instance_json(view);
        object["stages"] = stages_json(view);
        ctx.print(&object.to_string())?;
    }
    Ok(())
}

/// `master 0.1.0 (1a2b3c4d5e6f), listens on 127.0.0.1:7440 since 2026-01-01 00:03:04Z, 5 sessions`.
pub(super) fn master_line(master: &InfoReply) -> String {
    let build = match master.build.as_str() {
        "" => &master.version,
        build => build,
    };
    let mut line = format!("master {build}");
    if !master.listen.is_empty() {
        line.push_str(&format!(", listens on {}", master.listen));
    }
    if master.started_unix > 0 {
        let since = stamp(master.started_unix.saturating_mul(1000));
        line.push_str(&format!(" since {since}"));
    }
    if let Some(sessions) = master.sessions {
        line.push_str(&format!(", {}", plural::count(sessions, "session")));
    }
    line
}

/// `hadoop  ec2 us-west-2, cluster facts generation 3, launching`.
pub(super) fn cluster_line(cluster: &ClusterView) -> String {
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
