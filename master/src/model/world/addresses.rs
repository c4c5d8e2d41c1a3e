//! Lasting addresses: who lacks one, and what an answer means.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::ground::is_passing;
use super::input::{Answer, Effect, Failure};
use crate::model::cluster::{Cluster, Instance, Key};
use crate::model::machine::{ElasticIp, MachineState};

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
        let attempts = self.addressing.entry(name.clone()).or_default();
        if attempts.is_due(now) {
            attempts.begin();
            self.do_later(Effect::CallAddresses {
                cluster: name.clone(),
                machines: lacking,
            });
        }
    }

    pub(super) fn addressed(
        &mut self,
        name: &ClusterName,
        results: Vec<(MachineId, Result<ElasticIp, Failure>)>,
    ) -> Answer {
        let now = self.now;
        let attempts = self.addressing.entry(name.clone()).or_default();
        match results.iter().find_map(|(_, result)| result.as_ref().err()) {
            None => attempts.worked(),
            Some(failure) => {
                attempts.failed(now);
                if !is_passing(failure.kind) {
                    attempts.next_ms = now + REFUSED_MS;
                }
            }
        }
        for (machine, result) in results {
            let found = self.by_machine(name, &machine);
            let Some(at) = found.map(|i| key(name, i)) else {
                continue;
            };
            match result {
                Ok(address) => self.take_address(&at, address),
                Err(failure) => self.no_address(&at, &failure),
            }
        }
        self.poll_soon(name);
        self.mark_due(name);
        Answer::None
    }

    fn take_address(&mut self, at: &Key, address: ElasticIp) {
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
        self.stale_facts(&at.cluster);
        self.tell(at, "address-given", text);
    }

    fn no_address(&mut self, at: &Key, failure: &Failure) {
        let instance = self.instance_mut(at).expect("its caller found it");
        let text = format!("has no Elastic IP: {}", failure.message);
        if !is_passing(failure.kind) {
            instance.address_error.clone_from(&text);
        }
        self.tell(at, "notice", text);
    }

    /// A call for addresses is under way.
    pub(super) fn is_addressing(&self, name: &ClusterName) -> bool {
        self.addressing.get(name).is_some_and(|it| it.in_flight)
    }
}

fn key(cluster: &ClusterName, instance: &Instance) -> Key {
    Key {
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
