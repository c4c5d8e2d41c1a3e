//! An instance as operators see it.

use aot_proto::v1;
use serde_json::{Value, json};

use super::cluster::{Cluster, Instance, Stage, UnixMs};
use super::machine::MachineState;
use super::needs::Needs;

/// The instance of a cluster, for the operator's socket.
///
/// An open session has been heard within its silence limit: its instance was seen `now`.
pub fn instance(cluster: &Cluster, instance: &Instance, now: UnixMs) -> v1::InstanceView {
    // What is gone has no address, whatever it had last.
    let machine = instance
        .machine
        .as_ref()
        .filter(|machine| machine.state != MachineState::Terminated);
    let text = |field: Option<&String>| field.cloned().unwrap_or_default();
    let waits = Needs::of(cluster).in_words(instance);
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
        state: instance.state().to_owned(),
        phase: instance.phase.to_string(),
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
        note: match instance.note.is_empty() {
            true => waits.clone().unwrap_or_default(),
            false => instance.note.clone(),
        },
        properties_json: properties(instance).to_string(),
        stage_views: stages(instance, waits),
        provider: cluster.spec.provider.to_string(),
        generation: instance.applied_generation,
        explanation: instance.explanation.clone(),
    }
}

/// A cluster, for the operator's socket.
pub fn cluster(cluster: &Cluster) -> v1::ClusterView {
    v1::ClusterView {
        name: cluster.spec.name.to_string(),
        uuid: cluster.uuid.clone(),
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

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The stage that runs, failed, or is next; the last one when all are done.
fn current_stage(instance: &Instance) -> u32 {
    let open = instance
        .stages
        .iter()
        .position(|stage| stage.state != super::cluster::StageState::Succeeded);
    count(open.unwrap_or(instance.stages.len().saturating_sub(1)))
}

/// The stages; of the next one also what it waits for.
fn stages(instance: &Instance, waits: Option<String>) -> Vec<v1::StageView> {
    let mut views: Vec<v1::StageView> = instance.stages.iter().enumerate().map(stage).collect();
    let next = instance.next_stage().and_then(|next| views.get_mut(next));
    if let (Some(view), Some(waits)) = (next, waits) {
        view.detail = match view.detail.is_empty() {
            true => waits,
            false => format!("{}; {waits}", view.detail),
        };
    }
    views
}

fn stage((index, stage): (usize, &Stage)) -> v1::StageView {
    v1::StageView {
        index: count(index),
        name: stage.plan.name.clone(),
        state: stage.state.as_str().to_owned(),
        attempt: stage.attempt,
        exit_code: stage.exit_code.unwrap_or(0),
        seconds: stage.ended_ms.saturating_sub(stage.started_ms) / 1000,
        bundle_sha256: stage.plan.bundle_sha256.clone(),
        detail: stage.detail.clone(),
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
