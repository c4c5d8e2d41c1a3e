//! Stopped machines of a launch: started by one call at a time, until the provider shows them on their way.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::provider_call::Call;
use crate::instance::Instance;
use crate::machine::MachineState;

impl World {
    /// Instances whose machines are stopped: a launch starts them.
    pub fn stopped(&self, name: &ClusterName) -> BTreeSet<InstanceName> {
        let Some(cluster) = self.clusters.get(name) else {
            return BTreeSet::new();
        };
        let is_down = |i: &&Instance| {
            let state = i.machine.as_ref().map(|machine| machine.state);
            matches!(state, Some(MachineState::Stopped | MachineState::Stopping)) && !i.terminating
        };
        let down = cluster.wanted().filter(is_down);
        down.map(|i| i.name.clone()).collect()
    }

    /// Starts the machines of the launch that are stopped; those that are still stopping have their turn later.
    pub(super) fn start_stopped(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name).filter(|c| c.launching()) else {
            return;
        };
        let starts = cluster.launch.as_ref().map(|launch| &launch.starts);
        let machines: Vec<MachineId> = starts
            .into_iter()
            .flatten()
            .filter_map(|name| cluster.instances.get(name)?.machine.as_ref())
            .filter(|machine| machine.state == MachineState::Stopped)
            .map(|machine| machine.id.clone())
            .collect();
        let start = &mut self.calls(name).start;
        if machines.is_empty() {
            return start.worked();
        }
        if !start.is_due(now) {
            return;
        }
        start.begin();
        self.call_provider(name, Call::Start(machines));
    }

    /// The call to start machines was answered.
    pub(super) fn start_answered(&mut self, name: &ClusterName, error: Option<String>) -> Answer {
        let now = self.now;
        let start = &mut self.calls(name).start;
        // Until the provider shows them on their way, once in a while again.
        start.failed(now);
        if let Some(error) = error {
            self.emit_cluster(name, "notice", error);
        }
        self.poll_soon(name);
        Answer::Ack
    }
}
