//! Who an agent is, as it is on record: its key and certificates, what it has yet to prove, and what was taken from it.
//! Decided by `world`; certificates themselves are made elsewhere, and no secret is in here.

use core::net::IpAddr; // an address; nothing in core::net does I/O

use aot_proto::ids::MachineId;
use serde::{Deserialize, Serialize};

use super::attestation::Proof;
use super::unix_ms::UnixMs;

/// Who enrolled as this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 of the public key (SubjectPublicKeyInfo), hex: a repeat with the same key is the same agent.
    pub key_sha256: String,
    /// The key before the last renewal: the answer to that one may have been lost, and then this is still the agent's.
    #[serde(default)]
    pub previous_key_sha256: String,
    /// When it first enrolled.
    pub enrolled_ms: UnixMs,
    /// Serial of the last certificate, hex.
    pub serial: String,
    /// When that one ends, seconds since 1970.
    pub expires_unix: u64,
    /// Serial of the certificate that asked for that one, or that it took the place of: the agent's until the new one has
    /// arrived. Empty once the new one was seen.
    #[serde(default)]
    pub previous_serial: String,
    /// When the last certificate was given out; 0 = before this was kept.
    #[serde(default)]
    pub issued_ms: UnixMs,
    /// That two processes held it at once, as last seen.
    #[serde(default)]
    pub used_twice: Option<UsedTwice>,
    /// What it has proven of itself.
    #[serde(default)]
    pub proof: Proof,
}

/// How long after a certificate was given out the one before it is still taken: until then the reply may have got lost.
pub(crate) const RENEWAL_MS: UnixMs = 60 * 60 * 1000;

impl Identity {
    /// Whether a certificate with this serial is this one's: the last one, or the one before it while the agent may not have
    /// the last one yet.
    pub fn certifies(&self, serial: &str, now: UnixMs) -> bool {
        let renewing = now.saturating_sub(self.issued_ms) < RENEWAL_MS;
        let previous = !self.previous_serial.is_empty() && self.previous_serial == serial;
        self.serial == serial || (previous && renewing)
    }

    /// Whether the last certificate has been given out and not yet been seen.
    pub fn is_renewing(&self) -> bool {
        !self.previous_serial.is_empty()
    }

    /// The last certificate was shown: the one before it, and its key, are of no use any more.
    pub fn confirm(&mut self) {
        self.previous_serial.clear();
        self.previous_key_sha256.clear();
    }

    /// Whether this is a key that was certified for it.
    pub fn holds(&self, key_sha256: &str) -> bool {
        self.key_sha256 == key_sha256
            || (!self.previous_key_sha256.is_empty() && self.previous_key_sha256 == key_sha256)
    }
}

/// Two processes showed the certificate of one instance at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedTwice {
    /// When that was last reported.
    pub ms: UnixMs,
    /// How it was seen, for a person.
    pub detail: String,
}

/// Who holds a session: what distinguishes one process from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProcess {
    /// Where it dials from.
    pub address: IpAddr,
    /// First bits of the digest of its certificate's serial.
    pub certificate: u64,
    /// Of the boot of its machine, as it says itself.
    pub boot: u64,
    /// Of the process, as it says itself; `None` when it says nothing that could distinguish it from another.
    pub process: Option<u64>,
}

/// A machine whose identity was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Which machine: none with this id is let in again.
    pub machine: MachineId,
    /// Serial of its last certificate, hex; empty when it had none.
    pub serial: String,
    /// When that certificate ends, seconds since 1970.
    pub expires_unix: u64,
    /// When it was taken away.
    pub revoked_ms: UnixMs,
    /// By whom.
    pub operator: String,
}

/// A random value that is set as a tag on a machine, for the agent there to read back. The value itself is derived (see
/// `JoinKey::challenge`), so nothing here is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Begins the value; another one each time.
    pub id: String,
    /// No answer counts after that.
    pub until_ms: UnixMs,
    /// The provider has set the tag.
    pub set: bool,
    /// It was answered, or its time is up: what is left is to remove the tag.
    pub over: bool,
    /// A wrong answer came, which is reported once.
    #[serde(default)]
    pub doubted: bool,
}
