//! Where all that agents bring comes in, and the one place that finds out whether it is about themselves.

use aot_proto::ids::RunId;

use super::World;
use super::answer::Answer;
use super::input::AgentInput;
use crate::key::InstanceKey;
use crate::run::Run;
use crate::task::Task;

impl World {
    /// Takes what an agent brings in its session. Nothing but its first input, [`AgentInput::Attached`], counts unless the
    /// session is the one that the instance has now; what names a run counts for this instance's own runs alone.
    pub(super) fn agent_reports(
        &mut self,
        at: &InstanceKey,
        session: u64,
        report: AgentInput,
    ) -> Answer {
        if let AgentInput::Attached(hello) = report {
            return self.attached(at, session, &hello);
        }
        if !self.is_current(at, session) {
            return Answer::NotItsOwn;
        }
        match report {
            AgentInput::Attached(_) => Answer::NotItsOwn, // see above
            AgentInput::HeldBy(holder) => self.held_by(at, &holder),
            AgentInput::Facts(facts) => self.facts_reported(at, *facts),
            AgentInput::Applied { generation, error } => self.facts_applied(at, generation, &error),
            AgentInput::VolumesMounted { id, error } => {
                self.volumes_mounted(at, session, id, &error)
            }
            AgentInput::Closed { why } => self.closed(at, &why),
            AgentInput::RunAnswer {
                run,
                accepted,
                reason,
            } => match self.own_run(at, session, run) {
                Some(run) => self.run_answer(run.id, accepted, &reason),
                None => Answer::NotItsOwn,
            },
            AgentInput::Printed { run, lines } => match self.own_run(at, session, run) {
                Some(run) => self.printed(run.id, *lines),
                None => Answer::NotItsOwn,
            },
            AgentInput::RunEnded { run, ended } => match self.own_run(at, session, run) {
                Some(run) => self.run_ended(run.id, &ended),
                None => Answer::NotItsOwn,
            },
        }
    }

    /// Whether an instance may be given these bytes: a bundle of its own stages, or the files of a copy that it was asked to
    /// take.
    pub fn may_fetch(&self, at: &InstanceKey, sha256: &str) -> bool {
        let bundle = self.instance(at).is_some_and(|instance| {
            let mut stages = instance.stages.iter();
            stages.any(|stage| stage.plan.bundle_sha256 == sha256)
        });
        let copies = |run: &Run| {
            let task = self.jobs.get(&run.job).and_then(|job| job.task.as_deref());
            matches!(task, Some(Task::CopyIn(copy)) if copy.sha256 == sha256)
        };
        bundle || self.runs_of(at).any(copies)
    }

    /// Whether this is the session that the instance has now. One that was replaced, or whose machine was shut out or
    /// replaced, is not.
    pub(crate) fn is_current(&self, at: &InstanceKey, session: u64) -> bool {
        self.instance(at)
            .is_some_and(|instance| instance.session == Some(session))
    }

    /// The open run of this name, when it is this instance's and the session is the one that the instance has now. All
    /// that agents say of runs goes through here.
    pub fn own_run(&self, at: &InstanceKey, session: u64, run: RunId) -> Option<&Run> {
        let run = self.runs.get(&run).filter(|run| &run.at == at)?;
        self.is_current(at, session).then_some(run)
    }
}
