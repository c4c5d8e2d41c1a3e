//! What the end record of a run says: how its process ended, and why it was stopped where it was. Pure. Used by the
//! supervisor, which adds what it has counted.

use aot_proto::v1::{EndKind, Ended};
use nix::sys::wait::WaitStatus;

use crate::runner::spool::ended;

/// How a process and its tree came to their end.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Why they were stopped; `None` when the process ended by itself.
    pub stopped: Option<EndKind>,
    /// As wait(2) reported it; `None` when it did not.
    pub status: Option<WaitStatus>,
    /// How many processes KILL was sent to.
    pub killed: usize,
    /// Whether some of them could not be killed.
    pub gave_up: bool,
}

/// The end record without its figures. Why a process was stopped goes before how it then ended: most end by the signal.
pub(super) fn end_record(facts: &Facts) -> Ended {
    match (facts.stopped, facts.status) {
        (Some(kind), _) => ended(kind, stop_reason(kind, facts)),
        (None, Some(WaitStatus::Exited(_, exit_code))) => Ended {
            kind: EndKind::Exited.into(),
            exit_code,
            ..Ended::default()
        },
        (None, Some(WaitStatus::Signaled(_, signal, core))) => {
            let core = if core { ", core dumped" } else { "" };
            let detail = format!("killed by {signal}{core}");
            Ended {
                signal: signal as i32,
                ..ended(EndKind::Signalled, detail)
            }
        }
        (None, Some(status)) => ended(
            EndKind::Interrupted,
            format!("the process was lost: {status:?}"),
        ),
        (None, None) => ended(
            EndKind::Interrupted,
            "it has ended, and it is not known how",
        ),
    }
}

fn stop_reason(kind: EndKind, facts: &Facts) -> String {
    let why = match kind {
        EndKind::TimedOut => "stopped: it ran longer than its timeout",
        EndKind::Silent => "stopped: it printed nothing for longer than its silence timeout",
        _ => "stopped: it was cancelled",
    };
    let killed = match facts.killed {
        0 => String::new(),
        1 => "; 1 process ignored TERM and was killed".to_owned(),
        many => format!("; {many} processes ignored TERM and were killed"),
    };
    let left = match facts.gave_up {
        true => "; some processes could not be killed and may still be there",
        false => "",
    };
    format!("{why}{killed}{left}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    #[test]
    fn an_end_names_its_cause() {
        let pid = Pid::from_raw(7);
        let exited = Some(WaitStatus::Exited(pid, 3));
        let killed = Some(WaitStatus::Signaled(pid, Signal::SIGKILL, false));
        let dumped = Some(WaitStatus::Signaled(pid, Signal::SIGSEGV, true));
        for (stopped, status, kind, detail) in [
            (None, exited, EndKind::Exited, ""),
            (None, killed, EndKind::Signalled, "killed by SIGKILL"),
            (
                None,
                dumped,
                EndKind::Signalled,
                "killed by SIGSEGV, core dumped",
            ),
            (
                None,
                None,
                EndKind::Interrupted,
                "it has ended, and it is not known how",
            ),
            (
                Some(EndKind::TimedOut),
                killed,
                EndKind::TimedOut,
                "stopped: it ran longer than its timeout",
            ),
        ] {
            let end = end_record(&Facts {
                stopped,
                status,
                ..Facts::default()
            });
            assert_eq!((end.kind(), &*end.detail), (kind, detail), "{status:?}");
        }
    }

    #[test]
    fn those_that_had_to_be_killed_are_counted() {
        let detail = |killed, gave_up| {
            let facts = Facts {
                stopped: Some(EndKind::Cancelled),
                status: None,
                killed,
                gave_up,
            };
            end_record(&facts).detail
        };
        let end = "stopped: it was cancelled";
        assert_eq!(detail(0, false), end);
        assert_eq!(
            detail(1, false),
            format!("{end}; 1 process ignored TERM and was killed")
        );
        assert_eq!(
            detail(2, true),
            format!(
                "{end}; 2 processes ignored TERM and were killed; some processes could not be killed and may still be there"
            )
        );
    }
}
