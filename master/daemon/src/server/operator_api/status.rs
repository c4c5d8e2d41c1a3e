//! Status, facts, jobs: what there is, as it is.

use aot_host::chain::Chain;
use aot_model::facts;
use aot_model::key::InstanceKey;
use aot_model::view;
use aot_model::wire;
use aot_model::world::{CallAnswer, Input};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1;
use tonic::Status;

use super::select::{Selection, matching, none, required};
use super::{OperatorApi, not_empty, stopping, unanswered, unseen};

/// Most different texts of failed stages in a status: nobody reads more, and each has up to some KiB.
const MAX_TAILS: usize = 500;

impl OperatorApi {
    pub(super) async fn do_status(
        &self,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusReply, Status> {
        let selection = Selection::from(&request);
        let names = self.meant(&request)?;
        if request.live {
            for name in &names {
                self.refresh(name).await?;
            }
        }
        let mut reply = v1::StatusReply {
            notes: self.notes(),
            build: self.info.build.clone(),
            background: self.info.background,
            ..v1::StatusReply::default()
        };
        let mut tails_left = MAX_TAILS;
        for name in names {
            self.engine.read(&name, |world| -> Result<(), Status> {
                let mut tails = view::EqualTails::new(tails_left);
                let Some(cluster) = world.clusters.get(&name) else {
                    return Ok(());
                };
                reply.clusters.push(view::cluster(cluster));
                let instances = matching(cluster, selection)?;
                if instances.is_empty() && !selection.is_all() {
                    return Err(none(cluster, selection));
                }
                for instance in instances {
                    let cluster = name.clone();
                    let at = InstanceKey { cluster, instance };
                    let Some(mut shown) = world.view(&at) else {
                        continue;
                    };
                    match world.instance(&at).filter(|_| request.stages) {
                        Some(instance) if request.equal_once => tails.add(&mut shown, instance),
                        Some(instance) => view::printed(&mut shown, instance),
                        None => {}
                    }
                    reply.instances.push(shown);
                }
                tails_left = tails.left();
                Ok(())
            })?;
        }
        Ok(reply)
    }

    /// The clusters that a request is about: all, where neither one nor a target is named.
    pub(super) fn meant(&self, request: &v1::StatusRequest) -> Result<Vec<ClusterName>, Status> {
        if request.cluster.is_none() && Selection::from(request).is_all() {
            return Ok(self.engine.clusters());
        }
        Ok(vec![self.cluster(request.cluster.as_deref())?])
    }

    /// Asks the provider and waits until its answer is taken in.
    pub(super) async fn refresh(&self, name: &ClusterName) -> Result<(), Status> {
        let reference = self.engine.read(name, |world| {
            world
                .clusters
                .get(name)
                .map(|c| (c.spec.provider, c.reference()))
        });
        let Some((kind, reference)) = reference else {
            return Ok(());
        };
        let cluster = reference.id();
        let machines = self.lookups.machines(kind, reference).await;
        let machines = machines.map_err(|error| unseen(&error))?;
        let answer = CallAnswer::Described(Ok(machines));
        let input = Input::Answered { cluster, answer };
        self.engine.ask(input).await.map_err(unanswered)?;
        Ok(())
    }

    pub(super) fn do_facts(&self, request: &v1::TargetRequest) -> Result<v1::FactsReply, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let names = self.targets(&cluster, required(request)?)?;
        self.engine.read(&cluster, |world| {
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
        let limit = match request.limit {
            0 => 50,
            limit => limit,
        };
        let cluster = not_empty("--cluster", request.cluster.as_deref())?.map(str::to_owned);
        let unread = |error| Status::internal(Chain(&error).to_string());
        let jobs = self.store.jobs(cluster, limit).await.map_err(unread)?;
        let ids = jobs.iter().map(|job| job.id).collect();
        let mut stored = self.store.outputs(Some(ids)).await.map_err(unread)?;
        let outputs = self.outputs.clone();
        let sized = tokio::task::spawn_blocking(move || {
            let size = |(run, stored): (RunId, u64)| match stored {
                0 => outputs.size(run),
                stored => stored, // a file has the same
            };
            let sized = jobs.into_iter().map(|job| {
                let runs = stored.remove(&job.id).unwrap_or_default();
                (job, runs.into_iter().map(size).sum())
            });
            sized.collect::<Vec<_>>()
        });
        let jobs = sized.await.map_err(|_| stopping())?;
        let entry = |(job, output_bytes): (aot_model::job::Job, u64)| v1::jobs_reply::Entry {
            outcomes: wire::counts(job.targets.values().flatten().map(|end| end.outcome)),
            job_id: job.id.to_string(),
            kind: v1::JobKind::from(job.kind).into(),
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
