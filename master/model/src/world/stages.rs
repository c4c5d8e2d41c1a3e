//! Stages: which may start now, and what the end of one means.

use aot_proto::ids::{ClusterName, JobId, RunId};
use aot_proto::limits::{DEFAULT_OUTPUT_CAP_BYTES, MAX_STAGE_REBOOTS};
use aot_proto::v1;
use aot_proto::v1::start_run::What;

use super::answer::Answer;
use super::effect::Effect;
use super::facts::has_newest;
use super::templates::{awaits_facts, render_record, vars_json};
use super::volumes::are_mounted;
use super::{MAX_INTERRUPTIONS, World};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::needs::Needs;
use crate::outcome::Verdict;
use crate::phase::{Happened, Phase};
use crate::rolling::TurnStep;
use crate::run::{Run, RunKind};
use crate::stage::{LastLines, StageEnd, StageOutcome, stage_end};
use crate::stage::{Stage, StageState};

impl World {
    /// Those of a change at a pace that have no stage left to run go on. Before turns are given, as each of them may make room for one.
    pub(super) fn pass_gates(&mut self, name: &ClusterName) {
        let launch = self.clusters.get(name).and_then(|it| it.launch.as_ref());
        if launch.is_none_or(|launch| launch.rolling.is_none()) {
            return;
        }
        for at in self.next_stages(name).done {
            self.pass_gate(&at);
        }
    }

    /// Starts every stage that nothing stands in the way of.
    pub(super) fn start_stages(&mut self, name: &ClusterName) {
        let next = self.next_stages(name);
        for at in next.done {
            self.pass_gate(&at);
        }
        for (job, at, index) in next.due {
            self.start_stage(job, &at, index);
        }
    }

    /// The same of one, where it is known whether the barrier is open: whether anything was started there, or asked of it.
    pub(super) fn continue_stages(&mut self, at: &InstanceKey, is_barrier_open: bool) -> bool {
        let next = self.clusters.get(&at.cluster).and_then(|cluster| {
            let launch = cluster.launch.as_ref().filter(|it| !it.cancelled)?;
            let instance = cluster.instances.get(&at.instance)?;
            Some((launch.job, next(cluster, instance, || is_barrier_open)))
        });
        match next {
            Some((job, NextStage::Start(index))) => self.start_stage(job, at, index),
            Some((_, NextStage::Done)) => self.pass_gate(at),
            Some((_, NextStage::Wait)) | None => return false,
        }
        true
    }

    fn next_stages(&self, name: &ClusterName) -> NextStages {
        let mut found = NextStages::default();
        let Some(cluster) = self.clusters.get(name) else {
            return found;
        };
        let Some(launch) = cluster.launch.as_ref().filter(|launch| !launch.cancelled) else {
            return found;
        };
        let at = |instance: &Instance| InstanceKey {
            cluster: name.clone(),
            instance: instance.name.clone(),
        };
        let open = std::cell::LazyCell::new(|| self.barrier_open(cluster));
        for instance in cluster.instances.values() {
            match next(cluster, instance, || *open) {
                NextStage::Start(index) => found.due.push((launch.job, at(instance), index)),
                NextStage::Done => found.done.push(at(instance)),
                NextStage::Wait => {}
            }
        }
        found
    }

    /// No stage is left to run, and all is well.
    pub(super) fn stages_done(&mut self, at: &InstanceKey) {
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        if instance.happen(Happened::StagesDone) {
            instance.note = left_behind(instance);
            instance.was_ready = true;
            if let Some(turn) = &mut instance.turn {
                turn.step = TurnStep::Passed;
            }
            self.emit(at, "instance-ready", "ready");
        }
    }

    fn start_stage(&mut self, job: JobId, at: &InstanceKey, index: usize) {
        let now = self.now;
        let cluster = self.clusters.get(&at.cluster);
        let known = cluster.and_then(|it| Some((it, it.instances.get(&at.instance)?)));
        let rendered = known
            .filter(|(_, instance)| instance.stages[index].plan.templates)
            .map(|(cluster, instance)| render_record(cluster, instance));
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        instance.happen(Happened::StageStarted);
        instance.note.clear();
        let stage = &mut instance.stages[index];
        // After a reboot that it asked for the same attempt continues.
        if stage.reboots == 0 || stage.attempt == 0 {
            stage.attempt += 1;
        }
        stage.state = StageState::Running;
        stage.exit_code = None;
        stage.outcome = None;
        stage.printed = LastLines::default();
        stage.detail.clear();
        stage.started_ms = now;
        stage.ended_ms = 0;
        stage.rendered = rendered;
        let rechecks = stage.before.is_some();
        let (attempt, label) = (stage.attempt, stage.plan.name.clone());
        let count = instance.stages.len();
        let run = self.add_run(job, at, RunKind::Stage { index, attempt });
        self.instance_mut(at).expect("it was there").stages[index].run = Some(run);
        let (kind, what) = match rechecks {
            true => (
                "stage-check-started",
                "is rendered again, and run if that changes a file",
            ),
            false => ("stage-started", "started"),
        };
        let event = self
            .about(
                at,
                kind,
                format!("stage {label} ({} of {count}) {what}", index + 1),
            )
            .with("stage", index)
            .with("stages", count)
            .with("name", label)
            .with("attempt", attempt);
        self.do_later(Effect::Event(Box::new(event)));
    }

    /// What an agent has to know to run a stage; `None` when it is no longer wanted.
    pub(super) fn stage_message(
        &self,
        run: &Run,
        index: usize,
        attempt: u32,
    ) -> Option<v1::StartRun> {
        let stage = self.instance(&run.at)?.stages.get(index)?;
        let plan = &stage.plan;
        let ms = |time: Option<std::time::Duration>| {
            time.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX))
        };
        let spec = v1::StageSpec {
            index: u32::try_from(index).ok()?,
            name: plan.name.clone(),
            bundle_sha256: plan.bundle_sha256.clone(),
            bundle_bytes: plan.bundle_bytes,
            args: plan.args.clone(),
            attempt,
            reboots: stage.reboots,
            ..v1::StageSpec::default()
        };
        Some(v1::StartRun {
            run_id: run.id.to_string(),
            job_id: run.job.to_string(),
            timeout_ms: ms(plan.timeout),
            silence_timeout_ms: ms(plan.silence_timeout),
            output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
            env: plan.env.clone().into_iter().collect(),
            what: Some(match plan.templates {
                true => What::RenderedStage(v1::StageSpec {
                    vars_json: vars_json(&self.clusters.get(&run.at.cluster)?.spec.vars),
                    unless_rendered: unless_rendered(stage),
                    ..spec
                }),
                false => What::Stage(spec),
            }),
            ..v1::StartRun::default() // its secrets are opened on their way
        })
    }

    /// A stage's run is over.
    pub(super) fn stage_ended(
        &mut self,
        at: &InstanceKey,
        index: usize,
        run: RunId,
        ended: &v1::Ended,
        verdict: &Verdict,
    ) {
        let now = self.now;
        let is_of_run = |instance: &Instance| {
            let stage = instance.stages.get(index);
            stage.is_some_and(|stage| stage.run == Some(run))
        };
        if self.instance(at).is_some_and(is_of_run) && self.is_unchanged(at, index, ended) {
            return self.mark_due(&at.cluster);
        }
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        let (session, boot_id) = (instance.session, instance.boot_id.clone());
        let Some(stage) = instance
            .stages
            .get_mut(index)
            .filter(|stage| stage.run == Some(run))
        else {
            return; // the file has changed since: the result is on record, the stage is another
        };
        stage.ended_ms = now;
        stage.exit_code = verdict.exit_code;
        stage.detail.clone_from(&verdict.detail);
        if let Some(rendered) = &mut stage.rendered {
            rendered.sha256.clone_from(&ended.rendered_sha256);
        }
        let end = apply_end(stage, ended, verdict);
        // It is there to explain a failure.
        if matches!(end, StageEnd::Succeeded | StageEnd::Reboot) {
            stage.printed = LastLines::default();
        }
        let (state, message) = (stage.state, describe(stage, end, verdict));
        match end {
            StageEnd::Reboot => stage.reboot_from = boot_id,
            StageEnd::Failed => {
                instance.note.clone_from(&message);
                instance.happen(Happened::StageFailed);
            }
            StageEnd::Succeeded | StageEnd::Interrupted => {}
        }
        self.emit_stage(at, index, end, message.clone(), verdict);
        match (state, session) {
            (StageState::Rebooting, Some(session)) => self.send_reboot(at, session),
            (StageState::Failed, _) => {
                // The reason is in the event of the stage: this says what it means for the instance.
                let event = self.about(at, "instance-failed", message);
                self.do_later(Effect::Event(Box::new(event.with("stage", index))));
            }
            _ => {}
        }
        match end {
            StageEnd::Succeeded => self.mark_moved(at),
            _ => self.mark_due(&at.cluster),
        }
    }

    /// The last that a stage printed whose end comes next.
    pub(super) fn printed(&mut self, run: RunId, lines: LastLines) -> Answer {
        let known = self.runs.get(&run);
        let (at, index) = match known.map(|run| (run.at.clone(), &run.what)) {
            Some((at, RunKind::Stage { index, .. })) => (at, *index),
            Some((at, RunKind::Health { .. })) => {
                self.health_printed(&at, &lines);
                return Answer::Ack;
            }
            Some((_, RunKind::Task)) | None => return Answer::Ack,
        };
        let stage = self.instance_mut(&at).and_then(|i| i.stages.get_mut(index));
        if let Some(stage) = stage.filter(|stage| stage.run == Some(run)) {
            stage.printed = lines;
        }
        Answer::Ack
    }

    /// Those whose next stage waits in vain for one elsewhere, and those that no longer do.
    pub(super) fn mark_blocked(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let mut needs = Needs::of(cluster);
        let mut changed = Vec::new();
        for instance in cluster.instances.values() {
            let blocked = match instance.phase {
                Phase::Blocked => true,
                Phase::Configured | Phase::Bootstrapping => false,
                _ => continue,
            };
            if needs.is_stuck(instance) != blocked {
                let text = needs.describe(instance).unwrap_or_default();
                changed.push((instance.name.clone(), !blocked, text));
            }
        }
        for (instance, blocked, text) in changed {
            let cluster = name.clone();
            let at = InstanceKey { cluster, instance };
            let happened = match blocked {
                true => Happened::NeedsFailed,
                false => Happened::NeedsMayCome,
            };
            if let Some(instance) = self.instance_mut(&at) {
                instance.happen(happened);
            }
            match blocked {
                true => self.emit(&at, "stage-waits", text),
                false => self.emit(&at, "stage-waits", "what it waits for is being retried"),
            }
        }
    }

    fn emit_stage(
        &mut self,
        at: &InstanceKey,
        index: usize,
        end: StageEnd,
        message: String,
        verdict: &Verdict,
    ) {
        let kind = match end {
            StageEnd::Interrupted => "stage-interrupted",
            StageEnd::Reboot => "instance-rebooting",
            StageEnd::Succeeded | StageEnd::Failed => "stage-ended",
        };
        let instance = self.instance(at);
        let count = instance.map_or(0, |instance| instance.stages.len());
        let Some(stage) = instance.and_then(|i| i.stages.get(index)).cloned() else {
            return;
        };
        let outcome = stage.outcome().map(StageOutcome::as_str);
        let mut event = self
            .about(at, kind, message)
            .with("stage", index)
            .with("stages", count)
            .with("name", stage.plan.name)
            .with("attempt", stage.attempt)
            .with("outcome", outcome)
            .with("exit_code", verdict.exit_code)
            .with("seconds", verdict.ms as f64 / 1000.0);
        if end == StageEnd::Succeeded && !stage.detail.is_empty() {
            event = event.with("left", stage.detail);
        } else if !stage.detail.is_empty() {
            event = event.with("detail", stage.detail);
        }
        if kind == "stage-ended" && outcome != Some("succeeded") {
            let lines: Vec<String> = stage.printed.all().cloned().collect();
            event = event
                .with("tail", lines)
                .with("tail_stderr", stage.printed.stderr.len());
        }
        self.do_later(Effect::Event(Box::new(event)));
    }
}

/// What stages that succeeded left behind, for a person; empty mostly.
fn left_behind(instance: &Instance) -> String {
    let stages = instance.stages.iter();
    let left: Vec<String> = stages
        .filter(|stage| stage.state == StageState::Succeeded && !stage.detail.is_empty())
        .map(|stage| format!("stage {} {}", stage.plan.name, stage.detail))
        .collect();
    left.join("; ")
}

/// What its templates became when it succeeded, if it is run again only when they become something else.
fn unless_rendered(stage: &Stage) -> String {
    let before = stage.before.as_ref();
    let rendered = before.and_then(|before| before.rendered.as_ref());
    rendered.map_or_else(String::new, |it| it.sha256.clone())
}

/// What is next for the stages of a cluster.
#[derive(Default)]
struct NextStages {
    /// May start, each with the job that wants it.
    due: Vec<(JobId, InstanceKey, usize)>,
    /// Have none left to run.
    done: Vec<InstanceKey>,
}

enum NextStage {
    Start(usize),
    Done,
    Wait,
}

/// What is next for an instance's stages.
fn next(cluster: &Cluster, instance: &Instance, barrier_open: impl Fn() -> bool) -> NextStage {
    if !matches!(instance.phase, Phase::Configured | Phase::Bootstrapping) || instance.terminating {
        return NextStage::Wait;
    }
    let Some(index) = instance.next_stage() else {
        let failed = instance
            .stages
            .iter()
            .any(|stage| stage.state == StageState::Failed);
        return if failed {
            NextStage::Wait
        } else {
            NextStage::Done
        };
    };
    let stage = &instance.stages[index];
    let waits = stage.state != StageState::Waiting
        || instance.session.is_none()
        || !are_mounted(cluster, instance)
        || (index == 0 && !(has_newest(cluster, instance) && barrier_open()))
        || awaits_facts(cluster, instance, stage, &barrier_open)
        || !Needs::of(cluster).are_met(stage);
    if waits {
        NextStage::Wait
    } else {
        NextStage::Start(index)
    }
}

/// Moves the stage by the end of its run; says which end it was, bounds applied.
fn apply_end(stage: &mut Stage, ended: &v1::Ended, verdict: &Verdict) -> StageEnd {
    let (end, state, outcome) = match stage_end(ended) {
        StageEnd::Reboot if stage.reboots >= MAX_STAGE_REBOOTS => {
            stage.detail = format!("it asked for more than {MAX_STAGE_REBOOTS} reboots");
            (StageEnd::Failed, StageState::Failed, StageOutcome::Failed)
        }
        StageEnd::Reboot => {
            stage.reboots += 1;
            (
                StageEnd::Reboot,
                StageState::Rebooting,
                StageOutcome::Reboot,
            )
        }
        StageEnd::Interrupted if stage.interruptions >= MAX_INTERRUPTIONS => {
            stage.detail = format!("interrupted {} times in a row", stage.interruptions + 1);
            let outcome = StageOutcome::Interrupted;
            (StageEnd::Failed, StageState::Failed, outcome)
        }
        StageEnd::Interrupted => {
            stage.interruptions += 1;
            stage.reboots = 0; // the next attempt may ask for as many as this one
            let outcome = StageOutcome::Interrupted;
            (StageEnd::Interrupted, StageState::Waiting, outcome)
        }
        StageEnd::Succeeded => {
            stage.interruptions = 0;
            let outcome = StageOutcome::Succeeded;
            (StageEnd::Succeeded, StageState::Succeeded, outcome)
        }
        StageEnd::Failed => {
            let outcome = verdict.outcome.into();
            (StageEnd::Failed, StageState::Failed, outcome)
        }
    };
    stage.state = state;
    stage.outcome = Some(outcome);
    end
}

/// `stage node failed (exit 17, 41.0 s)`, `stage node timed out (60.0 s): it printed nothing for too long`.
fn describe(stage: &Stage, end: StageEnd, verdict: &Verdict) -> String {
    let name = &stage.plan.name;
    let seconds = format!("{:.1} s", verdict.ms as f64 / 1000.0);
    let said = match (end, stage.outcome(), verdict.exit_code) {
        (StageEnd::Succeeded, ..) => {
            return match stage.detail.as_str() {
                "" => format!("stage {name} succeeded in {seconds}"),
                left => format!("stage {name} succeeded in {seconds}, and {left}"),
            };
        }
        (StageEnd::Reboot, ..) => {
            let count = stage.reboots;
            return format!(
                "stage {name} asked for a reboot (194), {count} of {MAX_STAGE_REBOOTS}"
            );
        }
        (StageEnd::Interrupted, ..) => format!("stage {name} was interrupted and is run again"),
        (_, Some(StageOutcome::TimedOut), _) => format!("stage {name} timed out ({seconds})"),
        (_, Some(StageOutcome::Cancelled), _) => format!("stage {name} was cancelled ({seconds})"),
        (_, Some(StageOutcome::Rejected), _) => format!("stage {name} was rejected"),
        (_, _, Some(code)) => format!("stage {name} failed (exit {code}, {seconds})"),
        _ => format!("stage {name} failed"),
    };
    match stage.detail.as_str() {
        "" => said,
        why => format!("{said}: {why}"),
    }
}
