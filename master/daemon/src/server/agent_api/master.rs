//! The master as a session's reports see it: each question and input of theirs, over the loop and what it stores.

use std::sync::Arc;

use aot_model::key::InstanceKey;
use aot_model::run::RunKind;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{ClusterName, JobId, RunId, SpiffeId};
use aot_proto::v1;
use aot_store::room::Room;
use aot_store::spool::Spools;
use prost::bytes::Bytes;
use tokio::sync::Semaphore;

use super::AgentApi;
use crate::enrol::ca;
use crate::server::transfers::Copied;
use crate::session::registry::Registry;
use crate::session::reports::{Greeting, Master, OwnRun};

impl Master for AgentApi {
    fn spools(&self) -> &Arc<Spools> {
        &self.spools
    }

    fn room(&self) -> &Room {
        &self.room
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn addresses(&self) -> Vec<String> {
        self.finder.addresses(&self.advertised)
    }

    fn epoch(&self, cluster: &ClusterName) -> i64 {
        self.engine.epoch(cluster)
    }

    fn facts_turns(&self) -> &Semaphore {
        &self.facts
    }

    fn greeting(&self, at: &InstanceKey) -> Greeting {
        let instances = self.engine.instance_count();
        self.engine.read(&at.cluster, |world| {
            let instance = world.instance(at);
            let (main_user, hostname) =
                instance.map_or_else(Default::default, |i| (i.user.clone(), i.hostname.clone()));
            Greeting {
                main_user,
                hostname,
                open: world.runs_of(at).map(|run| run.id).collect(),
                instances,
            }
        })
    }

    fn own_run(&self, at: &InstanceKey, session: u64, run: RunId) -> Option<OwnRun> {
        self.engine.read(&at.cluster, |world| {
            let run = world.own_run(at, session, run)?;
            Some(OwnRun {
                job: run.job,
                output_cap: world.output_cap(run),
                is_stage: !matches!(run.what, RunKind::Task),
                is_archive: world.prints_archive(run),
            })
        })
    }

    async fn submit(&self, input: Input) {
        self.engine.submit(input).await;
    }

    async fn decide(&self, input: Input) -> bool {
        self.engine.decide(input).await
    }

    async fn submit_end(
        &self,
        at: InstanceKey,
        session: u64,
        report: AgentInput,
        spool: Option<(RunId, Bytes)>,
    ) {
        self.engine
            .submit_with_spool(at, session, report, spool)
            .await;
    }

    fn outputs_are_shared(&self) -> bool {
        self.outputs.are_shared()
    }

    fn outputs_are_put(&self) -> bool {
        self.outputs.are_put()
    }

    fn submit_once_put(&self, at: &InstanceKey, run: RunId, ended: Box<v1::Ended>) {
        self.engine
            .submit_once_put(&self.outputs, &at.cluster, run, ended);
    }

    fn copy_progress(&self, job: JobId, at: &InstanceKey, progress: &v1::CopyProgress) {
        self.transfers.publish(Copied {
            job,
            instance: at.instance.clone(),
            bytes: progress.bytes,
            total: progress.total_bytes,
        });
    }

    async fn renew(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        session: u64,
        asked_with: String,
    ) -> Result<ca::Issued, String> {
        let csr = ca::read_request(csr_der).map_err(|error| error.to_string())?;
        let issued = self.issue(&csr, id, Some((session, asked_with))).await;
        issued.map_err(|status| status.message().to_owned())
    }
}
