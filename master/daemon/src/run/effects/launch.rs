//! The two calls that make machines: `prepare` for what they stand on, `launch` for a batch of them.

use std::collections::BTreeMap;

use aot_model::batch::{Batch, BatchState, BootRecord};
use aot_model::key::ClusterId;
use aot_model::machine::{ClientToken, ClusterRef, ErrorKind, Leftovers, Machine};
use aot_model::prerequisites::Prerequisites;
use aot_model::spec::ClusterSpec;
use aot_model::world::{CallAnswer, World};
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_provider::{Ask, BootSpec, LaunchSpec, ProviderError};

use super::results::failure;
use crate::run::decide::Loop;

impl Loop {
    pub(super) fn call_launch(&self, cluster: ClusterId, token: String) {
        let Some((_, reference)) = self.provider_of(&cluster) else {
            return;
        };
        let Some(spec) = self
            .engine
            .read(|world| self.launch_spec(world, &reference, &token))
        else {
            return;
        };
        let same = token.clone();
        self.call(
            cluster,
            |provider, _| async move {
                let client_token = ClientToken(token.clone());
                let result = provider.launch(&spec, &client_token).await;
                CallAnswer::Launched {
                    token,
                    result: checked(result, spec.members.len()).map_err(failure),
                }
            },
            |error| CallAnswer::Launched {
                token: same,
                result: Err(error),
            },
        );
    }

    fn launch_spec(
        &self,
        world: &World,
        reference: &ClusterRef,
        token: &str,
    ) -> Option<LaunchSpec> {
        let batch = world.clusters.get(&reference.name)?.batches.get(token)?;
        let machine = batch.spec.machine.clone();
        Some(LaunchSpec {
            challenged: batch.proof.has_challenge(),
            cluster: reference.clone(),
            pool: batch.spec.name.clone(),
            members: batch.members.clone(),
            owner: batch.spec.owner.clone(),
            user: batch.spec.user.clone(),
            instance_type: machine.types.get(batch.choice.kind).cloned(),
            subnet: machine.subnets.get(batch.choice.subnet).cloned(),
            machine,
            zone: batch.zone.clone(),
            on_demand: batch.choice.on_demand,
            attempt: batch.attempt,
            prerequisites: world.clusters.get(&reference.name)?.prerequisites.clone(),
            boot: BootSpec {
                master: batch.boot.master.clone(),
                route: Route::of(&reference.name),
                ca_pem: self.parts.ca_pem.clone(),
                join_token: self.parts.join_key.token(token),
                agent_path: self.parts.agents.own_path(&batch.boot.agent_sha256),
                agent_sha256: batch.boot.agent_sha256.clone(),
                user_part: batch.boot.user_parts.get(&batch.pool).cloned(),
            },
        })
    }

    pub(super) fn call_prepare(&self, cluster: ClusterId) {
        let Some(work) = self
            .engine
            .read(|world| Preparation::of(world, &cluster.name))
        else {
            return;
        };
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.prepare(&work.ask(&reference)).await;
                CallAnswer::Prepared(result.map_err(failure))
            },
            |error| CallAnswer::Prepared(Err(error)),
        );
    }
}

/// A launch that gave fewer machines than it was asked for did not work, whatever it says.
fn checked(
    result: Result<Vec<Machine>, ProviderError>,
    members: usize,
) -> Result<Vec<Machine>, ProviderError> {
    match result {
        Ok(machines) if machines.len() < members => Err(ProviderError {
            kind: ErrorKind::Unavailable,
            leftovers: Leftovers::Some,
            message: format!("the answer names {} of {members} machines", machines.len()),
            code: None,
        }),
        other => other,
    }
}

/// What a call to prepare is about, taken out of the world.
struct Preparation {
    spec: ClusterSpec,
    known: Prerequisites,
    missing: BTreeMap<String, usize>,
    boot: BootRecord,
}

impl Preparation {
    fn of(world: &World, cluster: &ClusterName) -> Option<Self> {
        let cluster = world.clusters.get(cluster)?;
        let mut missing: BTreeMap<String, usize> = BTreeMap::new();
        let mut boot = BootRecord::default();
        let mut spec = cluster.spec.clone();
        let open = |batch: &&Batch| batch.state == BatchState::Requested;
        for batch in cluster.batches.values().filter(open) {
            *missing.entry(batch.pool.clone()).or_default() += batch.members.len();
            // Asked for before the file changed: what it names is still needed.
            if !spec.pools.contains(&*batch.spec) {
                spec.pools.push((*batch.spec).clone());
            }
            // Each has the text of its own pool.
            let mut parts = std::mem::take(&mut boot.user_parts);
            parts.extend(batch.boot.user_parts.clone());
            boot = BootRecord {
                user_parts: parts,
                ..batch.boot.clone()
            };
        }
        Some(Self {
            spec,
            known: cluster.prerequisites.clone(),
            missing,
            boot,
        })
    }

    fn ask<'a>(&'a self, reference: &'a ClusterRef) -> Ask<'a> {
        Ask {
            spec: &self.spec,
            cluster: Some(reference),
            known: &self.known,
            missing: &self.missing,
            advertise: &self.boot.master,
            user_parts: &self.boot.user_parts,
            agents: &self.boot.agent_sha256,
        }
    }
}
