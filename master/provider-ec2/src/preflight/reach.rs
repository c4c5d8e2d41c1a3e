//! Whether machines can reach the master at the addresses that it advertises. Pure; called by `preflight` before
//! anything is paid for. Never opens a connection: what is reachable from here says nothing of there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A network in CIDR form (RFC 4632, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    length: u8,
}

impl Network {
    /// Reads `10.0.0.0/8` or `fd00::/8`; `None` when it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let (base, length) = (base.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
        (length <= if base.is_ipv4() { 32 } else { 128 }).then_some(Self { base, length })
    }

    /// Whether the address lies in it.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let (base, other, bits) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(other)) => {
                (u128::from(base.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(other)) => (base.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let tail = bits - u32::from(self.length);
        // A shift by all 128 bits would overflow.
        base.checked_shr(tail).unwrap_or(0) == other.checked_shr(tail).unwrap_or(0)
    }
}

/// Where machines will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolSubnet {
    /// For a person: `subnet-1`.
    pub name: String,
    /// Networks of its VPC.
    pub networks: Vec<Network>,
    /// Machines get public addresses there.
    pub public: bool,
}

/// Why an address can't be dialled from a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// 127.0.0.0/8, ::1, localhost: every machine's own.
    Loopback,
    /// 0.0.0.0, `::`: no address at all.
    Unspecified,
    /// 169.254.0.0/16, fe80::/10: of one link.
    LinkLocal,
    /// Multicast or broadcast.
    Group,
    /// Private (RFC 1918, RFC 6598, RFC 4193), in no network of the VPC, and the machines are on the public side.
    Private,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "is a loopback address, which is a machine's own",
            Self::Unspecified => "is not an address that can be dialled",
            Self::LinkLocal => "is a link-local address",
            Self::Group => "is not the address of a single machine",
            Self::Private => {
                "is private and outside the VPC, while the machines get public addresses"
            }
        })
    }
}

/// What stands in the way of machines there that dial this `host:port`; `None` = nothing that can be known. Names are
/// taken as they are: they may mean something else there.
pub(crate) fn judge(advertised: &str, subnet: &PoolSubnet) -> Option<Unreachable> {
    let address = match host(advertised) {
        Host::Address(address) => address.to_canonical(),
        Host::Localhost => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Name => return None,
    };
    let inside = subnet.networks.iter().any(|network| network.holds(address));
    if address.is_unspecified() {
        return Some(Unreachable::Unspecified);
    }
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some(Unreachable::Group);
    }
    if inside {
        return None;
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_loopback() => Some(Unreachable::Loopback),
        _ if link_local => Some(Unreachable::LinkLocal),
        _ if subnet.public && is_private(address) => Some(Unreachable::Private),
        _ => None,
    }
}

/// The first subnet from which none of the addresses can be reached, and why. One usable address is enough; agents try
/// all in turn.
pub(crate) fn unreachable<'p>(
    advertise: &[String],
    subnets: &'p [PoolSubnet],
) -> Option<(&'p PoolSubnet, String)> {
    subnets.iter().find_map(|subnet| {
        let mut reasons = Vec::with_capacity(advertise.len());
        for address in advertise {
            reasons.push(format!("{address} {}", judge(address, subnet)?));
        }
        Some((subnet, reasons.join("; ")))
    })
}

enum Host {
    Address(IpAddr),
    Localhost,
    Name,
}

fn host(advertised: &str) -> Host {
    if let Ok(address) = advertised.parse::<SocketAddr>() {
        return Host::Address(address.ip());
    }
    let name = advertised
        .rsplit_once(':')
        .map_or(advertised, |(host, _)| host);
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Host::Address(address);
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Host::Localhost;
    }
    Host::Name
}

fn is_private(address: IpAddr) -> bool {
    match address {
        // RFC 6598: 100.64.0.0/10.
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => Ipv6Addr::is_unique_local(&v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(networks: &[&str], public: bool) -> PoolSubnet {
        PoolSubnet {
            name: "subnet-1".into(),
            networks: networks
                .iter()
                .map(|text| Network::parse(text).unwrap())
                .collect(),
            public,
        }
    }

    #[test]
    fn who_can_dial_what() {
        use Unreachable::*;
        let vpc = ["10.0.0.0/16", "2001:db8::/56"];
        let test_region = ["127.50.0.0/16"];
        for (address, networks, public, why) in [
            ("127.0.0.1:7440", &vpc[..], true, Some(Loopback)),
            ("127.0.0.1:7440", &vpc, false, Some(Loopback)),
            ("[::1]:7440", &vpc, true, Some(Loopback)),
            ("[::ffff:127.0.0.1]:7440", &vpc, true, Some(Loopback)),
            ("localhost:7440", &vpc, true, Some(Loopback)),
            ("LOCALHOST.:7440", &vpc, true, Some(Loopback)),
            ("127.50.1.1:7440", &test_region, true, None),
            ("127.0.0.1:7440", &test_region, true, Some(Loopback)),
            ("0.0.0.0:7440", &vpc, false, Some(Unspecified)),
            ("[::]:7440", &vpc, false, Some(Unspecified)),
            ("0.0.0.0:7440", &["0.0.0.0/0"], false, Some(Unspecified)),
            ("169.254.169.254:80", &vpc, false, Some(LinkLocal)),
            ("[fe80::1]:7440", &vpc, false, Some(LinkLocal)),
            ("224.0.0.1:7440", &vpc, false, Some(Group)),
            ("255.255.255.255:7440", &vpc, false, Some(Group)),
            ("10.0.3.4:7440", &vpc, true, None),
            ("10.1.3.4:7440", &vpc, true, Some(Private)),
            ("10.1.3.4:7440", &vpc, false, None),
            ("192.168.1.1:7440", &vpc, true, Some(Private)),
            ("172.16.0.1:7440", &vpc, true, Some(Private)),
            ("172.32.0.1:7440", &vpc, true, None),
            ("100.64.0.1:7440", &vpc, true, Some(Private)),
            ("100.127.255.1:7440", &vpc, true, Some(Private)),
            ("100.128.0.1:7440", &vpc, true, None),
            ("[fd00::1]:7440", &vpc, true, Some(Private)),
            ("[fd00::1]:7440", &vpc, false, None),
            ("[2001:db8::1]:7440", &vpc, true, None),
            ("198.51.100.1:7440", &vpc, true, None),
            ("master.example.com:7440", &vpc, true, None),
            ("10.1.3.4", &vpc, true, Some(Private)),
        ] {
            assert_eq!(judge(address, &subnet(networks, public)), why, "{address}");
        }
    }

    #[test]
    fn one_usable_address_is_enough() {
        let subnets = [subnet(&["10.0.0.0/16"], true)];
        let list = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            unreachable(&list(&["127.0.0.1:1", "198.51.100.1:1"]), &subnets),
            None
        );
        let (_, why) = unreachable(&list(&["127.0.0.1:1", "192.168.0.1:1"]), &subnets).unwrap();
        assert!(
            why.contains("127.0.0.1:1 is a loopback") && why.contains("192.168.0.1:1 is private"),
            "{why}"
        );
        assert_eq!(unreachable(&list(&["127.0.0.1:1"]), &[]), None);
    }

    #[test]
    fn what_is_not_a_network() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "x/8",
            "10.0.0.0/",
            "",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        assert!(
            Network::parse("0.0.0.0/0")
                .unwrap()
                .holds("9.9.9.9".parse().unwrap())
        );
        assert!(
            !Network::parse("0.0.0.0/0")
                .unwrap()
                .holds("::1".parse().unwrap())
        );
        assert!(
            Network::parse("::/0")
                .unwrap()
                .holds("fd00::1".parse().unwrap())
        );
    }

    proptest! {
        #[test]
        fn a_network_holds_itself_and_not_its_neighbour(bits: u32, length in 1u8..=32) {
            let address = Ipv4Addr::from_bits(bits);
            let network = Network::parse(&format!("{address}/{length}")).unwrap();
            prop_assert!(network.holds(address.into()));
            let neighbour = Ipv4Addr::from_bits(bits ^ (1 << (32 - u32::from(length))));
            prop_assert!(!network.holds(neighbour.into()));
        }
    }
}
