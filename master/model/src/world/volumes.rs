//! Volumes with a mount point: asked of every session, waited for before any stage.

use aot_proto::ids::ClusterName;
use aot_proto::v1;

use super::World;
use super::answer::Answer;
use crate::batch::Batch;
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::phase::Happened;
use crate::spec::{ProviderKind, VolumeSpec};

/// How long after an agent enrolled the disks of its machine must be shown.
const SHOWN_MS: u64 = 120_000;

impl World {
    /// Sends each session the volumes to mount, once.
    pub(super) fn mount_volumes(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| mounts_any(c)) else {
            return;
        };
        let mut due = Vec::new();
        for instance in cluster.instances.values() {
            let Some(session) = instance.session else {
                continue;
            };
            if instance.volumes_sent == Some(session) || to_mount(cluster, instance).is_empty() {
                continue;
            }
            let at = InstanceKey {
                cluster: name.clone(),
                instance: instance.name.clone(),
            };
            due.push((at, session, known(cluster, instance)));
        }
        for (at, session, volumes) in due {
            match volumes {
                Some(volumes) => self.send_volumes(&at, session, volumes),
                None if self.waited_long(&at) => self.no_volume(&at),
                None => self.poll_within(name, 1_000), // its disks have not been shown yet
            }
        }
    }

    fn send_volumes(&mut self, at: &InstanceKey, session: u64, volumes: Vec<v1::Volume>) {
        let id = session; // one message a session
        let message = v1::Volumes { id, volumes };
        self.send(at, session, v1::master_message::Body::Volumes(message));
        if let Some(instance) = self.unrecorded_mut(at) {
            instance.volumes_sent = Some(session);
        }
    }

    /// Its disks should have been shown by now.
    fn waited_long(&self, at: &InstanceKey) -> bool {
        let enrolled = self.instance(at).and_then(|i| i.identity.as_ref());
        enrolled.is_some_and(|identity| self.now > identity.enrolled_ms + SHOWN_MS)
    }

    fn no_volume(&mut self, at: &InstanceKey) {
        let note = "the provider shows no disk for a volume that is to be mounted";
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        if instance.happen(Happened::VolumesFailed) {
            instance.note = note.to_owned();
            self.emit(at, "instance-failed", note);
        }
    }

    pub(super) fn volumes_mounted(
        &mut self,
        at: &InstanceKey,
        session: u64,
        id: u64,
        error: &str,
    ) -> Answer {
        if id != session {
            return Answer::NotItsOwn;
        }
        if error.is_empty() {
            if let Some(instance) = self.unrecorded_mut(at) {
                instance.volumes_mounted = Some(session);
                self.emit(at, "volumes-mounted", "its volumes are mounted");
            }
        } else if let Some(instance) = self.instance_mut(at) {
            instance.note = error.to_owned();
            instance.happen(Happened::VolumesFailed);
            self.emit(at, "instance-failed", error);
        }
        self.mark_due(&at.cluster);
        Answer::Ack
    }
}

pub(super) fn mounts_any(cluster: &Cluster) -> bool {
    let volumes = |batch: &Batch| {
        batch
            .spec
            .machine
            .volumes
            .iter()
            .any(|it| it.mount.is_some())
    };
    cluster.spec.provider != ProviderKind::Local && cluster.batches.values().any(volumes)
}

/// Volumes that were made with its machine and have a mount point.
fn to_mount<'a>(cluster: &'a Cluster, instance: &Instance) -> Vec<&'a VolumeSpec> {
    if cluster.spec.provider == ProviderKind::Local {
        return Vec::new(); // a clone has no disks of its own
    }
    let batch = instance
        .batch
        .as_ref()
        .and_then(|token| cluster.batches.get(token));
    let volumes = batch.map_or(&[][..], |batch| &batch.spec.machine.volumes);
    volumes.iter().filter(|it| it.mount.is_some()).collect()
}

/// Whether a stage may start as far as volumes go.
pub(super) fn are_mounted(cluster: &Cluster, instance: &Instance) -> bool {
    to_mount(cluster, instance).is_empty()
        || (instance.session.is_some() && instance.volumes_mounted == instance.session)
}

/// The volumes with their ids; `None` while one has not been shown by the provider.
fn known(cluster: &Cluster, instance: &Instance) -> Option<Vec<v1::Volume>> {
    let shown = &instance.machine.as_ref()?.volumes;
    let volume = |spec: &VolumeSpec| {
        let found = shown.iter().find(|it| it.device == spec.device)?;
        Some(v1::Volume {
            volume_id: found.id.clone(),
            device: spec.device.clone(),
            mount: spec.mount.clone().unwrap_or_default(),
            fs: spec.fs.clone().unwrap_or_default(),
        })
    };
    to_mount(cluster, instance)
        .into_iter()
        .map(volume)
        .collect()
}
