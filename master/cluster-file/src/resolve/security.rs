//! Security groups that the cluster wants to exist.

use std::net::IpAddr;

use aot_model::spec::{GroupAction, InboundRule, SecurityGroupSpec};

use super::{Build, text};
use crate::raw::{RawFile, RawGroup, RawRule};
use crate::read::{Located, Text};

impl Build {
    pub(super) fn security_groups(&mut self, raw: &RawFile) -> Vec<SecurityGroupSpec> {
        let mut groups: Vec<SecurityGroupSpec> = Vec::new();
        for group in raw.security_groups.iter().flat_map(|list| &list.value) {
            let Some(name) = &group.name else { continue };
            let text = &name.value.0;
            if groups.iter().any(|before| &before.name == text) {
                self.problems.push(
                    name.at
                        .problem(format!("there are two security groups called {text:?}")),
                );
            }
            // AuthorizeSecurityGroupIngress and CreateSecurityGroup: at most 255 characters, not sg-...
            if text.len() > 255 || text.starts_with("sg-") {
                let problem = name
                    .at
                    .problem(format!("{text:?} can't be the name of a group"));
                self.problems
                    .push(problem.help("at most 255 characters, not starting with sg-"));
            }
            let spec = self.security_group(text.clone(), group);
            groups.push(spec);
        }
        groups
    }

    fn security_group(&mut self, name: String, raw: &RawGroup) -> SecurityGroupSpec {
        let words = [
            ("create", GroupAction::Create),
            ("find", GroupAction::Find),
            ("find_or_create", GroupAction::FindOrCreate),
        ];
        let action = self
            .one_of(raw.action.as_ref(), &words)
            .unwrap_or(GroupAction::FindOrCreate);
        let has_rules = raw.allow_all_own_traffic.is_some()
            || raw.allow_ssh_from.is_some()
            || raw.allow_inbound.is_some();
        if let Some(given) = raw
            .action
            .as_ref()
            .filter(|_| action == GroupAction::Find && has_rules)
        {
            let problem = given
                .at
                .problem("find leaves the group as it is, but rules are given");
            self.problems
                .push(problem.help("remove the rules, or use find_or_create"));
        }
        let ssh = raw.allow_ssh_from.iter().flat_map(|list| &list.value.0);
        let allow_ssh_from = ssh.map(|network| self.network(network)).collect();
        let inbound = raw.allow_inbound.iter().flat_map(|list| &list.value);
        SecurityGroupSpec {
            name,
            action,
            allow_all_own_traffic: raw
                .allow_all_own_traffic
                .as_ref()
                .is_some_and(|allow| allow.value),
            allow_ssh_from,
            allow_inbound: inbound.filter_map(|rule| self.rule(rule)).collect(),
        }
    }

    fn rule(&mut self, raw: &RawRule) -> Option<InboundRule> {
        let given = raw.protocol.as_ref()?;
        let as_text = Located {
            value: Text(given.value.0.clone()),
            at: given.at.clone(),
        };
        let words = [
            ("tcp", "tcp"),
            ("udp", "udp"),
            ("icmp", "icmp"),
            ("icmpv6", "icmpv6"),
            ("all", "-1"),
            ("-1", "-1"),
        ];
        let protocol = self.one_of(Some(&as_text), &words)?;
        let source = match (&raw.ip, &raw.group) {
            (Some(_), None) | (None, Some(_)) => None,
            (Some(_), Some(group)) => Some(
                group
                    .at
                    .problem("both ip and group are given")
                    .help("write two rules"),
            ),
            (None, None) => Some(
                given
                    .at
                    .problem("the rule has no source")
                    .help("add `ip: 10.0.0.0/8`, or `group:`"),
            ),
        };
        self.problems.extend(source);
        let (from_port, to_port) = self.ports(raw, protocol);
        Some(InboundRule {
            protocol: protocol.to_owned(),
            from_port,
            to_port,
            ip: raw.ip.as_ref().map(|network| self.network(network)),
            group: text(&raw.group),
        })
    }

    fn ports(&mut self, raw: &RawRule, protocol: &str) -> (Option<u16>, Option<u16>) {
        let from = self.bounded(raw.from_port.as_ref(), 0, 65_535, "");
        let to = self.bounded(raw.to_port.as_ref(), 0, 65_535, "");
        // ICMP's type and code are not a range: a code may be less, and none is any.
        let icmp = protocol.starts_with("icmp");
        let to = if icmp { to } else { to.or(from) };
        if let Some(given) = raw.from_port.as_ref().or(raw.to_port.as_ref()) {
            if from.is_none() || (from > to && !icmp) {
                self.problems.push(
                    given
                        .at
                        .problem("needs from_port, and to_port not below it"),
                );
            }
            if protocol == "-1" {
                self.problems
                    .push(given.at.problem("a rule for all protocols has no ports"));
            }
        }
        // Out of range is a problem already.
        let port = |port: Option<u32>| port.and_then(|port| u16::try_from(port).ok());
        (port(from), port(to))
    }

    /// A network in CIDR form; an address alone is that one host.
    fn network(&mut self, given: &Located<Text>) -> String {
        let text = &given.value.0;
        match network(text) {
            Some(network) => network,
            None => {
                let problem = given.at.problem(format!("{text:?} is not a network"));
                self.problems
                    .push(problem.help("as in 10.0.0.0/8 or 2001:db8::/32"));
                text.clone()
            }
        }
    }
}

fn network(text: &str) -> Option<String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    (length <= most).then(|| format!("{address}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cidr() {
        assert_eq!(network("0.0.0.0/0").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(network("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(network("2001:db8::/32").as_deref(), Some("2001:db8::/32"));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "host",
            "10.0.0.0/-1",
        ] {
            assert_eq!(network(bad), None, "{bad:?}");
        }
    }
}
