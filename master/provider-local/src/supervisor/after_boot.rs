//! Decides what follows a boot: what a signal asks for, and whether the clone stays down. Pure.

use nix::sys::signal::Signal;

use crate::boot::BootOutcome;

/// Why a boot is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndRequest {
    /// Nothing was asked for.
    None,
    /// To stay down.
    Stop,
    /// To come up again.
    Reboot,
    /// At once.
    Kill,
}

/// What follows the end of a boot: the reason to show, or another boot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterBoot {
    Boot,
    Down(String),
}

/// Decides what follows. `reboot(2)` in a pid namespace ends its pid 1 by SIGHUP (restart) or SIGINT (halt, power off).
pub(super) fn after(ended: &BootOutcome, request: EndRequest) -> AfterBoot {
    match (ended, request) {
        (_, EndRequest::Kill) => AfterBoot::Down("being terminated".into()),
        (_, EndRequest::Stop) => AfterBoot::Down("stopped by the operator".into()),
        (BootOutcome::Failed(why), _) => AfterBoot::Down(format!("could not boot: {why}")),
        (BootOutcome::Signal(1), _) | (_, EndRequest::Reboot) => AfterBoot::Boot,
        (BootOutcome::Signal(2), _) | (BootOutcome::Code(0), _) => {
            AfterBoot::Down("powered off from inside".into())
        }
        (BootOutcome::Signal(signal), _) => AfterBoot::Down(format!(
            "lost power: its pid 1 was ended by signal {signal}"
        )),
        (BootOutcome::Code(code), _) => {
            AfterBoot::Down(format!("its pid 1 ended with exit code {code}"))
        }
    }
}

/// What a signal asks for; a stronger request is never replaced by a weaker one.
pub(super) fn asked(signal: i32, request: EndRequest) -> EndRequest {
    match (Signal::try_from(signal), request) {
        (_, EndRequest::Kill) | (Ok(Signal::SIGINT), _) => EndRequest::Kill,
        (_, EndRequest::Stop) | (Ok(Signal::SIGTERM), _) => EndRequest::Stop,
        (Ok(Signal::SIGHUP), _) => EndRequest::Reboot,
        _ => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_boot() {
        let down = |text: &str| AfterBoot::Down(text.into());
        for (name, ended, request, next) in [
            (
                "reboot(2)",
                BootOutcome::Signal(1),
                EndRequest::None,
                AfterBoot::Boot,
            ),
            (
                "power off",
                BootOutcome::Signal(2),
                EndRequest::None,
                down("powered off from inside"),
            ),
            (
                "kill -9",
                BootOutcome::Signal(9),
                EndRequest::None,
                down("lost power: its pid 1 was ended by signal 9"),
            ),
            (
                "stop",
                BootOutcome::Code(0),
                EndRequest::Stop,
                down("stopped by the operator"),
            ),
            (
                "stop, too slow",
                BootOutcome::Signal(9),
                EndRequest::Stop,
                down("stopped by the operator"),
            ),
            (
                "a reboot while stopping",
                BootOutcome::Signal(1),
                EndRequest::Stop,
                down("stopped by the operator"),
            ),
            (
                "reboot, too slow",
                BootOutcome::Signal(9),
                EndRequest::Reboot,
                AfterBoot::Boot,
            ),
            (
                "terminate",
                BootOutcome::Signal(9),
                EndRequest::Kill,
                down("being terminated"),
            ),
            (
                "no boot",
                BootOutcome::Failed("x".into()),
                EndRequest::None,
                down("could not boot: x"),
            ),
            (
                "no boot, again",
                BootOutcome::Failed("x".into()),
                EndRequest::Reboot,
                down("could not boot: x"),
            ),
            (
                "a bug",
                BootOutcome::Code(3),
                EndRequest::None,
                down("its pid 1 ended with exit code 3"),
            ),
        ] {
            assert_eq!(after(&ended, request), next, "{name}");
        }
    }

    #[test]
    fn a_stronger_wish_stays() {
        let (term, hup, int) = (15, 1, 2);
        assert_eq!(asked(hup, EndRequest::None), EndRequest::Reboot);
        assert_eq!(asked(term, EndRequest::Reboot), EndRequest::Stop);
        assert_eq!(asked(hup, EndRequest::Stop), EndRequest::Stop);
        assert_eq!(asked(int, EndRequest::Stop), EndRequest::Kill);
        assert_eq!(asked(term, EndRequest::Kill), EndRequest::Kill);
        assert_eq!(asked(10, EndRequest::None), EndRequest::None);
    }
}
