//! What a region has that a launch could use, as far as it was asked for.

use super::reach::Network;

/// A subnet that machines may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SubnetAnswer {
    pub id: String,
    pub vpc: String,
    pub zone: String,
    /// Addresses that are free.
    pub free: usize,
    /// It can be used.
    pub available: bool,
    /// Machines get public addresses there unless said.
    pub public: bool,
    /// Machines have no IPv4 address there.
    pub ipv6_only: bool,
}

/// A VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Net {
    /// The region's default one.
    pub default: bool,
    pub networks: Vec<Network>,
}
