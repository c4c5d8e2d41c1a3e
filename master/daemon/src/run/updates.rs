//! What goes out of the loop to those who follow: events of all clusters, and updates of one job.

use std::collections::HashMap;

use aot_model::outcome::Verdict;
use aot_model::world::CallFailure;
use aot_proto::ids::{InstanceName, JobId};
use aot_proto::v1;
use aot_store::spool::SpoolReader;
use tokio::sync::mpsc;

/// An event as it is published, and the job that it ends, if it does.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// As it goes over the socket.
    pub event: v1::Event,
    /// Job that it ends.
    pub ends: Option<JobId>,
    /// Job whose followers alone it is for.
    pub aside: Option<JobId>,
}

/// What whoever follows a job learns.
pub(crate) enum JobUpdate {
    /// A run began; this reads its output from its start.
    Began(InstanceName, SpoolReader),
    /// A target has ended; once more when `lost_contact` turns into what it really came to.
    Ended(InstanceName, Verdict),
    /// The provider has answered what the job asks of it; why not all of it was taken.
    Answered(Option<CallFailure>),
    /// None of these.
    Note(Option<InstanceName>, String),
}

/// Updates that a follower of a job with this many targets may be behind.
pub(crate) fn updates_queue(targets: usize) -> usize {
    4 * targets + 16
}

/// Who follows which job.
#[derive(Default)]
pub(super) struct Followers(HashMap<JobId, Vec<mpsc::Sender<JobUpdate>>>);

impl Followers {
    pub(super) fn add(&mut self, job: JobId, updates: mpsc::Sender<JobUpdate>) {
        self.0.entry(job).or_default().push(updates);
    }

    /// Sends an update to those who follow a job; one that does not keep up is dropped, and the job's record has it all.
    pub(super) fn notify(&mut self, job: JobId, update: impl Fn() -> JobUpdate) {
        if let Some(followers) = self.0.get_mut(&job) {
            followers.retain(|follower| follower.try_send(update()).is_ok());
        }
    }

    /// Whether nobody follows anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those who have left.
    pub(super) fn drop_closed(&mut self) {
        self.0.retain(|_, all| {
            all.retain(|updates| !updates.is_closed());
            !all.is_empty()
        });
    }
}
