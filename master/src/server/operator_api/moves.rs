//! Start, stop, reboot: asked of the provider at once, then followed until all are there.

use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};
use aot_proto::v1;
use tonic::Status;

use super::watch::{Goal, Until};
use super::{Events, OperatorApi, stopping};
use crate::model::machine::{ClusterRef, ErrorKind, MachineState};
use crate::model::world::Input;
use crate::provider::{Lifecycle, ProviderError};

/// Longest wait unless said.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// An instance whose machine is to be moved.
struct Mover {
    name: InstanceName,
    machine: MachineId,
    state: MachineState,
    /// Boot id of its agent's last session; empty when it never called home.
    boot_id: String,
}

impl OperatorApi {
    pub(super) async fn do_lifecycle(
        &self,
        request: v1::LifecycleRequest,
    ) -> Result<Events, Status> {
        let (action, goal) = match request.action.as_str() {
            "start" => (Lifecycle::Start, Goal::Up),
            "stop" => (Lifecycle::Stop, Goal::State("stopped".to_owned())),
            "reboot" => (Lifecycle::Reboot, Goal::Rebooted(Vec::new())),
            other => {
                return Err(Status::invalid_argument(format!(
                    "{other:?} is none of start, stop, reboot"
                )));
            }
        };
        let cluster = self.cluster(&request.cluster)?;
        let instances = self.targets(&cluster, &request)?;
        let (kind, reference, movers) = self.movers(&cluster, &instances)?;
        refuse_impossible(action, &movers)?;
        let goal = match goal {
            Goal::Rebooted(_) => Goal::Rebooted(boots(&movers)),
            other => other,
        };
        let told = self.engine.watch();
        let machines: Vec<MachineId> = movers.iter().map(|it| it.machine.clone()).collect();
        let provider = self
            .providers
            .get(kind, reference.region.as_deref())
            .await
            .map_err(|error| refused(&error))?;
        provider
            .lifecycle(&reference, action, &machines)
            .await
            .map_err(|error| refused(&error))?;
        let poll = Input::Poll {
            cluster: cluster.clone(),
        };
        self.engine.ask(poll).await.ok_or_else(stopping)?;
        let limit = match request.timeout_ms {
            0 => LIMIT,
            ms => Duration::from_millis(ms),
        };
        let until = Until::Reached {
            instances: movers.into_iter().map(|it| it.name).collect(),
            goal,
            deadline: Some(tokio::time::Instant::now() + limit),
        };
        Ok(self.follow(cluster, until, told, Vec::new()))
    }

    /// The target's instances that have a machine; it is an error when none has.
    fn movers(
        &self,
        cluster: &ClusterName,
        instances: &[InstanceName],
    ) -> Result<(crate::model::file::ProviderKind, ClusterRef, Vec<Mover>), Status> {
        let found = self.engine.look(|world| {
            let found = world.clusters.get(cluster)?;
            let mover = |name: &InstanceName| {
                let instance = found.instances.get(name)?;
                let machine = instance.machine.as_ref().filter(|m| !m.state.is_ending())?;
                Some(Mover {
                    name: name.clone(),
                    machine: machine.id.clone(),
                    state: machine.state,
                    boot_id: instance.boot_id.clone(),
                })
            };
            let movers = instances.iter().filter_map(mover).collect::<Vec<_>>();
            Some((found.spec.provider, found.reference(), movers))
        });
        match found {
            None => Err(Status::not_found("the cluster is gone")),
            Some((_, _, movers)) if movers.is_empty() => Err(Status::not_found(format!(
                "no instance of the target in cluster {cluster} has a machine"
            ))),
            Some(found) => Ok(found),
        }
    }
}

/// Whom a reboot is waited for: those whose agent can say that it happened.
fn boots(movers: &[Mover]) -> Vec<(InstanceName, String)> {
    movers
        .iter()
        .map(|it| (it.name.clone(), it.boot_id.clone()))
        .collect()
}

/// A machine that is down can't be rebooted: said before any of them is touched.
fn refuse_impossible(action: Lifecycle, movers: &[Mover]) -> Result<(), Status> {
    let down: Vec<&str> = movers
        .iter()
        .filter(|it| matches!(it.state, MachineState::Stopped | MachineState::Stopping))
        .map(|it| it.name.as_str())
        .collect();
    if action == Lifecycle::Reboot && !down.is_empty() {
        return Err(Status::failed_precondition(format!(
            "stopped, so it can't be rebooted: {}; start it instead",
            down.join(", ")
        )));
    }
    Ok(())
}

fn refused(error: &ProviderError) -> Status {
    match error.kind {
        ErrorKind::Throttled | ErrorKind::Unavailable => Status::unavailable(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}
