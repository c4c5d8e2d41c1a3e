//! A target of a job as it is on record, in a row of its own: the end of one among thousands writes that one. Made by `world`
//! for the store; read when the store is opened, or a job is looked back at.

use aot_proto::ids::InstanceName;
use serde::{Deserialize, Serialize};

use super::Job;
use crate::outcome::Verdict;

/// One target of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Its place among those that wait for their turn. Not written again when it has its turn: its run says so, and is on
    /// record from the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Verdict>,
}

impl Job {
    /// All targets as they go on record when the job begins.
    pub(crate) fn target_records(&self) -> impl Iterator<Item = (&InstanceName, TargetRecord)> {
        let places = self.waiting.iter().map(|(place, name)| (name, place));
        let places: std::collections::BTreeMap<_, _> = places.collect();
        self.targets.iter().map(move |(name, end)| {
            let record = TargetRecord {
                place: places.get(name).copied(),
                end: end.clone(),
            };
            (name, record)
        })
    }

    /// Puts in a target that was on record. One that was given the job waits no more: see [`Job::was_given`].
    pub fn add_target(&mut self, name: InstanceName, record: TargetRecord) {
        if let (Some(place), None) = (record.place, &record.end) {
            self.waiting.insert(place, name.clone());
        }
        self.targets.insert(name, record.end);
    }

    /// The runs of these targets are on record and have not ended: they wait no more.
    pub(crate) fn was_given(&mut self, names: &std::collections::BTreeSet<&InstanceName>) {
        self.waiting.retain(|name| !names.contains(name));
    }
}
