//! Which version of the Attach protocol a session speaks: the highest that both sides know. The agent offers a range in Hello,
//! the master picks and says it in Welcome; both ask the functions here. Pure.

use std::fmt;

use crate::limits::{OLDEST_PROTOCOL, PROTOCOL};
use crate::v1::{Hello, Welcome};

/// The first version whose agents know `OpenTunnel`.
pub const FORWARDS: u32 = 5;

/// The first version whose agents know `StartRun.secrets`.
pub const SECRETS: u32 = 6;

/// The first version whose agents know `StartRun.machine_secrets`.
pub const MACHINE_SECRETS: u32 = 7;

/// Versions of the Attach protocol that one side speaks: from `oldest` to `newest`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The lowest number.
    pub oldest: u32,
    /// The highest number.
    pub newest: u32,
}

/// A master and an agent that have no version in common, and who is to be upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent speaks version {agent} of the protocol, the master version {master}: upgrade the {}, see \
     docs/upgrade-uninstall.md",
    if agent.newest < master.oldest { "agent" } else { "master" }
)]
pub struct NoCommonVersion {
    /// What the agent speaks.
    pub agent: ProtocolRange,
    /// What the master speaks.
    pub master: ProtocolRange,
}

/// A master that picked a version which was not offered to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the master picked version {picked} of the protocol, the agent speaks version {agent}: upgrade both, see \
     docs/upgrade-uninstall.md"
)]
pub struct NotOffered {
    /// What the master picked.
    pub picked: u32,
    /// What the agent speaks.
    pub agent: ProtocolRange,
}

impl ProtocolRange {
    /// What this build speaks.
    pub const OURS: Self = Self {
        oldest: OLDEST_PROTOCOL,
        newest: PROTOCOL,
    };

    /// What an agent offers. One that knows no ranges names its only version.
    #[must_use]
    pub fn offered(hello: &Hello) -> Self {
        match hello.newest_protocol {
            0 => Self {
                oldest: hello.protocol,
                newest: hello.protocol,
            },
            newest => Self {
                oldest: hello.oldest_protocol,
                newest,
            },
        }
    }

    /// A Hello that offers this range, empty but for that. A master that knows no ranges reads `protocol` and takes only its
    /// own number there: such masters are old, so that is the oldest.
    #[must_use]
    pub fn hello(self) -> Hello {
        Hello {
            protocol: self.oldest,
            oldest_protocol: self.oldest,
            newest_protocol: self.newest,
            ..Hello::default()
        }
    }

    /// As a master that speaks this: the version to speak with an agent that offers `agent`.
    ///
    /// # Errors
    /// When there is none in both ranges.
    pub fn pick(self, agent: Self) -> Result<u32, NoCommonVersion> {
        let newest = self.newest.min(agent.newest);
        if newest < self.oldest.max(agent.oldest) {
            return Err(NoCommonVersion {
                agent,
                master: self,
            });
        }
        Ok(newest)
    }

    /// As an agent that has offered this: the version that the master picked. One that knows no ranges says none, and
    /// has taken what `protocol` said.
    ///
    /// # Errors
    /// When it was not offered.
    pub fn picked(self, welcome: &Welcome) -> Result<u32, NotOffered> {
        match welcome.protocol {
            0 => Ok(self.oldest),
            picked if (self.oldest..=self.newest).contains(&picked) => Ok(picked),
            picked => Err(NotOffered {
                picked,
                agent: self,
            }),
        }
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "{}", self.newest);
        }
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u32, newest: u32) -> ProtocolRange {
        ProtocolRange { oldest, newest }
    }

    #[test]
    fn the_highest_version_of_both_is_picked() {
        for (master, agent, wanted) in [
            ((3, 3), (3, 3), Some(3)),
            ((3, 5), (3, 3), Some(3)),
            ((3, 3), (3, 5), Some(3)),
            ((3, 5), (4, 9), Some(5)),
            ((4, 9), (3, 5), Some(5)),
            ((3, 9), (4, 5), Some(5)),
            ((3, 4), (5, 6), None),
            ((5, 6), (3, 4), None),
            ((1, u32::MAX), (u32::MAX, u32::MAX), Some(u32::MAX)),
            // Of an agent that is broken, or lies.
            ((3, 5), (0, 0), None),
            ((3, 5), (5, 3), None),
            ((3, 5), (u32::MAX, 4), None),
        ] {
            let (master, agent) = (range(master.0, master.1), range(agent.0, agent.1));
            let picked = master.pick(agent);
            assert_eq!(picked.ok(), wanted, "master {master}, agent {agent}");
        }
    }

    #[test]
    fn a_refusal_names_both_ranges_and_who_is_to_be_upgraded() {
        for (master, agent, wanted) in [
            (
                (4, 5),
                (3, 3),
                "the agent speaks version 3 of the protocol, the master version 4 to 5: upgrade the agent, see \
                 docs/upgrade-uninstall.md",
            ),
            (
                (3, 3),
                (4, 5),
                "the agent speaks version 4 to 5 of the protocol, the master version 3: upgrade the master, see \
                 docs/upgrade-uninstall.md",
            ),
        ] {
            let refused = range(master.0, master.1).pick(range(agent.0, agent.1));
            assert_eq!(refused.expect_err("too far apart").to_string(), wanted);
        }
    }

    #[test]
    fn an_offer_is_read_as_it_was_made_and_one_number_is_a_range() {
        for offer in [range(3, 3), range(3, 5)] {
            assert_eq!(ProtocolRange::offered(&offer.hello()), offer);
            // What a master reads that knows no ranges.
            assert_eq!(offer.hello().protocol, offer.oldest);
        }
        let old = Hello {
            protocol: 3,
            ..Hello::default()
        };
        assert_eq!(ProtocolRange::offered(&old), range(3, 3));
    }

    #[test]
    fn an_agent_takes_only_a_version_that_it_offered() {
        let offer = range(3, 5);
        for (protocol, wanted) in [
            (3, Some(3)),
            (5, Some(5)),
            (0, Some(3)), // of a master that knows no ranges
            (2, None),
            (6, None),
        ] {
            let welcome = Welcome {
                protocol,
                ..Welcome::default()
            };
            assert_eq!(offer.picked(&welcome).ok(), wanted, "{protocol}");
        }
        let welcome = Welcome {
            protocol: 6,
            ..Welcome::default()
        };
        let why = offer.picked(&welcome).expect_err("not offered").to_string();
        assert!(why.contains("version 6") && why.contains("3 to 5"), "{why}");
    }

    #[test]
    fn our_own_range_is_one() {
        let ours = ProtocolRange::OURS;
        assert_eq!(ours.pick(ours), Ok(PROTOCOL));
    }
}
