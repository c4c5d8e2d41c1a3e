//! Who holds an instance's identity: which certificate counts, when a session outlives its own, and what shows that two
//! processes hold the same one.

use aot_proto::ids::MachineId;

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::input::SessionHolder;
use super::refusal::Refused;
use crate::identity::{Identity, PeerProcess, UsedTwice};
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::unix_ms::UnixMs;

/// A session that said something within this was alive when another took its place.
const ALIVE_MS: UnixMs = 10_000;

/// At most this often is it reported that an identity is used twice: two agents replace each other again and again.
const AGAIN_MS: UnixMs = 60_000;

/// What is kept of a certificate that was made.
pub(super) struct IssuedCertificate {
    /// The certificate that asked for it, in a renewal; `None` = it was enrolled.
    pub asked_with: Option<String>,
    /// SHA-256 of the key that it is for, hex.
    pub key_sha256: String,
    /// In hex.
    pub serial: String,
    /// Seconds since 1970.
    pub expires_unix: u64,
}

impl World {
    /// A certificate goes on record, and only then to its holder: to the machine that is this instance, and in a renewal
    /// in the session that it has now.
    pub(super) fn issued(
        &mut self,
        at: &InstanceKey,
        machine: MachineId,
        session: Option<u64>,
        issued: IssuedCertificate,
    ) -> Answer {
        let now = self.now;
        let stands = |instance: &Instance| {
            let may = |identity: &Identity| match &issued.asked_with {
                Some(serial) => instance.session == session && identity.certifies(serial, now),
                None => identity.holds(&issued.key_sha256),
            };
            instance.machine_id() == Some(&machine) && instance.identity.as_ref().is_some_and(may)
        };
        if !self.instance(at).is_some_and(stands) {
            return Answer::Refused(Refused::NotCurrent(machine));
        }
        let instance = self.instance_mut(at);
        if let Some(identity) = instance.and_then(|instance| instance.identity.as_mut()) {
            // Asked for with the one before: the last one never arrived, and is forgotten.
            let arrived = issued
                .asked_with
                .is_none_or(|serial| serial == identity.serial);
            let serial = std::mem::replace(&mut identity.serial, issued.serial);
            let key = std::mem::replace(&mut identity.key_sha256, issued.key_sha256);
            if arrived {
                identity.previous_serial = serial;
            }
            if arrived && key != identity.key_sha256 {
                identity.previous_key_sha256 = key;
            }
            identity.expires_unix = issued.expires_unix;
            identity.issued_ms = now;
        }
        Answer::Ack
    }

    /// Who holds the session that has just begun.
    pub(super) fn held_by(&mut self, at: &InstanceKey, holder: &SessionHolder) -> Answer {
        let Some(instance) = self.unrecorded_mut(at) else {
            return Answer::Ack;
        };
        let before = instance.peer.replace(holder.peer);
        if let Some(identity) = &instance.identity {
            let expires_ms = identity.expires_unix.saturating_mul(1000);
            self.expiry_ms = self.expiry_ms.min(expires_ms);
        }
        self.certificate_seen(at, &holder.serial);
        let was_alive = holder.replaced_ms.is_some_and(|ago| ago < ALIVE_MS);
        if let Some(before) = before.filter(|_| was_alive)
            && let Some(how) = another_process(&before, &holder.peer)
        {
            self.used_twice(at, how);
        }
        Answer::Ack
    }

    /// A session says something after another took its place.
    pub(super) fn still_there(&mut self, at: &InstanceKey, session: u64) -> Answer {
        let replaced = |instance: &Instance| {
            instance.identity.is_some() && instance.session.is_some_and(|newest| newest > session)
        };
        if self.instance(at).is_some_and(replaced) {
            self.used_twice(at, "the session before it still answers");
        }
        Answer::Ack
    }

    /// The last certificate has arrived: the one before it is not taken any more.
    pub(super) fn certificate_seen(&mut self, at: &InstanceKey, serial: &str) -> Answer {
        let is_news = |identity: &Identity| identity.is_renewing() && identity.serial == serial;
        let known = self.instance(at).and_then(|it| it.identity.as_ref());
        if known.is_some_and(is_news)
            && let Some(identity) = self.instance_mut(at).and_then(|it| it.identity.as_mut())
        {
            identity.confirm();
        }
        Answer::Ack
    }

    fn used_twice(&mut self, at: &InstanceKey, how: &str) {
        let now = self.now;
        let told = |identity: &Identity| {
            let last = identity.used_twice.as_ref();
            last.is_some_and(|last| now.saturating_sub(last.ms) < AGAIN_MS)
        };
        let identity = self.instance(at).and_then(|it| it.identity.as_ref());
        if identity.is_none_or(told) {
            return;
        }
        if let Some(identity) = self.instance_mut(at).and_then(|it| it.identity.as_mut()) {
            identity.used_twice = Some(UsedTwice {
                ms: now,
                detail: how.to_owned(),
            });
        }
        let text = format!("{USED_TWICE}: {how}; {}", remedy(at));
        self.emit(at, "identity-used-twice", text);
    }

    /// Ends sessions whose certificates are over. Looks at all of them only when the first may be.
    pub(super) fn end_expired(&mut self) {
        let now = self.now;
        if now < self.expiry_ms {
            return;
        }
        let (mut next, mut over) = (UnixMs::MAX, Vec::new());
        for (name, cluster) in &self.clusters {
            for instance in cluster.instances.values() {
                let (Some(session), Some(identity)) = (instance.session, &instance.identity) else {
                    continue;
                };
                let expires_ms = identity.expires_unix.saturating_mul(1000);
                if expires_ms > now {
                    next = next.min(expires_ms);
                } else {
                    let at = InstanceKey {
                        cluster: name.clone(),
                        instance: instance.name.clone(),
                    };
                    over.push(Effect::Expire { at, session });
                }
            }
        }
        self.expiry_ms = next;
        self.effects.extend(over);
    }
}

/// What an operator reads of it.
pub const USED_TWICE: &str = "two processes use its identity at the same time";

/// What to do about it.
pub fn remedy(at: &InstanceKey) -> String {
    format!(
        "if that is not your doing, shut both out: aot-master --cluster {} agents revoke {}",
        at.cluster, at.instance
    )
}

/// Whether what took a living session's place is another process, and how that is seen; `None` when it may be the same, or
/// the same machine's next one. An agent whose link was cut is the same process, wherever it dials from now and whatever
/// certificate it has got meanwhile. One that was started again, on the same machine, has ended the session before by its
/// own end; where that message was lost, only an answer of the one before distinguishes it from a copy.
fn another_process(before: &PeerProcess, now: &PeerProcess) -> Option<&'static str> {
    match (before.process, now.process) {
        (Some(before), Some(now)) if before == now => return None,
        (Some(_), Some(_)) => {}
        // What does not say who it is, is taken for nobody's next life.
        _ => {
            return Some("an agent that does not identify its process replaced a living one");
        }
    }
    if before.boot != now.boot {
        Some("an agent of another boot, or on another machine, replaced a living one")
    } else if before.address != now.address {
        Some("an agent at another address replaced a living one")
    } else if before.certificate != now.certificate {
        Some("an agent with another certificate replaced a living one")
    } else {
        None
    }
}
