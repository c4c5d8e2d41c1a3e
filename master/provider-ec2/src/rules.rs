//! Inbound rules of security groups, in one form whatever they were written in. Pure; called by `groups`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aot_model::spec::{InboundRule, SecurityGroupSpec};
use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range, UserIdGroupPair};

/// Protocols that have names in the API (IANA, "Protocol Numbers").
const NAMES: [(&str, i32); 5] = [
    ("-1", ALL),
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("icmpv6", 58),
];
const ALL: i32 = -1;
const SSH: i32 = 22;
/// No ports, or each of them.
const ANY: (i32, i32) = (-1, -1);

/// One thing that may come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    /// IANA's number; -1 is all.
    pub protocol: i32,
    /// First and last port; for ICMP its type and code, -1 is any.
    pub ports: (i32, i32),
    /// From where.
    pub source: RuleSource,
}

/// Where something may come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RuleSource {
    /// Network and its length.
    V4(Ipv4Addr, u8),
    /// Network and its length.
    V6(Ipv6Addr, u8),
    /// Id of a group; the name of one that is not there yet.
    Group(String),
}

impl Rule {
    /// Id of the group that it lets in.
    pub(crate) fn group(&self) -> Option<&str> {
        match &self.source {
            RuleSource::Group(id) => Some(id),
            RuleSource::V4(..) | RuleSource::V6(..) => None,
        }
    }
}

/// Why a rule can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not a network.
    #[error("{0:?} is not a network as in 10.0.0.0/8 or 2001:db8::/32")]
    Network(String),
    /// Not a protocol.
    #[error("{0:?} is not a protocol: tcp, udp, icmp, icmpv6, -1 or a number")]
    Protocol(String),
    /// Neither network nor group.
    #[error("a rule has no source: it needs `ip` or `group`")]
    NoSource,
}

/// The rules that the file wants of a group; `own` is its id, `group` finds the id of another by the file's text.
///
/// # Errors
/// When one can't be read.
pub(crate) fn wanted(
    spec: &SecurityGroupSpec,
    own: &str,
    group: impl Fn(&str) -> String,
) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    if spec.allow_all_own_traffic {
        rules.push(Rule {
            protocol: ALL,
            ports: ANY,
            source: RuleSource::Group(own.to_owned()),
        });
    }
    for cidr in &spec.allow_ssh_from {
        rules.push(Rule {
            protocol: 6,
            ports: (SSH, SSH),
            source: network(cidr)?,
        });
    }
    for rule in &spec.allow_inbound {
        rules.push(inbound(rule, &group)?);
    }
    Ok(rules)
}

fn inbound(rule: &InboundRule, group: &impl Fn(&str) -> String) -> Result<Rule, Error> {
    let protocol = protocol(&rule.protocol)?;
    let from = rule.from_port.map(i32::from);
    let to = rule.to_port.map(i32::from);
    let ports = match (protocol, from) {
        (6 | 17, None) => (0, 65_535),
        (6 | 17, Some(from)) => (from, to.unwrap_or(from)),
        (1 | 58, Some(kind)) => (kind, to.unwrap_or(-1)),
        _ => ANY,
    };
    let source = match (&rule.ip, &rule.group) {
        (Some(ip), _) => network(ip)?,
        (None, Some(text)) => RuleSource::Group(group(text)),
        (None, None) => return Err(Error::NoSource),
    };
    Ok(Rule {
        protocol,
        ports,
        source,
    })
}

fn protocol(text: &str) -> Result<i32, Error> {
    let lower = text.to_ascii_lowercase();
    let name = NAMES.iter().find(|(name, _)| *name == lower);
    let number = name.map(|(_, number)| *number).or_else(|| {
        if lower == "all" {
            return Some(ALL);
        }
        lower
            .parse()
            .ok()
            .filter(|number| (0..256).contains(number))
    });
    number.ok_or_else(|| Error::Protocol(text.to_owned()))
}

/// A network without its host part, as EC2 keeps it; an address alone is one host.
fn network(text: &str) -> Result<RuleSource, Error> {
    let bad = || Error::Network(text.to_owned());
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| bad())?)),
        None => (text, None),
    };
    match address.trim().parse().map_err(|_| bad())? {
        IpAddr::V4(address) => {
            let length = length.unwrap_or(32);
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            let network = Ipv4Addr::from_bits(address.to_bits() & !host);
            (length <= 32).then_some(RuleSource::V4(network, length))
        }
        IpAddr::V6(address) => {
            let length = length.unwrap_or(128);
            let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            let network = Ipv6Addr::from_bits(address.to_bits() & !host);
            (length <= 128).then_some(RuleSource::V6(network, length))
        }
    }
    .ok_or_else(bad)
}

/// The rules that EC2 shows of a group. Prefix lists, and what can't be read, are left out: they cover nothing.
pub(crate) fn shown(permissions: &[IpPermission]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for permission in permissions {
        let Ok(protocol) = protocol(permission.ip_protocol().unwrap_or_default()) else {
            continue;
        };
        let ports = match (protocol, permission.from_port(), permission.to_port()) {
            (ALL, ..) => ANY,
            (6 | 17, Some(-1) | None, _) => (0, 65_535),
            (_, from, to) => (from.unwrap_or(-1), to.unwrap_or(-1)),
        };
        let networks = permission
            .ip_ranges()
            .iter()
            .filter_map(IpRange::cidr_ip)
            .chain(
                permission
                    .ipv6_ranges()
                    .iter()
                    .filter_map(Ipv6Range::cidr_ipv6),
            );
        let networks = networks.filter_map(|text| network(text).ok());
        let groups = permission
            .user_id_group_pairs()
            .iter()
            .filter_map(|pair| pair.group_id());
        let groups = groups.map(|id| RuleSource::Group(id.to_owned()));
        rules.extend(networks.chain(groups).map(|source| Rule {
            protocol,
            ports,
            source,
        }));
    }
    rules
}

impl Rule {
    /// Whether all that the other lets in comes in by this one. Sources must be the same: a wider network does not count.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self.source != other.source {
            return false;
        }
        if self.protocol == ALL {
            return true;
        }
        let (mine, its) = (self.ports, other.ports);
        self.protocol == other.protocol
            && match self.protocol {
                6 | 17 => mine.0 <= its.0 && its.1 <= mine.1,
                1 | 58 => mine.0 == -1 || (mine.0 == its.0 && (mine.1 == -1 || mine.1 == its.1)),
                _ => true,
            }
    }
}

/// The wanted rules that nothing covers, each once.
pub(crate) fn missing(wanted: &[Rule], have: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for rule in wanted {
        if !have.iter().any(|other| other.covers(rule)) {
            missing.retain(|other| !rule.covers(other));
            if !missing.iter().any(|other| other.covers(rule)) {
                missing.push(rule.clone());
            }
        }
    }
    missing
}

/// For AuthorizeSecurityGroupIngress: one entry for each protocol and range of ports, with all its sources.
pub(crate) fn permissions(rules: &[Rule]) -> Vec<IpPermission> {
    let mut by_ports: BTreeMap<(i32, (i32, i32)), Vec<&RuleSource>> = BTreeMap::new();
    for rule in rules {
        by_ports
            .entry((rule.protocol, rule.ports))
            .or_default()
            .push(&rule.source);
    }
    by_ports
        .into_iter()
        .map(|(what, sources)| permission(what, &sources))
        .collect()
}

fn permission((protocol, ports): (i32, (i32, i32)), sources: &[&RuleSource]) -> IpPermission {
    let mut permission = IpPermission::builder().ip_protocol(protocol_text(protocol));
    if matches!(protocol, 1 | 6 | 17 | 58) {
        permission = permission.from_port(ports.0).to_port(ports.1);
    }
    for source in sources {
        let text = source.to_string();
        permission = match source {
            RuleSource::V4(..) => permission.ip_ranges(IpRange::builder().cidr_ip(text).build()),
            RuleSource::V6(..) => {
                permission.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(text).build())
            }
            RuleSource::Group(_) => {
                permission.user_id_group_pairs(UserIdGroupPair::builder().group_id(text).build())
            }
        };
    }
    permission.build()
}

fn protocol_text(number: i32) -> String {
    let name = NAMES.iter().find(|(_, it)| *it == number);
    name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(network, length) => write!(f, "{network}/{length}"),
            Self::V6(network, length) => write!(f, "{network}/{length}"),
            Self::Group(text) => f.write_str(text),
        }
    }
}

/// For a person: `tcp 22 from 0.0.0.0/0`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.protocol, self.ports) {
            (ALL, _) => "all traffic".to_owned(),
            (protocol, (0, 65_535) | ANY) => format!("all {}", protocol_text(protocol)),
            (protocol @ (1 | 58), (kind, -1)) => format!("{} type {kind}", protocol_text(protocol)),
            (protocol @ (1 | 58), (kind, code)) => {
                format!("{} type {kind} code {code}", protocol_text(protocol))
            }
            (protocol, (from, to)) if from == to => format!("{} {from}", protocol_text(protocol)),
            (protocol, (from, to)) => format!("{} {from}-{to}", protocol_text(protocol)),
        };
        write!(f, "{what} from {}", self.source)
    }
}

#[cfg(test)]
mod tests;
