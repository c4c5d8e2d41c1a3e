//! Machines with our tags that no instance has: kept on record, and ended until the provider says that they are gone.

use aot_proto::ids::ClusterName;

use super::World;
use crate::machine::{Machine, MachineState};

impl World {
    /// A machine that must go: it is terminated until the provider says that it is gone.
    pub(super) fn add_stray(&mut self, name: &ClusterName, machine: Machine) {
        if machine.state == MachineState::Terminated {
            return;
        }
        let id = machine.id.clone();
        let Some(cluster) = self.cluster_mut(name) else {
            return;
        };
        if cluster.strays.insert(id.clone(), machine).is_none() {
            let text = format!("{id} belongs to no instance any more and is terminated");
            self.emit_cluster(name, "notice", text);
            // All that have come by then go in one call.
            self.mark_due(name);
            self.poll_soon(name);
        }
    }

    /// What a listing says of one.
    pub(super) fn see_stray(&mut self, name: &ClusterName, machine: Machine) {
        let known = self
            .clusters
            .get(name)
            .and_then(|c| c.strays.get(&machine.id));
        if known == Some(&machine) {
            return;
        }
        let Some(cluster) = self.cluster_mut(name) else {
            return;
        };
        if machine.state == MachineState::Terminated {
            cluster.strays.remove(&machine.id);
        } else {
            cluster.strays.insert(machine.id.clone(), machine);
        }
    }
}
