//! The life of an instance as a table. Data lives in the instance's record, not in the phases.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an instance is on its way to ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Wanted; no call made yet.
    Planned,
    /// Asked of the provider; no answer yet.
    Requested,
    /// There is a machine; its agent has not enrolled.
    Booting,
    /// Its agent has a certificate.
    Enrolled,
    /// It has acknowledged cluster facts.
    Configured,
    /// A stage runs, or has run and another waits.
    Bootstrapping,
    /// Its next stage waits for one elsewhere that failed or is gone: nothing starts it before someone steps in.
    Blocked,
    /// Every stage succeeded.
    Ready,
    /// A stage failed, or it never came up. Its machine, if any, is kept.
    Failed,
    /// Its machine is gone for good.
    Gone,
}

/// What can happen to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happened {
    /// The provider was asked for a machine.
    Request,
    /// The provider gave one.
    Launched,
    /// The provider refused, for good.
    Refused,
    /// The agent got a certificate.
    Enrolled,
    /// The agent acknowledged cluster facts.
    FactsApplied,
    /// A stage has to run, where none had to before.
    StagesWanted,
    /// A stage was started.
    StageStarted,
    /// No stage is left to run.
    StagesDone,
    /// A stage failed.
    StageFailed,
    /// Its stages succeeded, and the check that followed did not.
    HealthFailed,
    /// What the next stage waits for elsewhere has failed or is gone.
    NeedsFailed,
    /// What the next stage waits for elsewhere may come after all.
    NeedsMayCome,
    /// A volume that the file wants mounted could not be.
    VolumesFailed,
    /// The launch's time is up and it has not written the cluster facts.
    FactsFailed,
    /// The launch's time is up and the agent never enrolled.
    Deadline,
    /// Its identity was taken away.
    Revoked,
    /// The provider says the machine is terminated.
    MachineGone,
}

/// All of them.
#[cfg(test)]
pub(crate) const HAPPENINGS: [Happened; 17] = [
    Happened::Request,
    Happened::Launched,
    Happened::Refused,
    Happened::Enrolled,
    Happened::FactsApplied,
    Happened::StagesWanted,
    Happened::StageStarted,
    Happened::StagesDone,
    Happened::StageFailed,
    Happened::HealthFailed,
    Happened::NeedsFailed,
    Happened::NeedsMayCome,
    Happened::VolumesFailed,
    Happened::FactsFailed,
    Happened::Deadline,
    Happened::Revoked,
    Happened::MachineGone,
];

/// Every legal step. A pair that is absent changes nothing.
pub const STEPS: &[(Phase, Happened, Phase)] = &[
    (Phase::Planned, Happened::Request, Phase::Requested),
    (Phase::Requested, Happened::Launched, Phase::Booting),
    (Phase::Requested, Happened::Refused, Phase::Failed),
    (Phase::Requested, Happened::Deadline, Phase::Failed),
    (Phase::Requested, Happened::MachineGone, Phase::Gone),
    (Phase::Booting, Happened::Enrolled, Phase::Enrolled),
    (Phase::Booting, Happened::Deadline, Phase::Failed),
    (Phase::Booting, Happened::Revoked, Phase::Failed),
    (Phase::Booting, Happened::MachineGone, Phase::Gone),
    (Phase::Enrolled, Happened::FactsApplied, Phase::Configured),
    (Phase::Enrolled, Happened::VolumesFailed, Phase::Failed),
    (Phase::Enrolled, Happened::FactsFailed, Phase::Failed),
    (Phase::Enrolled, Happened::Revoked, Phase::Failed),
    (Phase::Enrolled, Happened::MachineGone, Phase::Gone),
    (
        Phase::Configured,
        Happened::StageStarted,
        Phase::Bootstrapping,
    ),
    (Phase::Configured, Happened::NeedsFailed, Phase::Blocked),
    (Phase::Configured, Happened::StagesDone, Phase::Ready),
    (Phase::Configured, Happened::HealthFailed, Phase::Failed),
    (Phase::Configured, Happened::VolumesFailed, Phase::Failed),
    (Phase::Configured, Happened::FactsFailed, Phase::Failed),
    (Phase::Configured, Happened::Revoked, Phase::Failed),
    (Phase::Configured, Happened::MachineGone, Phase::Gone),
    (Phase::Bootstrapping, Happened::StagesDone, Phase::Ready),
    (Phase::Bootstrapping, Happened::NeedsFailed, Phase::Blocked),
    (Phase::Bootstrapping, Happened::StageFailed, Phase::Failed),
    (Phase::Bootstrapping, Happened::HealthFailed, Phase::Failed),
    (Phase::Bootstrapping, Happened::VolumesFailed, Phase::Failed),
    (Phase::Bootstrapping, Happened::Revoked, Phase::Failed),
    (Phase::Bootstrapping, Happened::MachineGone, Phase::Gone),
    (Phase::Blocked, Happened::NeedsMayCome, Phase::Configured),
    (Phase::Blocked, Happened::VolumesFailed, Phase::Failed),
    (Phase::Blocked, Happened::Revoked, Phase::Failed),
    (Phase::Blocked, Happened::MachineGone, Phase::Gone),
    (Phase::Ready, Happened::StagesWanted, Phase::Configured),
    (Phase::Ready, Happened::VolumesFailed, Phase::Failed),
    (Phase::Ready, Happened::Revoked, Phase::Failed),
    (Phase::Ready, Happened::MachineGone, Phase::Gone),
    // A failed instance is taken up where it stands: without a machine, with one that is late, with a stage to repeat.
    (Phase::Failed, Happened::Request, Phase::Requested),
    (Phase::Failed, Happened::Launched, Phase::Booting),
    (Phase::Failed, Happened::Enrolled, Phase::Enrolled),
    (Phase::Failed, Happened::StagesWanted, Phase::Configured),
    (Phase::Failed, Happened::MachineGone, Phase::Gone),
    (Phase::Gone, Happened::Request, Phase::Requested),
];

/// Where `happened` leads from `phase`; `None` when it changes nothing.
pub fn step(phase: Phase, happened: Happened) -> Option<Phase> {
    STEPS
        .iter()
        .find(|row| row.0 == phase && row.1 == happened)
        .map(|row| row.2)
}

impl Phase {
    /// As users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Requested => "requested",
            Self::Booting => "booting",
            Self::Enrolled => "enrolled",
            Self::Configured => "configured",
            Self::Bootstrapping => "bootstrapping",
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }

    /// Whether a launch has nothing more to wait for here.
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Gone)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The table as a Mermaid state diagram; ARCHITECTURE.md carries it, and a test compares the two.
#[cfg(test)]
pub(crate) fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n");
    for (from, happened, to) in STEPS {
        text.push_str(&format!("    {from} --> {to}: {happened:?}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_pair_has_two_rows() {
        let pairs: BTreeSet<String> = STEPS
            .iter()
            .map(|row| format!("{:?}{:?}", row.0, row.1))
            .collect();
        assert_eq!(pairs.len(), STEPS.len());
    }

    #[test]
    fn every_phase_that_waits_for_a_machine_or_an_agent_has_a_deadline() {
        for phase in [Phase::Requested, Phase::Booting] {
            assert_eq!(step(phase, Happened::Deadline), Some(Phase::Failed));
        }
    }

    #[test]
    fn whatever_has_a_machine_can_lose_it() {
        for phase in Phase::ALL.iter().copied() {
            let lost = step(phase, Happened::MachineGone);
            match phase {
                Phase::Planned | Phase::Gone => assert_eq!(lost, None),
                _ => assert_eq!(lost, Some(Phase::Gone), "{phase}"),
            }
        }
    }

    #[test]
    fn ready_is_reached_from_every_phase() {
        for from in Phase::ALL.iter().copied() {
            let mut seen = vec![from];
            let mut at = 0;
            while at < seen.len() {
                for happened in HAPPENINGS {
                    if let Some(to) = step(seen[at], happened)
                        && !seen.contains(&to)
                    {
                        seen.push(to);
                    }
                }
                at += 1;
            }
            assert!(seen.contains(&Phase::Ready), "no way from {from} to ready");
        }
    }

    #[test]
    fn nothing_but_finished_stages_makes_an_instance_ready() {
        for (_, happened, to) in STEPS {
            assert_eq!(*to == Phase::Ready, *happened == Happened::StagesDone);
        }
    }

    #[test]
    fn the_architecture_page_shows_this_table() {
        let page = include_str!("../../../ARCHITECTURE.md");
        assert!(
            page.contains(&diagram()),
            "ARCHITECTURE.md wants:\n{}",
            diagram()
        );
    }
}
