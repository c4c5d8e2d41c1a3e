//! Lasting addresses: who lacks one, and what an answer means.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::prerequisites::is_passing;
use super::provider_call::{Call, CallFailure};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::machine::{ElasticIp, MachineState};

/// How long a refused address is left alone before it is asked for again.
const REFUSED_MS: u64 = 30_000;

impl World {
    /// Asks for the addresses of running machines that should have one and have none.
    pub(super) fn give_addresses(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name).filter(|c| !c.cleaning) else {
            return;
        };
        let lacking: Vec<(MachineId, InstanceName)> = wanting(cluster)
            .filter(|i| lacks_address(i))
            .filter_map(|i| Some((i.machine_id()?.clone(), i.name.clone())))
            .collect();
        if lacking.is_empty() {
            return;
        }
        let calls = self.calls(name);
        if calls.addresses.is_due(now) {
            calls.addresses.begin();
            self.call_provider(name, Call::AssignAddresses(lacking));
        }
    }

    pub(super) fn addressed(
        &mut self,
        name: &ClusterName,
        results: Vec<(MachineId, Result<ElasticIp, CallFailure>)>,
    ) -> Answer {
        let now = self.now;
        let addresses = &mut self.calls(name).addresses;
        match results.iter().find_map(|(_, result)| result.as_ref().err()) {
            None => addresses.worked(),
            Some(failure) => {
                addresses.failed(now);
                if !is_passing(failure.kind) {
                    addresses.wait_at_least(now, REFUSED_MS);
                }
            }
        }
        for (machine, result) in results {
            let found = self.by_machine(name, &machine);
            let Some(at) = found.map(|i| key(name, i)) else {
                continue;
            };
            match result {
                Ok(address) => self.adopt_address(&at, address),
                Err(failure) => self.no_address(&at, &failure),
            }
        }
        self.poll_soon(name);
        self.mark_due(name);
        Answer::Ack
    }

    fn adopt_address(&mut self, at: &InstanceKey, address: ElasticIp) {
        let instance = self.instance_mut(at).expect("its caller found it");
        let text = format!("has the lasting address {}", address.address);
        if let Some(machine) = &mut instance.machine {
            machine.public_ip = Some(address.address.clone());
            if let Some(up) = &mut instance.up {
                up.public_ip = Some(address.address.clone());
            }
        }
        instance.elastic_ip = Some(address);
        instance.address_error.clear();
        self.stale_entry(at, true);
        self.emit(at, "address-given", text);
    }

    fn no_address(&mut self, at: &InstanceKey, failure: &CallFailure) {
        let instance = self.instance_mut(at).expect("its caller found it");
        let text = format!("has no Elastic IP: {}", failure.message);
        if !is_passing(failure.kind) {
            instance.address_error.clone_from(&text);
        }
        self.emit(at, "notice", text);
    }

    /// Addresses that the machines don't show any more are given again; refused ones are asked for again.
    pub(super) fn renew_addresses(&mut self, name: &ClusterName) {
        self.calls(name).addresses.hurry();
        for at in self.keys(name) {
            let instance = self.instance_mut(&at).expect("listed");
            instance.address_error.clear();
            let shown = instance.machine.as_ref().and_then(|m| m.public_ip.as_ref());
            let given = instance.elastic_ip.as_ref().map(|ip| &ip.address);
            let up = instance
                .machine
                .as_ref()
                .is_some_and(|m| m.state == MachineState::Running);
            if up && given.is_some() && shown != given {
                instance.elastic_ip = None;
            }
        }
    }

    /// A call for addresses is under way.
    pub(super) fn is_addressing(&self, name: &ClusterName) -> bool {
        let calls = self.calls.get(name);
        calls.is_some_and(|it| it.addresses.is_in_flight())
    }
}

fn key(cluster: &ClusterName, instance: &Instance) -> InstanceKey {
    InstanceKey {
        cluster: cluster.clone(),
        instance: instance.name.clone(),
    }
}

/// Those that should have a lasting address.
pub(super) fn wanting(cluster: &Cluster) -> impl Iterator<Item = &Instance> {
    let pools = cluster.spec.pools.iter();
    let pools = pools.filter(|pool| pool.machine.allocate_ip_address);
    pools
        .flat_map(|pool| &pool.members)
        .filter_map(|member| cluster.instances.get(&member.name))
        .filter(|instance| instance.wanted && instance.has_machine())
}

fn lacks_address(instance: &Instance) -> bool {
    let runs = instance
        .machine
        .as_ref()
        .is_some_and(|machine| machine.state == MachineState::Running);
    runs && instance.elastic_ip.is_none()
}
