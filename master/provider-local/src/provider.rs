//! The trait's calls, each brought to this host's clones and its answer to the trait's shapes.

use std::collections::BTreeMap;
use std::future::ready;

use aot_model::spec::ProviderKind;
use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::{
    Ask, Changed, ClientToken, ClusterRef, ElasticIp, ErrorKind, LaunchSpec, Leftovers, Lifecycle,
    Listing, Machine, MachineState, Prerequisites, Problem, Provider, ProviderError, Receipt,
    Tagged, Thing, tags,
};
use futures::future::{BoxFuture, join_all};

use crate::clone_dirs::CloneState;
use crate::error::Error;
use crate::machines::shown;
use crate::{LocalProvider, console};

impl Provider for LocalProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Local
    }

    fn preflight<'a>(&'a self, _ask: &'a Ask<'a>) -> BoxFuture<'a, Vec<Problem>> {
        Box::pin(async { self.probe().await.into_iter().collect() })
    }

    fn outline<'a>(
        &'a self,
        _ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Vec<Thing>, ProviderError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn prepare<'a>(
        &'a self,
        ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Prerequisites, ProviderError>> {
        Box::pin(ready(Ok(ask.known.clone())))
    }

    fn launch<'a>(
        &'a self,
        spec: &'a LaunchSpec,
        token: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(self.launch_all(spec, token))
    }

    fn describe<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        Box::pin(async {
            let seen = self.of_cluster(&cluster.uuid).await;
            seen.map(|seen| Listing {
                machines: seen.into_iter().map(shown).collect(),
                unclear: Vec::new(),
            })
            .map_err(|error| error.into_provider(Leftovers::None))
        })
    }

    fn find<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        Box::pin(async {
            let mut listing = self.describe(cluster).await?;
            listing
                .machines
                .retain(|machine| machines.contains(&machine.id));
            Ok(listing)
        })
    }

    fn lifecycle<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        Box::pin(async move {
            let _one_at_a_time = self.changing.lock().await;
            let changes = machines
                .iter()
                .map(|id| self.change_one(&cluster.uuid, action, id));
            let mut changed = Changed::default();
            for (id, result) in machines.iter().zip(join_all(changes).await) {
                match result {
                    Ok(()) => {}
                    Err(Error::Unknown(_)) => changed.unknown.push(id.clone()),
                    Err(error) => {
                        let error = error.into_provider(Leftovers::None);
                        changed.refused.push((id.clone(), error));
                    }
                }
            }
            Ok(changed)
        })
    }

    fn set_name_tags<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async {
            let (uuid, names) = (cluster.uuid.clone(), names.to_vec());
            let done = self.blocking(move |clones| {
                names.into_iter().try_for_each(|(id, name)| {
                    clones.change(&uuid, &id, |file| {
                        file.tags.insert(tags::NAME.into(), name.to_string());
                        file.name = name;
                    })
                })
            });
            done.await
                .map_err(|error| error.into_provider(Leftovers::None))
        })
    }

    fn assign_addresses<'a>(
        &'a self,
        _cluster: &'a ClusterRef,
        machines: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>> {
        let none = |(id, _): &(MachineId, InstanceName)| {
            let error = ProviderError {
                kind: ErrorKind::Invalid,
                leftovers: Leftovers::None,
                message: "a local clone has no public address: leave allocate_ip_address out"
                    .into(),
                code: None,
            };
            (id.clone(), Err(error))
        };
        Box::pin(ready(machines.iter().map(none).collect()))
    }

    fn explain<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>> {
        Box::pin(async {
            let (uuid, ids) = (cluster.uuid.clone(), machines.to_vec());
            let read = self.blocking(move |clones| {
                let tail = |id: MachineId| {
                    clones.one(&uuid, &id).ok()?;
                    let text = console::tail(&clones.dirs(&id).console()).ok()?;
                    Some((id, format!("end of its console:\n{text}")))
                };
                Ok(ids.into_iter().filter_map(tail).collect())
            });
            read.await.unwrap_or_default()
        })
    }

    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>> {
        Box::pin(async {
            let read = self.blocking(|clones| clones.all());
            let all = read
                .await
                .map_err(|error| error.into_provider(Leftovers::None))?;
            Ok(all.iter().map(tagged).collect())
        })
    }

    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>> {
        Box::pin(async {
            let done = self.clean(cluster.uuid.clone()).await;
            done.map_err(|error| error.into_provider(Leftovers::None))
        })
    }
}

/// As `tagged` shows it.
fn tagged(seen: &CloneState) -> Tagged {
    let tag = |key: &str| seen.file.tags.get(key).cloned().unwrap_or_default();
    Tagged {
        kind: "instance",
        id: seen.file.id.to_string(),
        state: seen.state.to_string(),
        gone: seen.state == MachineState::Terminated,
        cluster: tag("Cluster"),
        uuid: tag(tags::CLUSTER_UUID),
    }
}
