//! The check that an instance must pass after its stages, where they ran at a pace: asked as a run of its own, again after a
//! while when it fails, and before its place goes to the next.

use aot_proto::ids::{JobId, RunId};
use aot_proto::v1;

use super::World;
use super::effect::Effect;
use crate::health::HealthSpec;
use crate::key::InstanceKey;
use crate::outcome::{Outcome, Verdict};
use crate::phase::Happened;
use crate::rolling::TurnStep;
use crate::run::{Run, RunKind};
use crate::stage::LastLines;

/// Most that a check may print.
pub(super) const HEALTH_OUTPUT_CAP_BYTES: u64 = 1 << 20;

impl World {
    /// No stage is left to run: it is ready, or it is asked first whether all is well.
    pub(super) fn pass_gate(&mut self, at: &InstanceKey) {
        match self.gate_of(at) {
            None => self.stages_done(at),
            Some((job, health)) => self.check_health(job, at, &health),
        }
    }

    /// What an instance has to pass, with the job that wants it.
    fn gate_of(&self, at: &InstanceKey) -> Option<(JobId, HealthSpec)> {
        let cluster = self.clusters.get(&at.cluster)?;
        let launch = cluster.launch.as_ref()?;
        let rolling = launch.rolling.as_ref()?;
        let turn = cluster.instances.get(&at.instance)?.turn.as_ref();
        let turn = turn.filter(|turn| turn.job == launch.job && turn.is_unproven())?;
        let health = rolling.groups.get(turn.group)?.health.clone()?;
        Some((launch.job, health))
    }

    fn check_health(&mut self, job: JobId, at: &InstanceKey, health: &HealthSpec) {
        let now = self.now;
        let Some(instance) = self.instance(at) else {
            return;
        };
        let step = instance.turn.as_ref().map(|turn| turn.step.clone());
        let tries = match step {
            Some(TurnStep::Checking { run: Some(_), .. }) => return,
            Some(TurnStep::Checking { next_ms, .. }) if now < next_ms => return,
            Some(TurnStep::Checking { tries, .. }) => tries,
            _ => 0,
        };
        if instance.session.is_none() {
            return;
        }
        let what = RunKind::Health {
            argv: health.argv(),
            timeout_ms: health.timeout_ms,
        };
        let run = self.add_run(job, at, what);
        let checking = TurnStep::Checking {
            tries: tries + 1,
            next_ms: now,
            run: Some(run),
        };
        if let Some(turn) = self.instance_mut(at).and_then(|it| it.turn.as_mut()) {
            turn.step = checking;
            turn.said.clear();
        }
        if tries == 0 {
            self.emit(
                at,
                "health-check-started",
                "its stages are done, and it is asked whether all is well",
            );
        }
    }

    /// What an agent has to know to run a check.
    pub(super) fn health_message(run: &Run, argv: &[String], timeout_ms: u64) -> v1::StartRun {
        v1::StartRun {
            run_id: run.id.to_string(),
            job_id: run.job.to_string(),
            timeout_ms,
            output_cap_bytes: HEALTH_OUTPUT_CAP_BYTES,
            what: Some(v1::start_run::What::Exec(v1::ExecSpec {
                argv: argv.to_vec(),
                ..v1::ExecSpec::default()
            })),
            ..v1::StartRun::default()
        }
    }

    /// The last that a check printed whose end comes next.
    pub(super) fn health_printed(&mut self, at: &InstanceKey, lines: &LastLines) {
        let last = lines.stderr.last().or(lines.stdout.last());
        let turn = self.instance_mut(at).and_then(|it| it.turn.as_mut());
        if let (Some(turn), Some(last)) = (turn, last) {
            turn.said.clone_from(last);
        }
    }

    /// A check is over.
    pub(super) fn health_ended(&mut self, at: &InstanceKey, run: RunId, verdict: &Verdict) {
        if verdict.outcome != Outcome::Succeeded {
            self.mark_due(&at.cluster);
        }
        let gate = self.gate_of(at).map(|(_, health)| health);
        let is_cancelled = self
            .clusters
            .get(&at.cluster)
            .and_then(|cluster| cluster.launch.as_ref())
            .is_some_and(|launch| launch.cancelled);
        let turn = self.instance(at).and_then(|it| it.turn.as_ref());
        let tries = match turn.map(|turn| &turn.step) {
            Some(TurnStep::Checking {
                tries,
                run: Some(own),
                ..
            }) if *own == run => *tries,
            _ => return self.mark_due(&at.cluster), // another launch has begun since
        };
        if verdict.outcome == Outcome::Succeeded {
            self.stages_done(at);
            return self.mark_moved(at);
        }
        let now = self.now;
        let Some(turn) = self.instance_mut(at).and_then(|it| it.turn.as_mut()) else {
            return;
        };
        let why = in_words(verdict, &turn.said);
        let (most, wait_ms) = gate.map_or((0, 0), |gate| (gate.retries, gate.wait_ms));
        if tries <= most || is_cancelled {
            let next_ms = now.saturating_add(wait_ms);
            turn.step = TurnStep::Checking {
                tries,
                next_ms,
                run: None,
            };
            let text = format!("health check {tries} of {} failed{why}", most + 1);
            self.emit(at, "health-check-failed", text);
            return;
        }
        turn.step = TurnStep::Unhealthy;
        let text = match tries {
            1 => format!("health check failed{why}"),
            _ => format!("health check failed {tries} times{why}"),
        };
        if let Some(instance) = self.instance_mut(at) {
            instance.note.clone_from(&text);
            instance.happen(Happened::HealthFailed);
        }
        let event = self.about(at, "instance-failed", text);
        self.do_later(Effect::Event(Box::new(event)));
    }
}

/// ` (exit 7): connection refused`.
fn in_words(verdict: &Verdict, said: &str) -> String {
    let how = match (verdict.exit_code, verdict.detail.as_str()) {
        (Some(code), "") => format!(" (exit {code})"),
        (_, "") => format!(" ({})", verdict.outcome.as_str()),
        (_, detail) => format!(" ({detail})"),
    };
    match said.is_empty() {
        true => how,
        false => format!("{how}: {said}"),
    }
}
