//! Deleting what carries the tag of a cluster that is not known here: a job whose targets are the regions, or this host.
//!
//! One region after the other, each by one call that terminates, waits and deletes. Safe to ask for twice, so one without
//! an answer when the master ended is asked for again.

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::plural;

use super::World;
use super::answer::Answer;
use super::asks::DeleteOrphansAsk;
use super::effect::Effect;
use super::provider_call::{CallFailure, ReceiptLine};
use super::refusal::OpError;
use crate::event::Event;
use crate::job::{Job, JobKind, Orphans};
use crate::outcome::{Outcome, Verdict};

impl World {
    /// An operator wants all of an unknown cluster gone.
    pub(super) fn delete_orphans(&mut self, ask: DeleteOrphansAsk) -> Answer {
        if let Some(why) = self.is_ours(&ask.uuid) {
            return Answer::Error(OpError::Conflict(why));
        }
        let id = self.job_id(ask.by.request);
        let (what, operator) = (ask.by.what, ask.by.operator);
        let job = Job {
            targets: ask.places.keys().map(|name| (name.clone(), None)).collect(),
            orphans: Some(Orphans {
                uuid: ask.uuid,
                places: ask.places,
                gone: 0,
                left: 0,
            }),
            ..Job::new(id, JobKind::Orphans, ask.cluster, what, operator, self.now)
        };
        self.insert_job(job);
        self.call_orphans(id);
        Answer::Started(id)
    }

    /// Why what carries this uuid is not an orphan: a cluster of the store is cleaned up, not deleted behind its back.
    pub fn is_ours(&self, uuid: &str) -> Option<String> {
        let ours = self
            .clusters
            .values()
            .find(|cluster| cluster.uuid.as_str() == uuid)?;
        let name = &ours.spec.name;
        Some(format!(
            "{uuid} is cluster {name} of this master: aot-master cleanup {name} deletes it"
        ))
    }

    /// Level-triggered: continues deletions that have no call under way.
    pub(super) fn advance_orphans(&mut self) {
        let open = |job: &&Job| job.kind == JobKind::Orphans && job.ended_ms.is_none();
        let ids: Vec<JobId> = self.jobs.values().filter(open).map(|job| job.id).collect();
        for id in ids {
            self.call_orphans(id);
        }
    }

    /// Asks for the next region.
    fn call_orphans(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(orphans) = &job.orphans else {
            return;
        };
        let next = job.open_targets().next();
        let Some((place, region)) = next.and_then(|name| orphans.places.get_key_value(name)) else {
            return;
        };
        let effect = Effect::CallOrphans {
            job: id,
            cluster: job.cluster.clone(),
            uuid: orphans.uuid.clone(),
            place: place.clone(),
            region: region.clone(),
        };
        if let Some(why) = self.is_ours(&orphans.uuid) {
            let verdict = Verdict::without_run(Outcome::Rejected, why);
            return self.end_all_orphans(id, &verdict);
        }
        if self.deleting.insert(id) {
            self.do_later(effect);
        }
    }

    /// It has become a cluster of this master: nothing more of it is deleted.
    fn end_all_orphans(&mut self, id: JobId, verdict: &Verdict) {
        self.emit_to_followers(id, "notice", verdict.detail.clone());
        self.count(id, 0, 1);
        self.end_all_of(id, verdict);
        self.emit_end_of_orphans(id);
    }

    /// How far a region is.
    pub(super) fn orphans_seen(&mut self, id: JobId, text: String) -> Answer {
        self.emit_to_followers(id, "wait-progress", text);
        Answer::Ack
    }

    /// A region is done, or could not be.
    pub(super) fn orphans_deleted(
        &mut self,
        id: JobId,
        place: &InstanceName,
        result: Result<Vec<ReceiptLine>, CallFailure>,
    ) -> Answer {
        self.deleting.remove(&id);
        let Some(cluster) = self.jobs.get(&id).map(|job| job.cluster.clone()) else {
            return Answer::Ack;
        };
        let verdict = match result {
            Ok(things) => self.orphans_receipt(id, &cluster, things),
            Err(failure) => {
                let text = format!("in {place}: {}", failure.message);
                self.emit_to_followers(id, "notice", text);
                self.count(id, 0, 1);
                Verdict::without_run(Outcome::Failed, failure.message)
            }
        };
        self.end_call_target(id, place, verdict);
        if self.jobs.get(&id).is_some_and(|job| job.open() == 0) {
            self.emit_end_of_orphans(id);
        }
        self.call_orphans(id);
        Answer::Ack
    }

    /// Tells what became of each thing of a region; gives its end.
    fn orphans_receipt(
        &mut self,
        id: JobId,
        cluster: &ClusterName,
        things: Vec<ReceiptLine>,
    ) -> Verdict {
        let total = things.len();
        let mut left = 0;
        for (kind, thing, state, is_left) in things {
            left += usize::from(is_left);
            let mut event = Event::cluster(cluster, "receipt", format!("{kind} {thing}: {state}"))
                .with("kind", kind)
                .with("id", thing)
                .with("state", state)
                .with("left", is_left);
            event.aside = Some(id);
            self.do_later(Effect::Event(Box::new(event)));
        }
        self.count(id, total, left);
        match left {
            0 => Verdict::without_run(Outcome::Succeeded, ""),
            1 => Verdict::without_run(Outcome::Failed, "1 thing is left"),
            n => Verdict::without_run(Outcome::Failed, format!("{n} things are left")),
        }
    }

    fn count(&mut self, id: JobId, total: usize, left: usize) {
        let job = self.jobs.get_mut(&id);
        if let Some(orphans) = job.and_then(|job| job.orphans.as_mut()) {
            orphans.gone += total;
            orphans.left += left;
        }
        self.dirty.jobs.insert(id);
    }

    /// Sent to whoever follows that job, and to nobody who follows a cluster that has the same name by chance.
    fn emit_to_followers(&mut self, id: JobId, kind: &'static str, text: String) {
        let Some(cluster) = self.jobs.get(&id).map(|job| job.cluster.clone()) else {
            return;
        };
        let mut event = Event::cluster(&cluster, kind, text);
        event.aside = Some(id);
        self.do_later(Effect::Event(Box::new(event)));
    }

    fn emit_end_of_orphans(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(Orphans { gone, left, .. }) = job.orphans.as_ref() else {
            return;
        };
        let text = match left {
            0 => format!("{} deleted", plural::count(gone, "resource")),
            _ => format!(
                "{} {} left; run the same command to try again",
                plural::count(left, "resource"),
                plural::is_are(left)
            ),
        };
        let mut event = Event::cluster(&job.cluster, "orphans-deleted", text);
        event.ends = Some((id, u32::from(*left > 0)));
        event.aside = Some(id);
        self.do_later(Effect::Event(Box::new(event)));
    }
}
