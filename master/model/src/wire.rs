//! The model's enums as operator.proto has them. Used wherever an answer to an operator is made; their names are in
//! `aot_proto`, and a test sees that both sides agree. Pure.

use aot_proto::v1;

use super::attestation::Proof;
use super::job::JobKind;
use super::machine::MachineState;
use super::outcome::Outcome;
use super::phase::Phase;
use super::plan::PlanAction;
use super::stage::StageOutcome;
use super::stage::StageState;

/// The match has every value, or does not compile: so has the list.
macro_rules! same {
    ($($enum:ident { $($value:ident),* $(,)? })*) => {$(
        impl $enum {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$value),*];
        }

        impl From<$enum> for v1::$enum {
            fn from(value: $enum) -> Self {
                match value {
                    $($enum::$value => Self::$value,)*
                }
            }
        }
    )*};
}

same! {
    Outcome { Succeeded, Failed, TimedOut, Cancelled, Rejected, Absent, LostContact }
    StageOutcome { Succeeded, Failed, TimedOut, Cancelled, Rejected, Absent, LostContact, Interrupted, Reboot }
    StageState { Waiting, Running, Rebooting, Succeeded, Failed }
    Phase { Planned, Requested, Booting, Enrolled, Configured, Bootstrapping, Blocked, Ready, Failed, Gone }
    MachineState { Pending, Running, Stopping, Stopped, ShuttingDown, Terminated }
    Proof { Token, Document, Challenge, Both }
    JobKind { Exec, Copy, Shell, Launch, Apply, Start, Stop, Reboot, Terminate, Cleanup, Orphans, Update, Forward }
}

impl From<PlanAction> for v1::PlanAction {
    fn from(action: PlanAction) -> Self {
        match action {
            PlanAction::Create => Self::Create,
            PlanAction::Keep => Self::Keep,
            PlanAction::Check => Self::Check,
            PlanAction::Rerun { .. } => Self::Rerun,
            PlanAction::Resume => Self::Resume,
            PlanAction::Orphan => Self::Orphan,
            PlanAction::Terminate => Self::Terminate,
        }
    }
}

/// The state that a number names; `None` for none, and for one that this build does not know.
pub fn machine_state(number: i32) -> Option<MachineState> {
    let found = |state: &&MachineState| number == v1::MachineState::from(**state) as i32;
    MachineState::ALL.iter().find(found).copied()
}

/// The phase that a number names; `None` for none, and for one that this build does not know.
pub fn phase(number: i32) -> Option<Phase> {
    let found = |phase: &&Phase| number == v1::Phase::from(**phase) as i32;
    Phase::ALL.iter().find(found).copied()
}

/// How many targets ended how.
pub fn counts(outcomes: impl IntoIterator<Item = Outcome>) -> Vec<v1::OutcomeCount> {
    let mut counts: std::collections::BTreeMap<Outcome, u32> = std::collections::BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    let count = |(outcome, count)| v1::OutcomeCount {
        outcome: v1::Outcome::from(outcome).into(),
        count,
    };
    counts.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! agree {
        ($($enum:ident)*) => {$(
            for value in $enum::ALL {
                assert_eq!(v1::$enum::from(*value).as_str(), value.as_str());
            }
            assert_eq!($enum::ALL.len(), v1::$enum::ALL.len(), stringify!($enum));
        )*};
    }

    #[test]
    fn both_sides_have_the_same_names() {
        agree! { Outcome StageOutcome StageState Phase MachineState Proof JobKind }
        for action in [
            PlanAction::Create,
            PlanAction::Keep,
            PlanAction::Check,
            PlanAction::Rerun { from: 0 },
            PlanAction::Resume,
            PlanAction::Orphan,
            PlanAction::Terminate,
        ] {
            assert_eq!(v1::PlanAction::from(action).as_str(), action.as_str());
        }
    }

    #[test]
    fn a_number_of_the_wire_is_read_back_and_a_strange_one_is_none() {
        for state in MachineState::ALL {
            let number = v1::MachineState::from(*state).into();
            assert_eq!(machine_state(number).as_ref(), Some(state));
        }
        for value in Phase::ALL {
            assert_eq!(phase(v1::Phase::from(*value).into()).as_ref(), Some(value));
        }
        assert_eq!((machine_state(0), phase(0)), (None, None));
        assert_eq!((machine_state(99), phase(-1)), (None, None));
    }

    #[test]
    fn outcomes_are_counted_once_each() {
        let counted = counts([Outcome::Failed, Outcome::Succeeded, Outcome::Failed]);
        let pairs: Vec<_> = counted.iter().map(|it| (it.outcome(), it.count)).collect();
        assert_eq!(
            pairs,
            [(v1::Outcome::Succeeded, 1), (v1::Outcome::Failed, 2)]
        );
    }
}
