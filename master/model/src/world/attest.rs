//! What a machine proves before it is let in, beyond its token: the identity document, compared with what the provider has
//! just shown, and the challenge, a tag that the agent reads back.

use std::time::{Duration, SystemTime};

use aot_proto::ids::{ClusterName, MachineId};

use super::World;
use super::answer::{Answer, WantedProof};
use super::asks::EnrolAsk;
use super::provider_call::{Call, CallFailure};
use super::refusal::Refused;
use crate::attestation::{self, Proof, Secret};
use crate::backoff::CallBackoff;
use crate::cluster::Cluster;
use crate::hash::same_secret;
use crate::identity::Challenge;
use crate::key::InstanceKey;
use crate::unix_ms::UnixMs;

/// How old the provider's last description of a machine may be when its document is compared with it.
const FRESH_MS: u64 = 5_000;
/// Between two calls that only show whether machines still run: many that enrol at once share one.
const SHOW_EVERY_MS: u64 = 1_000;
/// How long a challenge may be answered.
pub(super) const CHALLENGE_MS: u64 = 60_000;
/// Challenges in one round of calls: each is a CreateTags of its own.
const MAX_ROUND: usize = 100;

impl World {
    /// What a machine with this token must prove, before anything else that it sent is read.
    ///
    /// # Errors
    /// When it is not let in whatever it proves.
    pub fn wanted(&self, ask: &EnrolAsk) -> Result<WantedProof, Refused> {
        let at = self.may_enrol(ask)?;
        let cluster = self.clusters.get(&at.cluster);
        let machine = self.instance(&at).and_then(|it| it.machine.as_ref());
        let shown = machine.and_then(|machine| machine.region.clone());
        let named = || cluster.and_then(|cluster| cluster.spec.region.clone());
        Ok(WantedProof {
            proof: self.demanded(&at),
            region: shown.or_else(named).unwrap_or_default(),
        })
    }

    /// Nothing more from one that has been let in, and has its key still.
    fn demanded(&self, at: &InstanceKey) -> Proof {
        let Some(instance) = self.instance(at).filter(|it| it.identity.is_none()) else {
            return Proof::Token;
        };
        let token = instance.batch.as_deref().unwrap_or_default();
        let cluster = self.clusters.get(&at.cluster);
        let batch = cluster.and_then(|cluster| cluster.batches.get(token));
        batch.map_or(Proof::Token, |batch| batch.proof)
    }

    /// Whether a machine that may enrol proves what it must.
    ///
    /// # Errors
    /// What to answer instead.
    pub(super) fn prove(&mut self, at: &InstanceKey, ask: &EnrolAsk) -> Result<Proof, Box<Answer>> {
        let proof = self.demanded(at);
        if proof.has_document() {
            self.compare_document(at, ask)?;
        }
        if proof.has_challenge() {
            self.compare_answer(at, ask)?;
        }
        Ok(proof)
    }

    fn compare_document(&mut self, at: &InstanceKey, ask: &EnrolAsk) -> Result<(), Box<Answer>> {
        let flawed = |flaw| Refused::NotProven {
            machine: ask.machine.clone(),
            flaw,
        };
        let region = self.wanted(ask).map(|it| it.region).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.now);
        let document = match attestation::judge(&ask.document, &region, &ask.machine, now) {
            Ok(document) => document,
            Err(flaw) => return Err(self.not_admitted(at, flawed(flaw))),
        };
        let instance = self.instance(at);
        let fresh = |shown_ms: UnixMs| shown_ms > 0 && self.now <= shown_ms + FRESH_MS;
        let shown = instance.filter(|it| fresh(it.shown_ms));
        let Some(machine) = shown.and_then(|it| it.machine.as_ref()) else {
            self.have_machines_shown(&at.cluster);
            return Err(Box::new(Answer::Later));
        };
        match attestation::compare(document, machine) {
            Ok(()) => Ok(()),
            Err(flaw) => Err(self.not_admitted(at, flawed(flaw))),
        }
    }

    /// Refuses, with an event for each new reason, however often it is tried.
    fn not_admitted(&mut self, at: &InstanceKey, refused: Refused) -> Box<Answer> {
        let note = match &refused {
            Refused::NotProven { flaw, .. } => format!("not admitted: {flaw}"),
            other => format!("not admitted: {other}"),
        };
        let known = self.instance(at).is_some_and(|it| it.note == note);
        if !known && let Some(instance) = self.instance_mut(at) {
            instance.note.clone_from(&note);
            self.emit(at, "enrolment-refused", note);
        }
        Box::new(Answer::Refused(refused))
    }

    /// Asks for the cluster's machines now, unless that was done just now.
    fn have_machines_shown(&mut self, name: &ClusterName) {
        let now = self.now;
        let calls = self.calls(name);
        // After a failure the next call has its time already.
        let soon = now.max(calls.list_asked_ms + SHOW_EVERY_MS);
        calls.list_ms = calls.list_ms.min(soon);
        self.poll_if_due(name);
    }

    /// The provider showed a machine, when asked at `asked_ms`. Nothing of it is stored.
    pub(super) fn was_shown(&mut self, name: &ClusterName, machine: &MachineId, asked_ms: UnixMs) {
        let Some(instance) = self.by_machine(name, machine).map(|it| it.name.clone()) else {
            return;
        };
        let cluster = self.clusters.get_mut(name);
        if let Some(instance) = cluster.and_then(|it| it.instances.get_mut(&instance)) {
            instance.shown_ms = asked_ms;
        }
    }

    /// One challenge per machine at a time, whoever asks: its value is what proves, so an answer is good from anyone who
    /// can read the machine's tags, and a stranger who asks, or guesses, is in nobody's way.
    fn compare_answer(&mut self, at: &InstanceKey, ask: &EnrolAsk) -> Result<(), Box<Answer>> {
        let now = self.now;
        let open = self
            .clusters
            .get(&at.cluster)
            .and_then(|cluster| cluster.challenges.get(&ask.machine));
        let asks = ask.answer.0.is_empty();
        match open {
            None if asks => Err(self.begin_challenge(at, &ask.machine)),
            Some(challenge) if challenge.over || now > challenge.until_ms => {
                let refused = match asks {
                    true => {
                        let why = Refused::Unchallenging(ask.machine.clone());
                        return Err(Box::new(Answer::Refused(why)));
                    }
                    false => Refused::LateAnswer(ask.machine.clone()),
                };
                Err(self.not_admitted(at, refused))
            }
            None => Err(self.not_admitted(at, Refused::LateAnswer(ask.machine.clone()))),
            Some(challenge) if asks => Err(Box::new(Answer::Challenged {
                id: challenge.id.clone(),
                left_ms: challenge.until_ms - now,
            })),
            Some(challenge) => {
                let value = self.join_key.challenge(ask.machine.as_str(), &challenge.id);
                let good = same_secret(&value, &ask.answer.0);
                self.answered_challenge(at, &ask.machine, good)
            }
        }
    }

    fn answered_challenge(
        &mut self,
        at: &InstanceKey,
        machine: &MachineId,
        good: bool,
    ) -> Result<(), Box<Answer>> {
        let cluster = self.cluster_mut(&at.cluster);
        let challenge = cluster.and_then(|it| it.challenges.get_mut(machine));
        let Some(challenge) = challenge else {
            return Ok(());
        };
        if good {
            challenge.over = true;
            self.mark_due(&at.cluster);
            return Ok(());
        }
        let refused = Refused::WrongAnswer(machine.clone());
        match std::mem::replace(&mut challenge.doubted, true) {
            true => Err(Box::new(Answer::Refused(refused))),
            false => Err(self.not_admitted(at, refused)),
        }
    }

    fn begin_challenge(&mut self, at: &InstanceKey, machine: &MachineId) -> Box<Answer> {
        let until_ms = self.now + CHALLENGE_MS;
        let id = self.new_job().to_string().to_lowercase(); // unique is enough: what follows it in the value is secret
        let challenge = Challenge {
            id: id.clone(),
            until_ms,
            set: false,
            over: false,
            doubted: false,
        };
        if let Some(cluster) = self.cluster_mut(&at.cluster) {
            cluster.challenges.insert(machine.clone(), challenge);
        }
        self.mark_due(&at.cluster);
        Box::new(Answer::Challenged {
            id,
            left_ms: CHALLENGE_MS,
        })
    }

    /// Level-triggered: sets the tags of new challenges, ends those whose time is up, removes the tags of ended ones. A tag is
    /// removed only while none is being set, so that the removal never overtakes the call that it undoes.
    pub(super) fn pass_challenges(&mut self, name: &ClusterName) {
        let now = self.now;
        let has_some = |cluster: &Cluster| !cluster.challenges.is_empty();
        if !self.clusters.get(name).is_some_and(has_some) {
            return;
        }
        self.end_challenges(name);
        let cluster = self.clusters.get(name).expect("it has challenges");
        let (mut values, mut machines) = (Vec::new(), Vec::new());
        for (machine, challenge) in &cluster.challenges {
            if challenge.over {
                machines.push(machine.clone());
            } else if !challenge.set {
                let value = self.join_key.challenge(machine.as_str(), &challenge.id);
                values.push((machine.clone(), Secret(value)));
            }
        }
        values.truncate(MAX_ROUND);
        let calls = self.calls(name);
        let sets = !values.is_empty() && calls.challenge.is_due(now);
        if sets {
            calls.challenge.begin();
        }
        let busy = calls.challenge.is_in_flight();
        let removes = !machines.is_empty() && !busy && calls.unchallenge.is_due(now);
        if removes {
            calls.unchallenge.begin();
        }
        if sets {
            self.call_provider(name, Call::SetChallenges(values));
        } else if removes {
            self.call_provider(name, Call::RemoveChallenges(machines));
        }
    }

    /// Those whose time is up, or whose machine is not an instance's any more.
    fn end_challenges(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let lives = |machine: &MachineId| {
            let instance = self.by_machine(name, machine);
            instance.is_some_and(|it| it.has_machine() && it.identity.is_none() && !it.is_revoked())
        };
        let open = cluster.challenges.iter().filter(|(_, it)| !it.over);
        let ended = open.filter(|(machine, it)| now > it.until_ms || !lives(machine));
        let ended: Vec<MachineId> = ended.map(|(machine, _)| machine.clone()).collect();
        if ended.is_empty() {
            return;
        }
        let cluster = self.cluster_mut(name).expect("found above");
        for machine in &ended {
            if let Some(challenge) = cluster.challenges.get_mut(machine) {
                challenge.over = true;
            }
        }
    }

    pub(super) fn challenges_set(
        &mut self,
        name: &ClusterName,
        results: Vec<(MachineId, Result<(), CallFailure>)>,
    ) -> Answer {
        let mut failed = None;
        let Some(cluster) = self.cluster_mut(name) else {
            return Answer::Ack;
        };
        for (machine, result) in results {
            match (cluster.challenges.get_mut(&machine), result) {
                (Some(challenge), Ok(())) => challenge.set = true,
                (_, Err(failure)) => failed = Some((machine, failure)),
                (None, Ok(())) => {}
            }
        }
        let now = self.now;
        let attempts = &mut self.calls(name).challenge;
        let said = challenge_call_ended(attempts, failed.is_some(), now);
        if let (true, Some((machine, failure))) = (said, failed) {
            let text = format!("cannot set the challenge of {machine}: {}", failure.message);
            self.emit_cluster(name, "notice", text);
        }
        self.mark_due(name);
        Answer::Ack
    }

    pub(super) fn challenges_removed(
        &mut self,
        name: &ClusterName,
        machines: &[MachineId],
        error: Option<CallFailure>,
    ) -> Answer {
        let Some(cluster) = self.cluster_mut(name) else {
            return Answer::Ack;
        };
        if error.is_none() {
            for machine in machines {
                cluster.challenges.remove(machine);
            }
        }
        let now = self.now;
        let attempts = &mut self.calls(name).unchallenge;
        let said = challenge_call_ended(attempts, error.is_some(), now);
        if let (true, Some(failure)) = (said, error) {
            let text = format!("cannot remove the tags of challenges: {}", failure.message);
            self.emit_cluster(name, "notice", text);
        }
        self.mark_due(name);
        Answer::Ack
    }
}

/// Whether it is the first failure in a row, which is reported.
fn challenge_call_ended(attempts: &mut CallBackoff, failed: bool, now: UnixMs) -> bool {
    let first = attempts.failures() == 0;
    match failed {
        true => attempts.failed(now),
        false => attempts.worked(),
    }
    failed && first
}
