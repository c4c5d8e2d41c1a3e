//! Who holds a certificate, and taking it away.

use aot_model::instance::Instance;
use aot_model::world::{Answer, Input};
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1::{self, agents_reply::Entry};
use tonic::Status;

use super::select::required;
use super::{OperatorApi, refused, unanswered};
use crate::run::now_ms;

impl OperatorApi {
    pub(super) fn do_agents(&self, request: &v1::AgentsRequest) -> Result<v1::AgentsReply, Status> {
        let clusters = match &request.cluster {
            None => self.engine.clusters(),
            Some(name) => vec![self.cluster(Some(name))?],
        };
        let entries = |name: ClusterName| {
            self.engine.read(&name, |world| -> Vec<Entry> {
                let instances = world.clusters.get(&name).map(|it| it.instances.values());
                let instances = instances.into_iter().flatten();
                instances.filter_map(|it| entry(&name, it)).collect()
            })
        };
        let agents = clusters.into_iter().flat_map(entries).collect();
        let absent = Vec::new(); // others are asked elsewhere
        Ok(v1::AgentsReply { agents, absent })
    }

    /// Shuts the machines of a target out; answers with what they had.
    pub(super) async fn do_revoke(
        &self,
        request: v1::TargetRequest,
        operator: String,
    ) -> Result<v1::AgentsReply, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instances = self.targets(&cluster, required(&request)?)?;
        let input = Input::Revoke {
            cluster: cluster.clone(),
            instances: instances.clone(),
            operator,
        };
        if let Answer::Error(error) = self.engine.ask(input).await.map_err(unanswered)? {
            return Err(refused(&error));
        }
        let agents = self.engine.read(&cluster, |world| {
            let found = world.clusters.get(&cluster)?;
            let revoked = |name: &InstanceName| {
                let instance = found.instances.get(name).filter(|it| it.is_revoked())?;
                entry(&cluster, instance)
            };
            Some(instances.iter().filter_map(revoked).collect())
        });
        Ok(v1::AgentsReply {
            agents: agents.unwrap_or_default(),
            absent: Vec::new(),
        })
    }
}

/// The identity that an instance's machine has, or had until it was revoked.
fn entry(cluster: &ClusterName, instance: &Instance) -> Option<Entry> {
    let machine_id = instance.machine_id()?.to_string();
    let seen = if instance.connected() {
        now_ms()
    } else {
        instance.last_seen_ms
    };
    let known = Entry {
        cluster: cluster.to_string(),
        instance: instance.name.to_string(),
        machine_id,
        last_seen_unix_ms: seen,
        connected: instance.connected(),
        ..Entry::default()
    };
    match (&instance.identity, &instance.revoked) {
        (Some(identity), _) => Some(Entry {
            serial: identity.serial.clone(),
            expires_unix: identity.expires_unix,
            used_twice_unix_ms: identity.used_twice.as_ref().map_or(0, |twice| twice.ms),
            used_twice: identity
                .used_twice
                .as_ref()
                .map(|twice| twice.detail.clone())
                .unwrap_or_default(),
            proof: v1::Proof::from(identity.proof).into(),
            ..known
        }),
        (None, Some(revoked)) if instance.is_revoked() => Some(Entry {
            serial: revoked.serial.clone(),
            expires_unix: revoked.expires_unix,
            revoked_unix_ms: revoked.revoked_ms,
            revoked_by: revoked.operator.clone(),
            ..known
        }),
        (None, _) => None,
    }
}
