//! Status, facts, jobs: what there is, as it is.

use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::v1;
use tonic::Status;

use super::select::{Selection, matching, none};
use super::{OperatorApi, stopping};
use crate::model::cluster::Key;
use crate::model::facts;
use crate::model::view;
use crate::model::world::Input;

/// How long a live look at the provider may take.
const LIVE: Duration = Duration::from_secs(30);

impl OperatorApi {
    pub(super) async fn do_status(
        &self,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusReply, Status> {
        let selection = Selection::from(&request);
        let names: Vec<ClusterName> = if request.cluster.is_empty() && selection.is_all() {
            self.engine
                .look(|world| world.clusters.keys().cloned().collect())
        } else {
            vec![self.cluster(&request.cluster)?]
        };
        if request.live {
            for name in &names {
                self.look_live(name).await?;
            }
        }
        let mut reply = v1::StatusReply::default();
        for name in names {
            self.engine.look(|world| -> Result<(), Status> {
                let Some(cluster) = world.clusters.get(&name) else {
                    return Ok(());
                };
                reply.clusters.push(view::cluster(cluster));
                let instances = matching(cluster, selection)?;
                if instances.is_empty() && !selection.is_all() {
                    return Err(none(cluster, selection));
                }
                for instance in instances {
                    reply.instances.extend(world.view(&Key {
                        cluster: name.clone(),
                        instance,
                    }));
                }
                Ok(())
            })?;
        }
        Ok(reply)
    }

    /// Asks the provider and waits until its answer is taken in.
    async fn look_live(&self, name: &ClusterName) -> Result<(), Status> {
        let reference = self.engine.look(|world| {
            world
                .clusters
                .get(name)
                .map(|c| (c.spec.provider, c.reference()))
        });
        let Some((kind, reference)) = reference else {
            return Ok(());
        };
        let unreachable =
            |error: crate::provider::ProviderError| Status::unavailable(error.to_string());
        let provider = self
            .providers
            .get(kind, reference.region.as_deref())
            .await
            .map_err(unreachable)?;
        let machines = tokio::time::timeout(LIVE, provider.describe(&reference)).await;
        let machines = machines
            .map_err(|_| Status::unavailable("the provider does not answer"))?
            .map_err(unreachable)?;
        let input = Input::Described {
            cluster: name.clone(),
            result: Ok(machines),
        };
        self.engine.ask(input).await.ok_or_else(stopping)?;
        Ok(())
    }

    pub(super) fn do_facts(&self, request: &v1::TargetRequest) -> Result<v1::FactsReply, Status> {
        let cluster = self.cluster(&request.cluster)?;
        let names = self.targets(&cluster, request)?;
        self.engine.look(|world| {
            let found = world
                .clusters
                .get(&cluster)
                .ok_or_else(|| Status::not_found("the cluster is gone"))?;
            let entry = |name: &aot_proto::ids::InstanceName| v1::facts_reply::Entry {
                instance: name.to_string(),
                facts_json: found
                    .instances
                    .get(name)
                    .and_then(|instance| facts::shown(found, instance))
                    .map_or_else(|| "null".to_owned(), |facts| facts.to_string()),
            };
            Ok(v1::FactsReply {
                entries: names.iter().map(entry).collect(),
            })
        })
    }

    pub(super) async fn do_jobs(&self, request: v1::JobsRequest) -> Result<v1::JobsReply, Status> {
        let (store, limit) = (
            self.store.clone(),
            if request.limit == 0 {
                50
            } else {
                request.limit
            },
        );
        let cluster = (!request.cluster.is_empty()).then_some(request.cluster);
        let spools = self.spools.clone();
        let work = tokio::task::spawn_blocking(move || {
            let jobs = store.jobs(cluster.as_deref(), limit)?;
            let sizes = jobs
                .iter()
                .map(|job| store.output_of(job.id, |run| spools.size(run)));
            let sizes = sizes.collect::<Result<Vec<u64>, _>>()?;
            Ok::<_, crate::store::Error>(jobs.into_iter().zip(sizes).collect::<Vec<_>>())
        });
        let jobs = work
            .await
            .map_err(|_| stopping())?
            .map_err(|error| Status::internal(error.to_string()))?;
        let entry = |(job, output_bytes): (crate::model::job::Job, u64)| v1::jobs_reply::Entry {
            outcomes: job
                .outcomes()
                .into_iter()
                .map(|(word, count)| (word.to_owned(), count))
                .collect(),
            job_id: job.id.to_string(),
            kind: job.kind.as_str().to_owned(),
            targets: u32::try_from(job.targets.len()).unwrap_or(u32::MAX),
            output_bytes,
            output_dropped: job.output_dropped,
            cluster: job.cluster.to_string(),
            what: job.what,
            started_unix_ms: job.started_ms,
            ended_unix_ms: job.ended_ms.unwrap_or(0),
            operator: job.operator,
        };
        Ok(v1::JobsReply {
            jobs: jobs.into_iter().map(entry).collect(),
        })
    }
}
