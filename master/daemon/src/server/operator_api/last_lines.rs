//! What stages printed last which are under way: of few instances at a time, as often as whoever looks at them asks.

use aot_model::stage::StageState;
use aot_proto::ids::{ClusterName, InstanceName, RunId};
use aot_proto::limits::MAX_LAST_LINES;
use aot_proto::v1;
use aot_proto::v1::last_lines_reply::Line;
use tonic::Status;

use super::{OperatorApi, stopping};

impl OperatorApi {
    pub(super) async fn do_last_lines(
        &self,
        request: v1::LastLinesRequest,
    ) -> Result<v1::LastLinesReply, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let runs = self.stages_that_run(&cluster, &request.instances);
        let spools = self.spools.clone();
        let read = move || {
            let line = |(instance, stage, run): (InstanceName, u32, RunId)| {
                Some(Line {
                    instance: instance.to_string(),
                    stage,
                    text: spools.last_line(run)?,
                })
            };
            runs.into_iter().filter_map(line).collect()
        };
        let lines = tokio::task::spawn_blocking(read).await;
        let lines = lines.map_err(|_| stopping())?;
        Ok(v1::LastLinesReply { lines })
    }

    /// The stages that run on these instances, as far as they are answered.
    fn stages_that_run(
        &self,
        cluster: &ClusterName,
        instances: &[String],
    ) -> Vec<(InstanceName, u32, RunId)> {
        self.engine.read(cluster, |world| {
            let named = instances.iter().take(MAX_LAST_LINES);
            let run = |name: &String| {
                let name: InstanceName = name.parse().ok()?;
                let instance = world.clusters.get(cluster)?.instances.get(&name)?;
                let mut stages = (0..).zip(&instance.stages);
                let (index, stage) = stages.find(|(_, it)| it.state == StageState::Running)?;
                Some((name, index, stage.run?))
            };
            named.filter_map(run).collect()
        })
    }
}
