//! When a stream of events is over, and whether an instance is what somebody waits for. Pure; called by `events`, and named
//! by every call that ends with such a stream.

use aot_model::instance::Instance;
use aot_model::machine::MachineState;
use aot_model::phase::Phase;
use aot_model::world::{is_rebooted, is_up};
use aot_proto::ids::{InstanceName, JobId};

/// When a stream of events is over.
pub(crate) enum Until {
    /// When nothing is left of the cluster.
    Gone,
    /// When this job ends.
    Job(JobId),
    /// When this cleanup of the cluster ends.
    Cleanup(JobId),
    /// When this job ends, which is of no cluster that this master has.
    Aside(JobId),
    /// When these instances have reached a state or phase.
    Reached {
        instances: Vec<InstanceName>,
        /// What all of them must be.
        goal: Goal,
        /// Not later than this; `None` = whenever.
        deadline: Option<tokio::time::Instant>,
        /// The job that is to bring them there; its end is on record before the last event.
        job: Option<JobId>,
    },
    /// When these instances' machines are terminated, or it is known which of them stay.
    Terminated {
        instances: Vec<InstanceName>,
        /// The job that ends them.
        job: JobId,
    },
}

/// What instances are waited for to be.
pub(crate) enum Goal {
    /// Their machines in this state.
    State(MachineState),
    /// In this phase.
    Phase(Phase),
    /// Running, with their agents back.
    Up,
    /// Running, with their agents back after a boot that is not this one.
    Rebooted(Vec<(InstanceName, String)>),
}

impl Goal {
    /// As in `[1/4] instances 'running'`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::State(state) => state.as_str(),
            Self::Phase(phase) => phase.as_str(),
            Self::Up => "running",
            Self::Rebooted(_) => "rebooted",
        }
    }

    /// Whether an instance is there; `None` is one that the cluster no longer has.
    pub(super) fn is_met(&self, name: &InstanceName, instance: Option<&Instance>) -> bool {
        let Some(instance) = instance else {
            return matches!(
                self,
                Self::State(MachineState::Terminated) | Self::Phase(Phase::Gone)
            );
        };
        match self {
            // Ready is what can be worked with: a machine that was stopped, or whose agent is away, is not.
            Self::Phase(Phase::Ready) => instance.phase == Phase::Ready && is_up(instance),
            Self::Phase(phase) => instance.phase == *phase,
            Self::State(state) => {
                let machine = instance.machine.as_ref();
                machine.is_some_and(|machine| machine.state == *state)
            }
            Self::Up => is_up(instance),
            Self::Rebooted(before) => {
                let old = before.iter().find(|(other, _)| other == name);
                match old {
                    Some((_, boot_id)) => is_rebooted(instance, boot_id),
                    None => is_up(instance),
                }
            }
        }
    }
}
