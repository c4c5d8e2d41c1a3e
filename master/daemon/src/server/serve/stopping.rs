//! What ends a running master, and who owns its tasks until then.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServeOptions;
use super::error::{Error, io};
use crate::run::stop;

/// How a master is stopped, and the tasks that are waited for then. Made before the master opens anything: a signal that
/// comes meanwhile is not lost.
#[derive(Debug, Default)]
pub struct Stop {
    pub(super) token: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Stop {
    /// By SIGTERM or SIGINT; a second one ends the process at once.
    ///
    /// # Errors
    /// When signals can't be listened to.
    pub fn on_signal(options: &ServeOptions) -> Result<Self, Error> {
        let stop = Self::default();
        stop::on_signal(&stop.token, &stop.tasks)
            .map_err(io("listen to signals in", &options.state_dir))?;
        Ok(stop)
    }
}
