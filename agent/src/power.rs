//! Reboots the machine. Called by the service once the session has said goodbye.

use std::path::Path;

use tokio::process::Command;

use crate::starts;

/// A machine that would not reboot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command could not be started, or the kernel refused.
    #[error("cannot reboot with {what}")]
    Refused {
        /// The command or system call.
        what: String,
        source: std::io::Error,
    },
    /// The command ended with an error.
    #[error("{what} ended with {status}")]
    Failed {
        what: String,
        status: std::process::ExitStatus,
    },
}

/// Runs `command`, else `systemctl reboot` where systemd runs, else sync(2) and reboot(2).
///
/// # Errors
/// When the machine stays up.
pub(crate) async fn reboot(command: Option<&[String]>) -> Result<(), Error> {
    let systemctl = ["systemctl".to_owned(), "reboot".to_owned()];
    let argv = match command {
        Some(argv) => argv,
        None if Path::new("/run/systemd/system").is_dir() => &systemctl,
        None => return by_kernel(),
    };
    let what = argv.join(" ");
    let Some((program, args)) = argv.split_first() else {
        return by_kernel();
    };
    let started = starts::start(|| Command::new(program).args(args).spawn());
    let status = match started {
        Ok(mut child) => child.wait().await,
        Err(error) => Err(error),
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Failed { what, status }),
        Err(source) => Err(Error::Refused { what, source }),
    }
}

fn by_kernel() -> Result<(), Error> {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::Restart).map_err(|errno| Error::Refused {
        what: "reboot(2)".to_owned(),
        source: errno.into(),
    })
}
