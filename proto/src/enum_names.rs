//! The names of the enums of operator.proto, as people and JSON see them: the one place that has them. Used by the master
//! to make answers and by the command line to show them. Pure; decides nothing.

use std::fmt;

use crate::v1;

/// What is shown for a number that this build does not know: one of a newer master.
pub(crate) const UNKNOWN: &str = "unknown";

/// Gives an enum the name of each value, and back. `zero` is what is shown for the unspecified value: nothing where it
/// stands for "there is none", else [`UNKNOWN`].
macro_rules! names {
    ($($enum:ident, zero $zero:expr, { $($value:ident = $name:literal),* $(,)? })*) => {$(
        impl v1::$enum {
            /// Every value but the unspecified one, in the order of the protocol.
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            /// As people and JSON see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::Unspecified => $zero,
                    $(Self::$value => $name,)*
                }
            }

            /// The name of a number that came over the wire, which may be of a newer peer: [`UNKNOWN`] then.
            #[must_use]
            pub fn name_of(number: i32) -> &'static str {
                Self::try_from(number).map_or(UNKNOWN, Self::as_str)
            }

            /// The value of that name; `None` when there is no such name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$value),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for v1::$enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

names! {
    Outcome, zero UNKNOWN, {
        Succeeded = "succeeded",
        Failed = "failed",
        TimedOut = "timed_out",
        Cancelled = "cancelled",
        Rejected = "rejected",
        Absent = "absent",
        LostContact = "lost_contact",
    }
    StageOutcome, zero "", {
        Succeeded = "succeeded",
        Failed = "failed",
        TimedOut = "timed_out",
        Cancelled = "cancelled",
        Rejected = "rejected",
        Absent = "absent",
        LostContact = "lost_contact",
        Interrupted = "interrupted",
        Reboot = "reboot",
    }
    StageState, zero UNKNOWN, {
        Waiting = "waiting",
        Running = "running",
        Rebooting = "rebooting",
        Succeeded = "succeeded",
        Failed = "failed",
    }
    Phase, zero "", {
        Planned = "planned",
        Requested = "requested",
        Booting = "booting",
        Enrolled = "enrolled",
        Configured = "configured",
        Bootstrapping = "bootstrapping",
        Blocked = "blocked",
        Ready = "ready",
        Failed = "failed",
        Gone = "gone",
    }
    MachineState, zero "", {
        Pending = "pending",
        Running = "running",
        Stopping = "stopping",
        Stopped = "stopped",
        ShuttingDown = "shutting-down",
        Terminated = "terminated",
    }
    Proof, zero "", {
        Token = "token",
        Document = "document",
        Challenge = "challenge",
        Both = "both",
    }
    PlanAction, zero UNKNOWN, {
        Create = "create",
        Keep = "keep",
        Rerun = "rerun",
        Resume = "resume",
        Replace = "replace",
        Orphan = "orphan",
        Terminate = "terminate",
        Check = "check",
    }
    ThingAction, zero UNKNOWN, {
        Create = "create",
        Change = "change",
        Keep = "keep",
        Allocate = "allocate",
    }
    ThingKind, zero UNKNOWN, {
        SecurityGroup = "security-group",
        Rule = "rule",
        PlacementGroup = "placement-group",
        Address = "address",
        Volume = "volume",
        InstanceProfile = "instance-profile",
    }
    JobKind, zero UNKNOWN, {
        Exec = "exec",
        Copy = "copy",
        Shell = "shell",
        Launch = "launch",
        Apply = "apply",
        Start = "start",
        Stop = "stop",
        Reboot = "reboot",
        Terminate = "terminate",
        Cleanup = "cleanup",
        Orphans = "orphans",
        Update = "update",
        Forward = "forward",
    }
    LifecycleAction, zero UNKNOWN, {
        Start = "start",
        Stop = "stop",
        Reboot = "reboot",
    }
    OrphanReason, zero UNKNOWN, {
        UnknownCluster = "unknown cluster",
        NotAnInstanceOfIt = "not an instance of it",
        NotInTheAccount = "not in the account",
    }
    FindingLevel, zero UNKNOWN, {
        Ok = "ok",
        Skipped = "skipped",
        Warn = "warn",
        Fail = "fail",
    }
    BuiltinName, zero "", {
        Ping = "ping",
        Facts = "facts",
        Version = "version",
        Stat = "stat",
        Tail = "tail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What prost generates for a value, `SHUTTING_DOWN`, as we write it.
    fn as_generated(prefix: &str, generated: &str) -> String {
        let name = generated.strip_prefix(prefix).expect("the enum's prefix");
        name.to_lowercase()
    }

    macro_rules! check {
        ($($enum:ident $prefix:literal),* $(,)?) => {$(
            let mut number = 0;
            while let Ok(value) = v1::$enum::try_from(number) {
                if number > 0 {
                    assert_eq!(v1::$enum::from_name(value.as_str()), Some(value));
                    assert_eq!(v1::$enum::ALL.get(number as usize - 1), Some(&value));
                    let generated = as_generated($prefix, value.as_str_name());
                    assert_eq!(value.as_str().replace(['-', ' '], "_"), generated);
                }
                assert_eq!(v1::$enum::name_of(number), value.as_str());
                number += 1;
            }
            assert_eq!(v1::$enum::ALL.len(), number as usize - 1, "{}", stringify!($enum));
            for strange in [number, -1, i32::MAX] {
                assert_eq!(v1::$enum::name_of(strange), UNKNOWN, "{}", stringify!($enum));
            }
            for strange in ["", UNKNOWN, "no such name"] {
                assert_eq!(v1::$enum::from_name(strange), None, "{}", stringify!($enum));
            }
        )*};
    }

    #[test]
    fn every_value_has_its_name_and_back_and_a_number_of_a_newer_peer_is_unknown() {
        check!(
            Outcome "OUTCOME_",
            StageOutcome "STAGE_OUTCOME_",
            StageState "STAGE_STATE_",
            Phase "PHASE_",
            MachineState "MACHINE_STATE_",
            Proof "PROOF_",
            PlanAction "PLAN_ACTION_",
            ThingAction "THING_ACTION_",
            ThingKind "THING_KIND_",
            JobKind "JOB_KIND_",
            LifecycleAction "LIFECYCLE_ACTION_",
            OrphanReason "ORPHAN_REASON_",
            FindingLevel "FINDING_LEVEL_",
            BuiltinName "BUILTIN_NAME_",
        );
    }

    #[test]
    fn a_name_is_padded_as_a_text_is() {
        assert_eq!(format!("{:<8}|", v1::PlanAction::Keep), "keep    |");
    }
}
