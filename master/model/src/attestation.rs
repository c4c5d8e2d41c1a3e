//! What a machine must prove before it gets a certificate, and whether it has: pure decisions, asked by `world`.
//!
//! A join token shows that somebody read the machine's user-data. An EC2 identity document, signed by AWS, shows which
//! machine that was; but a document can be copied and never expires. A challenge, a random value that the master sets as a
//! tag on the machine and the agent reads back from the metadata service, shows that the agent is on that machine now.

use std::fmt;
use std::time::{Duration, SystemTime};

use aot_proto::ids::MachineId;
use serde::{Deserialize, Serialize};

use super::machine::{Machine, MachineState};
pub use super::spec::Attestation;
use super::spec::{ClusterSpec, ProviderKind};

/// `auto` asks for challenges up to this many machines: each costs a CreateTags call of its own.
pub(crate) const MAX_AUTO_CHALLENGES: usize = 100;

/// How far AWS's clock may be ahead of ours.
const CLOCK_GRACE: Duration = Duration::from_secs(60);

/// How far `pendingTime` of a document and the launch time of DescribeInstances may differ: both are set by the same start
/// of the machine, a few seconds apart.
const LAUNCH_GRACE: Duration = Duration::from_secs(300);

/// What machines must prove besides holding their join token, and what one of them has proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Nothing else.
    #[default]
    Token,
    /// The signed identity document.
    Document,
    /// The challenge.
    Challenge,
    /// Document and challenge.
    Both,
}

impl Proof {
    /// As `--json` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Document => "document",
            Self::Challenge => "challenge",
            Self::Both => "both",
        }
    }

    /// For a person.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Token => "its token",
            Self::Document => "its identity document",
            Self::Challenge => "a challenge",
            Self::Both => "its identity document and a challenge",
        }
    }

    /// Whether a signed document is part of it.
    pub fn has_document(self) -> bool {
        matches!(self, Self::Document | Self::Both)
    }

    /// Whether an answered challenge is part of it.
    pub fn has_challenge(self) -> bool {
        matches!(self, Self::Challenge | Self::Both)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something is demanded that the machines of this launch could not prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unprovable {
    /// A document that nothing here could check.
    #[error(
        "attestation needs the identity document, and no certificate of {region} is there to verify it"
    )]
    NoCertificate {
        /// The cluster's region.
        region: String,
    },
    /// A challenge on machines whose metadata service could not show their tags.
    #[error(
        "attestation needs a challenge, and EC2 shows a machine its tags only without ones like {tag:?}"
    )]
    OddTag {
        /// The key of a tag in the file.
        tag: String,
    },
}

impl Unprovable {
    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            Self::NoCertificate { region } => format!(
                "save AWS's RSA-2048 certificate of the region (EC2 User Guide, \"AWS public certificates\") as {region}.pem, \
                 then `aot-master attestation import {region}.pem`; or set `attestation: challenge`"
            ),
            Self::OddTag { .. } => "name the tag with letters, digits and + - = . , _ : @ alone; or set `attestation: document`"
                .to_owned(),
        }
    }
}

/// The key of a tag in the file that keeps EC2 from showing machines their tags, if there is one (EC2 User Guide, "View
/// tags for your EC2 instances using instance metadata").
pub(crate) fn odd_tag(spec: &ClusterSpec) -> Option<&str> {
    let shown = |key: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "+-=.,_:@".contains(c);
        key.chars().all(good) && !matches!(key, "." | ".." | "_index")
    };
    let keys = spec.pools.iter().flat_map(|pool| pool.machine.tags.keys());
    keys.map(String::as_str).find(|key| !shown(key))
}

/// What is known of a launch when it is decided what its machines must prove.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Its region.
    pub region: &'a str,
    /// The region's certificate is there.
    pub certificate: bool,
    /// How many machines it makes.
    pub machines: usize,
}

/// What the machines of one launch must prove: decided once per launch, when its machines are first asked for.
///
/// # Errors
/// When the file demands what can't be proven: a document without the region's certificate, a challenge with tags that
/// keep EC2 from showing it.
pub fn demand(spec: &ClusterSpec, known: Circumstances<'_>) -> Result<Proof, Unprovable> {
    if spec.provider == ProviderKind::Local {
        return Ok(Proof::Token); // a clone has neither a document nor tags: it is a folder of this machine
    }
    let odd = odd_tag(spec);
    let proof = match spec.attestation {
        Attestation::Token => Proof::Token,
        Attestation::Challenge => Proof::Challenge,
        Attestation::Document => Proof::Document,
        Attestation::Both => Proof::Both,
        Attestation::Auto if known.certificate => Proof::Document,
        Attestation::Auto if known.machines <= MAX_AUTO_CHALLENGES && odd.is_none() => {
            Proof::Challenge
        }
        Attestation::Auto => Proof::Token,
    };
    match odd {
        _ if proof.has_document() && !known.certificate => Err(Unprovable::NoCertificate {
            region: known.region.to_owned(),
        }),
        Some(tag) if proof.has_challenge() => Err(Unprovable::OddTag {
            tag: tag.to_owned(),
        }),
        _ => Ok(proof),
    }
}

/// The warning about a launch whose machines prove nothing but their token; `None` where that is all there is.
pub fn warning(provider: ProviderKind, proof: Proof, region: &str) -> Option<String> {
    (provider == ProviderKind::Ec2 && proof == Proof::Token).then(|| {
        format!(
            "machines are admitted by their join token alone, which every process on them can read: \
             `aot-master attestation import {region}.pem` enables the check of their identity documents"
        )
    })
}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(
    /// The text.
    pub String,
);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What an identity document says, after its signature was found to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `accountId`.
    pub account: String,
    /// `region`.
    pub region: String,
    /// `instanceId`.
    pub machine: MachineId,
    /// `pendingTime`: when the machine was started.
    pub pending: SystemTime,
}

/// What came in place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownDocument {
    /// The agent sent none.
    Nothing,
    /// Something whose signature or form is not good, and why.
    Bad(String),
    /// A document that AWS signed.
    Signed(Document),
}

/// Why a document does not prove that a machine is the one that it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// None was sent.
    #[error("it sent no identity document, and the cluster demands one")]
    Missing,
    /// Not signed by AWS, not of its region, not a document.
    #[error("its identity document is not valid: {0}")]
    Bad(String),
    /// Of another region.
    #[error("its identity document is of region {0}, not of the cluster's")]
    OtherRegion(String),
    /// Of another machine.
    #[error("its identity document is that of {0}")]
    OtherMachine(MachineId),
    /// Of another account.
    #[error("its identity document is of account {0}, which is not the cluster's")]
    OtherAccount(String),
    /// The provider says that the machine does not run.
    #[error("its machine is {0}")]
    NotRunning(MachineState),
    /// From the future.
    #[error("its identity document has a start time in the future: the clocks differ")]
    Future,
    /// Of another start of this machine.
    #[error("its identity document is not of the machine's last start")]
    OtherStart,
}

/// What of a document can be judged without asking the provider: `region` is the cluster's.
///
/// # Errors
/// What is wrong with it.
pub fn judge<'a>(
    shown: &'a ShownDocument,
    region: &str,
    machine: &MachineId,
    now: SystemTime,
) -> Result<&'a Document, Flaw> {
    let document = match shown {
        ShownDocument::Nothing => return Err(Flaw::Missing),
        ShownDocument::Bad(why) => return Err(Flaw::Bad(why.clone())),
        ShownDocument::Signed(document) => document,
    };
    if document.region != region {
        return Err(Flaw::OtherRegion(document.region.clone()));
    }
    if &document.machine != machine {
        return Err(Flaw::OtherMachine(document.machine.clone()));
    }
    if document.pending > now + CLOCK_GRACE {
        return Err(Flaw::Future);
    }
    Ok(document)
}

/// The rest, by what the provider has just shown of the machine.
///
/// # Errors
/// What does not fit.
pub fn compare(document: &Document, machine: &Machine) -> Result<(), Flaw> {
    if machine.account.as_ref() != Some(&document.account) {
        return Err(Flaw::OtherAccount(document.account.clone()));
    }
    if !matches!(machine.state, MachineState::Pending | MachineState::Running) {
        return Err(Flaw::NotRunning(machine.state));
    }
    let apart = machine.launched_at.map(|launched| {
        let later = document.pending.duration_since(launched);
        later.unwrap_or_else(|earlier| earlier.duration())
    });
    match apart {
        Some(apart) if apart <= LAUNCH_GRACE => Ok(()),
        _ => Err(Flaw::OtherStart),
    }
}

#[cfg(test)]
mod tests;
