//! An instance as operators see it.

use std::collections::HashMap;

use aot_proto::ids::InstanceName;
use aot_proto::v1;
use serde_json::{Value, json};

use super::attestation::{self, Proof};
use super::cluster::Cluster;
use super::instance::Instance;
use super::machine::MachineState;
use super::needs::Needs;
use super::rolling::TurnStep;
use super::stage::StageOutcome;
use super::stage::{LastLines, Stage, StageState};
use super::unix_ms::UnixMs;
use super::world::USED_TWICE;

/// Of an instance that lives although the file has been launched without it.
const LEFT_OUT: &str = "no longer in the file";

/// The instance of a cluster, for the operator's socket.
///
/// An open session has been heard within its silence limit: its instance was seen `now`.
pub fn instance(cluster: &Cluster, instance: &Instance, now: UnixMs) -> v1::InstanceView {
    v1::InstanceView {
        properties_json: properties(instance).to_string(),
        ..of_event(cluster, instance, now)
    }
}

/// The same with an event, of which there are many: without its cloud properties, which no event shows.
pub fn of_event(cluster: &Cluster, instance: &Instance, now: UnixMs) -> v1::InstanceView {
    // What is gone has no address, whatever it had last.
    let machine = instance
        .machine
        .as_ref()
        .filter(|machine| machine.state != MachineState::Terminated);
    let text = |field: Option<&String>| field.cloned().unwrap_or_default();
    let waits = Needs::of(cluster).describe(instance);
    v1::InstanceView {
        cluster: cluster.spec.name.to_string(),
        name: instance.name.to_string(),
        pool: instance
            .pool
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        machine_id: instance
            .machine_id()
            .map(ToString::to_string)
            .unwrap_or_default(),
        state: instance
            .machine
            .as_ref()
            .map_or(0, |machine| v1::MachineState::from(machine.state).into()),
        phase: v1::Phase::from(instance.phase).into(),
        stage: current_stage(instance),
        stages: count(instance.stages.len()),
        private_ip: text(machine.and_then(|machine| machine.private_ip.as_ref())),
        public_ip: text(machine.and_then(|machine| machine.public_ip.as_ref())),
        public_dns: text(machine.and_then(|machine| machine.public_dns.as_ref())),
        private_dns: text(machine.and_then(|machine| machine.private_dns.as_ref())),
        connected: instance.connected(),
        last_seen_unix_ms: if instance.connected() {
            now
        } else {
            instance.last_seen_ms
        },
        agent_version: instance.agent_version.clone(),
        note: match (&*instance.note, instance.wanted) {
            ("", true) => waits.clone().unwrap_or_else(|| turn(cluster, instance)),
            ("", false) if machine.is_some() => LEFT_OUT.to_owned(),
            (note, _) => note.to_owned(),
        },
        warning: warning(instance),
        properties_json: String::new(),
        stage_views: stages(instance, waits, now),
        provider: cluster.spec.provider.to_string(),
        generation: instance.applied_generation,
        explanation: instance.explanation.clone(),
        proof: instance
            .identity
            .as_ref()
            .map_or(0, |identity| v1::Proof::from(identity.proof).into()),
    }
}

/// Where it is in a change that goes over instances at a pace, for a person; empty mostly.
fn turn(cluster: &Cluster, instance: &Instance) -> String {
    let Some(turn) = &instance.turn else {
        return String::new();
    };
    let goes_on = cluster.launching()
        && cluster
            .launch
            .as_ref()
            .is_some_and(|launch| launch.job == turn.job);
    match (&turn.step, goes_on) {
        (TurnStep::Waiting, true) => "waits for its turn to be changed".to_owned(),
        (TurnStep::Waiting, false) => "as before: its turn did not come".to_owned(),
        (TurnStep::Checking { tries, .. }, _) => format!("health check, try {tries}"),
        _ => String::new(),
    }
}

/// What an operator has to know before all else.
fn warning(instance: &Instance) -> String {
    let identity = instance.identity.as_ref();
    let twice = identity.and_then(|identity| identity.used_twice.as_ref());
    twice.map_or_else(String::new, |twice| {
        format!("identity-used-twice: {USED_TWICE}: {}", twice.detail)
    })
}

/// A cluster, for the operator's socket.
pub fn cluster(cluster: &Cluster) -> v1::ClusterView {
    v1::ClusterView {
        name: cluster.spec.name.to_string(),
        uuid: cluster.uuid.to_string(),
        provider: cluster.spec.provider.to_string(),
        region: cluster.spec.region.clone().unwrap_or_default(),
        generation: cluster.generation,
        launching: cluster.launching(),
        launch_error: cluster
            .launch
            .as_ref()
            .map(|launch| launch.error.clone())
            .unwrap_or_default(),
        file: cluster.file.display().to_string(),
        groups: cluster.spec.groups.clone().into_iter().collect(),
    }
}

/// The warning about machines that were let in, or will be, at their token alone.
pub fn unproven(cluster: &Cluster) -> Option<String> {
    let proof = |it: &Instance| match (&it.identity, &it.batch) {
        (Some(identity), _) => Some(identity.proof),
        (None, Some(token)) => cluster.batches.get(token).map(|batch| batch.proof),
        (None, None) => None,
    };
    let weak = |it: &&Instance| it.has_machine() && proof(it) == Some(Proof::Token);
    let weak: Vec<_> = cluster.instances.values().filter(weak).collect();
    let first = weak.first()?;
    let region = first.machine.as_ref().and_then(|it| it.region.as_deref());
    let region = region
        .or(cluster.spec.region.as_deref())
        .unwrap_or("REGION");
    let warning = attestation::warning(cluster.spec.provider, Proof::Token, region)?;
    let (few, total) = (weak.len(), cluster.instances.len());
    Some(format!("{few} of {total}: {warning}"))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The stage that runs, failed, or is next; the last one when all are done.
fn current_stage(instance: &Instance) -> u32 {
    let open = instance
        .stages
        .iter()
        .position(|stage| stage.state != StageState::Succeeded);
    count(open.unwrap_or(instance.stages.len().saturating_sub(1)))
}

/// The stages; of the next one also what it waits for.
fn stages(instance: &Instance, waits: Option<String>, now: UnixMs) -> Vec<v1::StageView> {
    let away = instance.session.is_none() && instance.lost_ms.is_some();
    let stages = instance.stages.iter().enumerate();
    let mut views: Vec<v1::StageView> = stages
        .map(|(index, it)| stage(index, it, away, now))
        .collect();
    let next = instance.next_stage().and_then(|next| views.get_mut(next));
    if let (Some(view), Some(waits)) = (next, waits) {
        view.detail = match view.detail.is_empty() {
            true => waits,
            false => format!("{}; {waits}", view.detail),
        };
    }
    views
}

/// Without what it printed last, see [`printed`].
fn stage(index: usize, stage: &Stage, away: bool, now: UnixMs) -> v1::StageView {
    let runs = stage.state == StageState::Running;
    let outcome = match runs && away {
        true => Some(StageOutcome::LostContact),
        false => stage.outcome(),
    };
    let ms = match (stage.started_ms, runs) {
        (0, _) => 0,
        (started, true) => now.saturating_sub(started),
        (started, false) => stage.ended_ms.saturating_sub(started),
    };
    v1::StageView {
        index: count(index),
        name: stage.plan.name.clone(),
        state: v1::StageState::from(stage.state).into(),
        attempt: stage.attempt,
        exit_code: stage.exit_code,
        seconds: ms / 1000,
        ms,
        bundle_sha256: stage.plan.bundle_sha256.clone(),
        detail: stage.detail.clone(),
        outcome: outcome.map_or(0, |outcome| v1::StageOutcome::from(outcome).into()),
        ..v1::StageView::default()
    }
}

/// Adds what failed stages printed last. It is long, and only for those who ask for stages.
pub fn printed(view: &mut v1::InstanceView, instance: &Instance) {
    for (view, stage) in view.stage_views.iter_mut().zip(&instance.stages) {
        view.tail = stage.printed.all().cloned().collect();
        view.tail_stderr = count(stage.printed.stderr.len());
    }
}

/// [`printed`] of the instances of one cluster, where equal lines are said once, with the name of whose they are.
#[derive(Debug)]
pub struct EqualTails<'w> {
    named: HashMap<(usize, &'w LastLines), &'w InstanceName>,
    most: usize,
}

impl<'w> EqualTails<'w> {
    /// So many different ones at most.
    pub fn new(most: usize) -> Self {
        Self {
            named: HashMap::new(),
            most,
        }
    }

    /// How many more there may be.
    pub fn left(&self) -> usize {
        self.most - self.named.len()
    }

    /// Adds them to the next instance.
    pub fn add(&mut self, view: &mut v1::InstanceView, instance: &'w Instance) {
        let stages = instance.stages.iter().enumerate();
        for (view, (index, stage)) in view.stage_views.iter_mut().zip(stages) {
            if stage.printed.is_empty() {
                continue;
            }
            let key = (index, &stage.printed);
            if let Some(name) = self.named.get(&key) {
                view.tail_of = name.to_string();
            } else if self.left() == 0 {
                view.tail_left_out = true;
            } else {
                self.named.insert(key, &instance.name);
                view.tail = stage.printed.all().cloned().collect();
                view.tail_stderr = count(stage.printed.stderr.len());
            }
        }
    }
}

fn properties(instance: &Instance) -> Value {
    let machine = instance.machine.as_ref();
    json!({
        "instance": instance.machine_id().map(ToString::to_string),
        "image": machine.and_then(|machine| machine.image.clone()),
        "instance_type": machine.and_then(|machine| machine.instance_type.clone()),
        "region": machine.and_then(|machine| machine.region.clone()),
        "availability_zone": machine.and_then(|machine| machine.availability_zone.clone()),
        "subnet": machine.and_then(|machine| machine.subnet.clone()),
        "owner": instance.owner,
        "user": instance.user,
        "hostname": instance.hostname,
        "attempt": instance.attempt,
        "note": instance.note,
        "explanation": instance.explanation,
        "tags": machine.map(|machine| machine.tags.clone()),
        "volumes": machine.map(|machine| {
            machine.volumes.iter().map(|it| (it.device.clone(), it.id.clone().into())).collect::<serde_json::Map<_, _>>()
        }),
        "elastic_ip": instance.elastic_ip.as_ref().map(|ip| ip.allocation.clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::samples;
    use super::super::stage::StagePlan;
    use super::*;

    fn failed(name: &str, lines: &[&str]) -> Instance {
        let cluster = samples::cluster();
        let one = cluster.instances.values().next().expect("one").clone();
        let mut stage = Stage::waiting(StagePlan {
            name: "mount".into(),
            bundle_sha256: String::new(),
            bundle_bytes: 0,
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: None,
            silence_timeout: None,
            needs: Vec::new(),
            key: String::new(),
            templates: false,
            secrets: Vec::new(),
            secret_versions: BTreeMap::new(),
        });
        stage.printed.stderr = lines.iter().map(|line| (*line).to_owned()).collect();
        Instance {
            name: name.parse().expect("a name"),
            stages: vec![stage],
            ..one
        }
    }

    #[test]
    fn equal_lines_are_said_once_and_of_different_ones_so_many() {
        let instances = [
            failed("a1", &["no disk"]),
            failed("a2", &["no disk"]),
            failed("a3", &[]),
            failed("a4", &["other", "lines"]),
            failed("a5", &["too many"]),
            failed("a6", &["no disk"]),
        ];
        let mut tails = EqualTails::new(2);
        let said = instances.each_ref().map(|instance| {
            let mut view = v1::InstanceView {
                stage_views: vec![v1::StageView::default()],
                ..v1::InstanceView::default()
            };
            tails.add(&mut view, instance);
            let stage = view.stage_views.remove(0);
            assert_eq!(stage.tail_stderr as usize, stage.tail.len());
            (stage.tail.join(","), stage.tail_of, stage.tail_left_out)
        });
        let want = [
            ("no disk", "", false),
            ("", "a1", false),
            ("", "", false),
            ("other,lines", "", false),
            ("", "", true),
            ("", "a1", false),
        ];
        assert_eq!(
            said,
            want.map(|(tail, of, left_out)| (tail.to_owned(), of.to_owned(), left_out))
        );
        assert_eq!(tails.left(), 0);
    }
}
