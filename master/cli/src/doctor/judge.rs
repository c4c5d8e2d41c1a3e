//! What is wrong, by what was measured and what the master says. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aot_proto::plural;
use aot_proto::v1::{Finding, FindingLevel, InfoReply, InstanceView, MachineState, StatusReply};
use time::UtcOffset;

use super::host::{HostFacts, KernelFacts};
use crate::error::Error;
use crate::view::{day_and_clock, ranges};

/// What a master that is started from here would go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServePlan {
    /// `host:port` of the agents' port.
    pub listen: String,
    /// Where agents lie that are handed out; `None` = beside the program.
    pub agent_dir: Option<PathBuf>,
}

/// An agent that is away for so long is not just between two sessions.
const AWAY_MS: u64 = 60_000;

/// What of a disk is kept free for the records, as the daemon has it: 256 MiB, or a tenth of a small disk.
const RESERVE: u64 = 256 << 20;

/// Files that a master has open besides a connection for each agent.
const OWN_FILES: u64 = 512;

/// Fewer than this is what a login has that nobody raised: some hundred machines.
const FEW_FILES: u64 = 4096;

/// No master was reached. That none runs is no fault: most commands start one.
pub(super) fn unreached(error: &Error) -> Finding {
    match error {
        Error::NoMaster { source, .. } if source.kind() != std::io::ErrorKind::PermissionDenied => {
            Finding::skipped(
                "master",
                "no master is running: it, its agents and its providers are not looked at",
                "aot-master launch starts one, and so does aot-master serve",
            )
        }
        error => {
            let hint = error.hint().unwrap_or_default();
            let chain = aot_host::chain::Chain(error).to_string();
            Finding::fail("master", "", chain, &hint)
        }
    }
}

/// That one answers, and where it listens.
pub(super) fn master(info: &InfoReply) -> Finding {
    let how = match info.background {
        true => "in the background",
        false => "in the foreground",
    };
    let text = format!("runs {how}, pid {}, listens on {}", info.pid, info.listen);
    Finding::ok("master", "", text)
}

/// Whether this command and all masters are of one build.
pub(super) fn builds(own: &str, info: &InfoReply) -> Finding {
    const VERSIONS: &str = "versions";
    let of = |info: &InfoReply| match info.build.as_str() {
        "" => info.version.clone(),
        build => build.to_owned(),
    };
    let mut others: Vec<String> = info
        .others
        .iter()
        .filter(|other| of(other) != of(info))
        .map(|other| format!("{} is {}", other.master, of(other)))
        .collect();
    if !own.is_empty() && own != of(info) {
        others.insert(0, format!("this command is {own}"));
    }
    match others.is_empty() {
        true => Finding::ok(
            VERSIONS,
            "",
            format!("this command and the master are {}", of(info)),
        ),
        false => Finding::warn(
            VERSIONS,
            "",
            format!("the master is {}, {}", of(info), others.join(", ")),
            "bring all to one version (docs/upgrade-uninstall.md), then aot-master restart",
        ),
    }
}

/// Agents that are away though their machines run, by cluster, and those of other versions.
pub(super) fn agents(
    status: &StatusReply,
    version: &str,
    now_ms: u64,
    offset: UtcOffset,
) -> Vec<Finding> {
    const AGENTS: &str = "agents";
    let mut by_cluster: BTreeMap<&str, Vec<&InstanceView>> = BTreeMap::new();
    let enrolled = status
        .instances
        .iter()
        .filter(|it| it.last_seen_unix_ms > 0);
    for view in enrolled.clone() {
        by_cluster.entry(&view.cluster).or_default().push(view);
    }
    let mut findings = Vec::new();
    for (cluster, views) in &by_cluster {
        let is_away = |it: &&&InstanceView| !it.connected && it.state() == MachineState::Running;
        let away: Vec<&&InstanceView> = views.iter().filter(is_away).collect();
        let Some(since) = away.iter().map(|it| it.last_seen_unix_ms).min() else {
            continue;
        };
        let level = match now_ms.saturating_sub(since) >= AWAY_MS {
            true => FindingLevel::Fail,
            false => FindingLevel::Warn,
        };
        let names = ranges(away.iter().map(|it| it.name.as_str()));
        let text = format!(
            "{} whose machines run are not connected: {names}; the longest since {}",
            plural::count(away.len(), "agent"),
            day_and_clock(since, offset)
        );
        let hint = "see that these machines reach what the master advertises (aot-master config), and their journal: journalctl -u aot-agent";
        findings.push(Finding::new(level, AGENTS, cluster, text, hint));
    }
    let connected: Vec<&InstanceView> = enrolled.filter(|it| it.connected).collect();
    if findings.is_empty() {
        let text = match connected.len() {
            0 => "none has to be connected".to_owned(),
            count => format!("{} connected", plural::count(count, "agent")),
        };
        findings.push(Finding::ok(AGENTS, "", text));
    }
    findings.extend(other_versions(&connected, version));
    findings
}

fn other_versions(connected: &[&InstanceView], version: &str) -> Option<Finding> {
    let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for view in connected {
        if view.agent_version != version && !view.agent_version.is_empty() {
            let names = others.entry(&view.agent_version).or_default();
            names.push(&view.name);
        }
    }
    if others.is_empty() {
        return None;
    }
    let each = others.iter().map(|(theirs, names)| {
        format!(
            "{} of version {theirs}: {}",
            names.len(),
            ranges(names.iter().copied())
        )
    });
    let each = each.collect::<Vec<_>>().join("; ");
    Some(Finding::warn(
        "versions",
        "",
        format!("the master is {version}, agents differ: {each}"),
        "docs/upgrade-uninstall.md: upgrade agents, and which versions work together",
    ))
}

/// What this host is like for the master that runs, or for one that would be started.
pub(super) fn host(
    host: &HostFacts,
    master: Option<&InfoReply>,
    settings: Option<&ServePlan>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !host.daemon {
        findings.push(Finding::fail(
            "programs",
            "",
            "aot-masterd is not beside aot-master: no master can be started",
            "install both programs in one folder",
        ));
    }
    findings.extend(state(host));
    findings.extend(room(host, master.is_some()));
    findings.extend(open_files(host));
    if let (Some(Err(why)), Some(settings)) = (&host.listen, settings) {
        findings.push(Finding::fail(
            "ports",
            &settings.listen,
            format!("a master could not listen there: {why}"),
            "ss -ltnp shows who has it; set another AOT_LISTEN, or end that one",
        ));
    }
    if master.is_none() {
        findings.push(agent_files(&host.agents));
        findings.push(kernel(&host.kernel));
    }
    findings.push(clock(host.clock));
    findings
}

fn state(host: &HostFacts) -> Option<Finding> {
    let mode = host.state_mode?;
    let dir = host.state_dir.display().to_string();
    Some(match mode & 0o077 {
        0 => Finding::ok("state", "", format!("{dir} is its owner's alone")),
        _ => Finding::fail(
            "state",
            "",
            format!("{dir} has mode {mode:04o}: others get at the keys in it"),
            "chmod 700 it",
        ),
    })
}

/// With a master it is the master that says when it is too little.
fn room(host: &HostFacts, is_served: bool) -> Option<Finding> {
    let (free, total) = host.disk?;
    let reserve = RESERVE.min(total / 10);
    let dir = host.state_dir.display();
    let text = format!("{} MiB are free for {dir}", free >> 20);
    let hint = "make room there, or put the state elsewhere (AOT_STATE_DIR)";
    match free {
        free if free < reserve && !is_served => Some(Finding::fail("disk", "", text, hint)),
        free if free < 2 * reserve => Some(Finding::warn("disk", "", text, hint)),
        _ if is_served => None,
        _ => Some(Finding::ok("disk", "", text)),
    }
}

fn open_files(host: &HostFacts) -> Option<Finding> {
    const FILES: &str = "open files";
    // A master raises its limit to the most that it may.
    let (_, most) = host.open_files?;
    let hint = "LimitNOFILE= of the service, or the hard limit of the login (limits.conf)";
    let agents = most.saturating_sub(OWN_FILES);
    Some(match most {
        u64::MAX => Finding::ok(FILES, "", "there is no limit"),
        most if most < FEW_FILES => Finding::warn(
            FILES,
            "",
            format!("at most {most}: with more than {agents} agents the master runs out of them"),
            hint,
        ),
        most => Finding::ok(
            FILES,
            "",
            format!("at most {most}, one for each agent that is connected"),
        ),
    })
}

fn agent_files(found: &[String]) -> Finding {
    match found.is_empty() {
        false => Finding::ok("agent files", "", found.join(", ")),
        true => Finding::fail(
            "agent files",
            "",
            "there is no aot-agent to hand out",
            "packaging/agents.sh builds them; AOT_AGENT_DIR names their folder",
        ),
    }
}

/// Only for clones of this machine, which not everybody wants.
fn kernel(kernel: &KernelFacts) -> Finding {
    let lacks = [
        (!kernel.namespaces, "namespaces"),
        (!kernel.cgroup2, "control groups of version 2"),
        (!kernel.overlay, "overlays (modprobe overlay)"),
    ];
    let lacks = lacks.iter().filter(|(lacks, _)| *lacks);
    let lacks: Vec<&str> = lacks.map(|(_, what)| *what).collect();
    let forbidden = kernel.no_userns.as_ref().filter(|_| !kernel.root);
    match (lacks.is_empty(), forbidden) {
        (true, None) => Finding::ok("kernel", "", "has what provider: local needs"),
        (false, _) => Finding::warn(
            "kernel",
            "",
            format!(
                "does not show {}: provider: local may not work",
                lacks.join(", ")
            ),
            "docs/local-provider.md has what it needs; provider: ec2 needs none of it",
        ),
        (true, Some((name, value))) => Finding::warn(
            "kernel",
            "",
            format!("{name} is {value}: provider: local does not work without root"),
            "docs/local-provider.md; or run the master as root. provider: ec2 does not need it",
        ),
    }
}

fn clock(is_kept: Option<bool>) -> Finding {
    match is_kept {
        Some(true) => Finding::ok("clock", "", "is kept by a time server"),
        Some(false) => Finding::warn(
            "clock",
            "",
            "is not kept by a time server: certificates and AWS's signatures go by it",
            "timedatectl set-ntp true",
        ),
        None => Finding::skipped(
            "clock",
            "timedatectl does not say whether a time server keeps it",
            "",
        ),
    }
}

#[cfg(test)]
mod tests;
