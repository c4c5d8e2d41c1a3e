//! Begins the deletion of what carries the tag of a cluster that this master does not have, and follows it. Asked for by
//! an operator, by uuid; the uuids of clusters in the store are refused.

use std::collections::BTreeMap;

use aot_model::job::{Job, JobKind};
use aot_model::world::{DeleteOrphansAsk, Input};
use aot_proto::headers;
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use tonic::Status;

use super::super::end::{BegunJob, started};
use super::super::events::Until;
use super::super::others::about;
use super::super::request::BegunEvents;
use super::super::{Asker, OperatorApi, not_empty};
use super::unread;

/// A cluster that is to be deleted, and where it has things.
struct Doomed {
    cluster: ClusterName,
    places: BTreeMap<InstanceName, Option<String>>,
}

impl OperatorApi {
    pub(in super::super) async fn do_delete_orphans(
        &self,
        request: v1::DeleteOrphansRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let v1::DeleteOrphansRequest { uuid, region } = request;
        not_empty("--delete", Some(&uuid))?;
        let region = not_empty("--region", region.as_deref())?
            .unwrap_or_default()
            .to_owned();
        let what = format!("orphans --delete {uuid}");
        if let Some(job) = self.deletion_begun(&what, &asker).await? {
            return Ok(self.joined(&job, false).await);
        }
        self.refuse_ours(&uuid).await?;
        let doomed = self
            .doomed(&uuid, &region)
            .await?
            .ok_or_else(|| Status::not_found(format!("nothing has the tag of a cluster {uuid}")))?;
        self.refuse_ours(&uuid).await?;
        // Another cluster may have the name by now: its master decides for all that has it.
        if !asker.here
            && let Some(master) = self.ways.elsewhere(&doomed.cluster).await?
        {
            let mut other = self
                .ways
                .client(master, &self.ways.abroad(&asker.operator))?;
            let region = (!region.is_empty()).then_some(region);
            let request = v1::DeleteOrphansRequest { uuid, region };
            let mut request = about(&doomed.cluster, request);
            if let Some(id) = asker.request {
                headers::set(request.metadata_mut(), headers::REQUEST, &id.to_string());
            }
            return Ok(BegunEvents::of(other.delete_orphans(request).await?));
        }
        let published = self.engine.subscribe();
        let wanted = asker.wants(JobKind::Orphans, &doomed.cluster, &what);
        let ask = DeleteOrphansAsk {
            by: wanted.by(asker.request),
            cluster: doomed.cluster.clone(),
            uuid,
            places: doomed.places,
        };
        let job = match started(self.engine.ask(Input::DeleteOrphans(ask)).await)? {
            BegunJob::Now(job) => job,
            BegunJob::Before(id) => return self.rejoined(id, &wanted).await,
        };
        let events = self.follow(doomed.cluster, Until::Aside(job), published, Vec::new());
        let job = Some(job);
        Ok(BegunEvents { job, events })
    }

    /// The deletion that this very request has begun. Which cluster it is about its record says: by now nothing else may.
    async fn deletion_begun(&self, what: &str, asker: &Asker) -> Result<Option<Job>, Status> {
        let Some(cluster) = self.cluster_of_job(asker.request).await? else {
            return Ok(None);
        };
        let wanted = asker.wants(JobKind::Orphans, &cluster, what);
        self.begun(asker.request, &wanted).await
    }

    /// Said before any region is asked, and again when that is done; the world of a cluster of that name decides once more.
    async fn refuse_ours(&self, uuid: &str) -> Result<(), Status> {
        let ours = self.engine.read_everywhere(|world| world.is_ours(uuid));
        let ours = ours.await.map_err(unread)?;
        match ours.into_iter().flatten().next() {
            Some(why) => Err(Status::failed_precondition(why)),
            None => Ok(()),
        }
    }

    /// The places that have things with this uuid; only `region` when one is given.
    async fn doomed(&self, uuid: &str, region: &str) -> Result<Option<Doomed>, Status> {
        let default = self.lookups.default_region().await;
        let mut doomed: Option<Doomed> = None;
        for place in self.places(region, default.as_deref()).await? {
            if !region.is_empty() && place.name != region {
                continue;
            }
            let tagged = match self.tagged(&place).await {
                Ok(tagged) => tagged,
                Err(status) if place.needed => return Err(status),
                Err(_) => continue,
            };
            let mut found = tagged.iter();
            let Some(thing) = found.find(|thing| !thing.gone && thing.uuid == uuid) else {
                continue;
            };
            let cluster: ClusterName = thing.cluster.parse().map_err(|_| {
                Status::failed_precondition(format!(
                    "the Cluster tag {:?} of what carries {uuid} is not the name of a cluster: aot did not create it",
                    thing.cluster
                ))
            })?;
            let target = place.name.parse().map_err(|_| {
                Status::failed_precondition(format!("{:?} is not a region", place.name))
            })?;
            let doomed = doomed.get_or_insert_with(|| Doomed {
                cluster,
                places: BTreeMap::new(),
            });
            doomed.places.insert(target, place.region);
        }
        Ok(doomed)
    }
}
