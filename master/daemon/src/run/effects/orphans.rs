//! Deletes what carries the tags of a cluster that the world does not know; each step is an input of its job.

use aot_model::machine::ClusterRef;
use aot_model::spec::ProviderKind;
use aot_model::world::Input;
use aot_proto::ids::{InstanceName, JobId};
use futures::future::BoxFuture;

use super::results::{failure, receipt_lines};
use crate::run::decide::Loop;
use crate::run::orphans;

impl Loop {
    pub(super) fn call_orphans(&self, job: JobId, cluster: ClusterRef, place: InstanceName) {
        let kind = match cluster.region {
            Some(_) => ProviderKind::Ec2,
            None => ProviderKind::Local,
        };
        let (parts, engine) = (self.parts.clone(), self.engine.clone());
        self.spawn(async move {
            let reporter = engine.clone();
            let report = move |text| -> BoxFuture<'static, ()> {
                let engine = reporter.clone();
                Box::pin(async move { engine.submit(Input::OrphansSeen { job, text }).await })
            };
            let result = match parts.providers.get(kind, cluster.region.as_deref()).await {
                Ok(provider) => orphans::delete(&*provider, &cluster, report).await,
                Err(error) => Err(error),
            };
            let result = result.map(receipt_lines).map_err(failure);
            let input = Input::OrphansDeleted { job, place, result };
            engine.submit(input).await;
        });
    }
}
