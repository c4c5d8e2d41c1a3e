//! What is wrong with this master, with what it stands on and with what its clusters need, for `aot-master doctor`. Asks, and
//! changes nothing; what an answer means is decided in the functions below `impl`.

mod clocks;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use aot_model::spec::ProviderKind;
use aot_model::world::World;
use aot_proto::plural;
use aot_proto::v1::{ExamineReply, Finding};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::OperatorApi;
use crate::run::ask::Checks;

/// How long an address that agents dial may take to answer.
const DIAL: Duration = Duration::from_secs(5);

/// How long an agent that is handed out may take to say its version.
const VERSION: Duration = Duration::from_secs(5);

/// Clusters whose providers are asked at once.
const AT_ONCE: usize = 4;

/// Variables by which a process is given credentials of AWS (AWS SDKs and Tools Reference Guide, "Settings reference").
const CREDENTIALS: [&str; 5] = [
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

impl OperatorApi {
    /// All that is looked at, in the order in which it is read.
    pub(super) async fn do_examine(&self) -> ExamineReply {
        let (ports, files, providers) =
            tokio::join!(self.ports(), self.agent_file(), self.providers());
        let mut findings = self.own();
        findings.extend(ports);
        findings.push(clocks::of_machines(&self.registry.clocks()));
        findings.extend(self.store.clock().map(clocks::of_store));
        findings.push(files);
        findings.extend(providers);
        ExamineReply { findings }
    }

    fn own(&self) -> Vec<Finding> {
        let records = match self.away() {
            Some(away) => Finding::fail(
                "records",
                "",
                away,
                "see docs/postgresql.md: what happens when something is away",
            ),
            None => Finding::ok("records", "", "can be written"),
        };
        let disk = match self.room.check_now() {
            Err(full) => Finding::fail(
                "disk",
                "",
                full.to_string(),
                "remove what is not needed there",
            ),
            Ok(()) => Finding::ok("disk", "", "more is free than is kept in reserve"),
        };
        let notes = self.lesser_notes().into_iter();
        let notes =
            notes.map(|note| Finding::warn("master", "", note, "aot-master status shows it too"));
        [records, disk].into_iter().chain(notes).collect()
    }

    /// Whether somebody answers where agents dial.
    async fn ports(&self) -> Vec<Finding> {
        let addresses = self.ways.finder.addresses(&self.info.advertise);
        let is_used = self.registry.len() > 0;
        let on_ec2 = self.is_on_ec2();
        let dialled = futures::stream::iter(addresses.iter()).then(|address| async move {
            let dialled = timeout(DIAL, TcpStream::connect(address)).await;
            let reached = match dialled {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", DIAL.as_secs())),
            };
            port(address, reached, is_used, on_ec2)
        });
        dialled.collect().await
    }

    /// Whether one of this master's clusters is on EC2.
    fn is_on_ec2(&self) -> bool {
        let is_on_ec2 = |world: &World| {
            let mut all = world.clusters.values();
            all.any(|cluster| cluster.spec.provider == ProviderKind::Ec2)
        };
        self.engine.read_each(is_on_ec2).contains(&true)
    }

    /// Which agent is handed out to machines like this host.
    async fn agent_file(&self) -> Finding {
        let current = self.agents.current();
        let path = self.agents.own_path(current);
        let asked = Command::new(path)
            .arg("version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let said = match timeout(VERSION, asked).await {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Ok(Err(error)) => format!("does not start: {error}"),
            Err(_) => "does not say its version in time".to_owned(),
        };
        let kinds: Vec<&str> = current.keys().map(String::as_str).collect();
        agent_file(&said, &self.info.version, &kinds)
    }

    /// Whether each cluster's provider would take a machine of each of its pools now, by the checks of a launch.
    async fn providers(&self) -> Vec<Finding> {
        let clusters = |world: &World| -> Vec<Checks> {
            let all = world.clusters.values();
            all.map(|cluster| Checks {
                cluster: Some(cluster.reference()),
                known: cluster.prerequisites.clone(),
                missing: one_each(&cluster.spec),
                spec: cluster.spec.clone(),
                advertise: self.ways.finder.addresses(&self.info.advertise),
                user_parts: BTreeMap::new(),
                agents: self.agents.current().clone(),
            })
            .collect()
        };
        let asked = self.engine.read_each(clusters).into_iter().flatten();
        let found = futures::stream::iter(asked.collect::<Vec<_>>())
            .map(|checks| self.provider(checks))
            .buffered(AT_ONCE);
        let mut findings = found.collect::<Vec<_>>().await.concat();
        if !self.is_on_ec2() {
            findings.extend(self.account().await);
        }
        findings
    }

    async fn provider(&self, checks: Checks) -> Vec<Finding> {
        let (check, name) = (
            checks.spec.provider.to_string(),
            checks.spec.name.to_string(),
        );
        let check = &*check;
        match self.lookups.checks(checks, false).await {
            Ok((problems, _)) if problems.is_empty() => {
                vec![Finding::ok(
                    check,
                    &name,
                    "another machine of each pool could be launched",
                )]
            }
            Ok((problems, _)) => {
                let each = problems.into_iter();
                each.map(|it| Finding::fail(check, &name, it.message, &it.hint))
                    .collect()
            }
            Err(error) => vec![Finding::fail(
                check,
                &name,
                format!("cannot be asked: {error}"),
                "aot-master -v doctor shows the calls",
            )],
        }
    }

    /// Whether EC2 answers, where this master has AWS settings and no cluster there yet.
    async fn account(&self) -> Option<Finding> {
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        CREDENTIALS.iter().find(|name| is_set(name))?;
        let asked = self.lookups.tagged(ProviderKind::Ec2, None).await;
        Some(match asked {
            Ok(found) => Finding::ok(
                "ec2",
                "",
                format!(
                    "takes this master's AWS settings; {} with a tag of aot there",
                    plural::count(found.len(), "resource")
                ),
            ),
            Err(error) => Finding::fail(
                "ec2",
                "",
                format!("cannot be asked with this master's AWS settings: {error}"),
                "set AWS_PROFILE and AWS_REGION, then aot-master restart; the permissions are in docs/ec2.md",
            ),
        })
    }
}

/// A machine more of each pool.
fn one_each(spec: &aot_model::spec::ClusterSpec) -> BTreeMap<String, usize> {
    let pools = spec.pools.iter();
    pools.map(|pool| (pool.label().to_owned(), 1)).collect()
}

/// What a try of an address means. Where agents have sessions, it may well be this host alone that does not reach it.
fn port(address: &str, reached: Result<(), String>, is_used: bool, on_ec2: bool) -> Finding {
    const PORTS: &str = "ports";
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match reached {
        _ if is_loopback && on_ec2 => Finding::fail(
            PORTS,
            address,
            "agents are told to dial this address, which no machine of EC2 reaches",
            "aot-master restart --listen 0.0.0.0:7440 --advertise HOST:7440",
        ),
        Ok(()) => Finding::ok(PORTS, address, "answers here, where agents dial"),
        Err(why) if is_used => Finding::warn(
            PORTS,
            address,
            format!("agents dial this address, and this host does not reach it: {why}"),
            "agents are connected, so they may; see that another --advertise is not meant",
        ),
        Err(why) => Finding::fail(
            PORTS,
            address,
            format!("agents are told to dial this address, and nobody answers there: {why}"),
            "correct --advertise (aot-master restart --advertise HOST:PORT), or let the firewall pass it",
        ),
    }
}

/// What an agent that is handed out says of itself, beside the master's version.
fn agent_file(said: &str, version: &str, kinds: &[&str]) -> Finding {
    const AGENTS: &str = "agent files";
    let kinds = kinds.join(", ");
    match said.strip_prefix("aot-agent ") {
        Some(theirs) if theirs == version => Finding::ok(
            AGENTS,
            "",
            format!("aot-agent {theirs} is handed out, for {kinds}"),
        ),
        Some(theirs) => Finding::warn(
            AGENTS,
            "",
            format!("aot-agent {theirs} is handed out by a master of version {version}"),
            "put the agents of the master's version into AOT_AGENT_DIR, and restart the master",
        ),
        None => Finding::fail(
            AGENTS,
            "",
            format!("the agent that is handed out is not one: it {said}"),
            "build it (packaging/agents.sh), name its folder in AOT_AGENT_DIR, and restart the master",
        ),
    }
}

#[cfg(test)]
mod tests {
    use aot_proto::v1::FindingLevel;

    use super::*;

    fn level(finding: &Finding) -> &'static str {
        FindingLevel::name_of(finding.level)
    }

    #[test]
    fn an_address_is_judged_by_who_needs_it() {
        let refused = || Err("refused".to_owned());
        for (address, reached, is_used, on_ec2, wanted) in [
            ("10.0.0.5:7440", Ok(()), false, true, "ok"),
            ("10.0.0.5:7440", refused(), true, true, "warn"),
            ("10.0.0.5:7440", refused(), false, false, "fail"),
            ("127.0.0.1:7440", Ok(()), true, false, "ok"),
            ("127.0.0.1:7440", Ok(()), true, true, "fail"),
            ("[::1]:7440", Ok(()), false, true, "fail"),
            ("localhost:7440", Ok(()), false, true, "fail"),
        ] {
            let finding = port(address, reached, is_used, on_ec2);
            assert_eq!(level(&finding), wanted, "{address}: {finding:?}");
            assert_eq!(finding.hint.is_empty(), wanted == "ok", "{finding:?}");
        }
    }

    #[test]
    fn an_agent_of_another_version_is_seen_before_it_is_handed_out() {
        for (said, wanted) in [
            ("aot-agent 0.1.0", "ok"),
            ("aot-agent 0.0.9", "warn"),
            ("does not start: exec format error", "fail"),
            ("", "fail"),
        ] {
            let finding = agent_file(said, "0.1.0", &["aarch64", "x86_64"]);
            assert_eq!(level(&finding), wanted, "{finding:?}");
        }
    }
}
