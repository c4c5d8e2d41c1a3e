//! Stages: which may start now, and what the end of one means.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::limits::{DEFAULT_OUTPUT_CAP_BYTES, MAX_STAGE_REBOOTS};
use aot_proto::v1;

use super::input::Effect;
use super::volumes::are_mounted;
use super::{MAX_INTERRUPTIONS, World};
use crate::model::cluster::{Cluster, Instance, Key, Stage, StageState};
use crate::model::job::{Run, RunKind, StageEnd, Verdict, stage_end};
use crate::model::needs::Needs;
use crate::model::phase::{Happened, Phase};

impl World {
    /// Starts every stage that nothing stands in the way of.
    pub(super) fn start_stages(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let Some(launch) = cluster.launch.as_ref().filter(|launch| !launch.cancelled) else {
            return;
        };
        let job = launch.job;
        let at = |instance: &Instance| Key {
            cluster: name.clone(),
            instance: instance.name.clone(),
        };
        let open = std::cell::LazyCell::new(|| self.barrier_open(cluster));
        let (mut due, mut done) = (Vec::new(), Vec::new());
        for instance in cluster.instances.values() {
            match next(cluster, instance, || *open) {
                Next::Start(index) => due.push((at(instance), index)),
                Next::Done => done.push(at(instance)),
                Next::Wait => {}
            }
        }
        for at in done {
            self.stages_done(&at);
        }
        for (at, index) in due {
            self.start_stage(job, &at, index);
        }
    }

    fn stages_done(&mut self, at: &Key) {
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        if instance.happen(Happened::StagesDone) {
            instance.note.clear();
            self.tell(at, "instance-ready", "ready");
        }
    }

    fn start_stage(&mut self, job: JobId, at: &Key, index: usize) {
        let now = self.now;
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        instance.happen(Happened::StageStarted);
        instance.note.clear();
        let stage = &mut instance.stages[index];
        if stage.reboots == 0 || stage.attempt == 0 {
            stage.attempt += 1;
        }
        stage.state = StageState::Running;
        stage.exit_code = None;
        stage.detail.clear();
        stage.started_ms = now;
        stage.ended_ms = 0;
        let (attempt, label) = (stage.attempt, stage.plan.name.clone());
        let run = self.add_run(job, at, RunKind::Stage { index, attempt });
        self.instance_mut(at).expect("it was there").stages[index].run = Some(run);
        let event = self
            .about(
                at,
                "stage-started",
                format!("stage {index} ({label}) started"),
            )
            .with("stage", index)
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
        Some(v1::StartRun {
            run_id: run.id.to_string(),
            job_id: run.job.to_string(),
            timeout_ms: ms(plan.timeout),
            silence_timeout_ms: ms(plan.silence_timeout),
            output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
            env: plan.env.clone().into_iter().collect(),
            what: Some(v1::start_run::What::Stage(v1::StageSpec {
                index: u32::try_from(index).ok()?,
                name: plan.name.clone(),
                bundle_sha256: plan.bundle_sha256.clone(),
                bundle_bytes: plan.bundle_bytes,
                args: plan.args.clone(),
                attempt,
                reboots: stage.reboots,
            })),
        })
    }

    /// A stage's run is over.
    pub(super) fn stage_ended(
        &mut self,
        at: &Key,
        index: usize,
        run: RunId,
        ended: &v1::Ended,
        verdict: &Verdict,
    ) {
        let now = self.now;
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
        let end = settle(stage, ended);
        let (state, message) = (stage.state, describe(stage, index, end, verdict));
        match end {
            StageEnd::Reboot => stage.reboot_from = boot_id,
            StageEnd::Failed => {
                instance.note.clone_from(&message);
                instance.happen(Happened::StageFailed);
            }
            StageEnd::Succeeded | StageEnd::Interrupted => {}
        }
        self.tell_stage(at, index, end, message, verdict);
        match (state, session) {
            (StageState::Rebooting, Some(session)) => self.send_reboot(at, session),
            (StageState::Failed, _) => {
                self.tell(at, "instance-failed", "failed");
                self.mark_failed(&at.cluster, &at.instance);
            }
            _ => {}
        }
        self.mark_due(&at.cluster);
    }

    /// Those who now wait in vain for a stage of these instances.
    pub(super) fn tell_waiting(&mut self, name: &ClusterName, failed: &BTreeSet<InstanceName>) {
        let Some(cluster) = self.clusters.get(name).filter(|_| !failed.is_empty()) else {
            return;
        };
        let mut needs = Needs::of(cluster);
        let mut told = Vec::new();
        for instance in cluster.wanted().filter(|i| !i.phase.is_settled()) {
            let next = instance.next_stage().map(|next| &instance.stages[next]);
            let asks = next.is_some_and(|stage| {
                let mut of = stage.plan.needs.iter().flat_map(|need| &need.of);
                of.any(|name| failed.contains(name))
            });
            if asks
                && needs.is_stuck(instance)
                && let Some(text) = needs.in_words(instance)
            {
                told.push((instance.name.clone(), text));
            }
        }
        for (instance, text) in told {
            let cluster = name.clone();
            self.tell(&Key { cluster, instance }, "stage-waits", text);
        }
    }

    fn tell_stage(
        &mut self,
        at: &Key,
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
        let stage = self.instance(at).and_then(|i| i.stages.get(index));
        let (name, attempt) =
            stage.map_or((String::new(), 0), |s| (s.plan.name.clone(), s.attempt));
        let event = self
            .about(at, kind, message)
            .with("stage", index)
            .with("name", name)
            .with("attempt", attempt)
            .with("outcome", verdict.outcome.as_str())
            .with("exit_code", verdict.exit_code)
            .with("seconds", verdict.ms as f64 / 1000.0);
        self.do_later(Effect::Event(Box::new(event)));
    }
}

enum Next {
    Start(usize),
    Done,
    Wait,
}

/// What is next for an instance's stages.
fn next(cluster: &Cluster, instance: &Instance, barrier_open: impl Fn() -> bool) -> Next {
    if !matches!(instance.phase, Phase::Configured | Phase::Bootstrapping) || instance.terminating {
        return Next::Wait;
    }
    let Some(index) = instance.next_stage() else {
        let failed = instance
            .stages
            .iter()
            .any(|stage| stage.state == StageState::Failed);
        return if failed { Next::Wait } else { Next::Done };
    };
    let stage = &instance.stages[index];
    let waits = stage.state != StageState::Waiting
        || instance.session.is_none()
        || !are_mounted(cluster, instance)
        || (index == 0 && !barrier_open())
        || !Needs::of(cluster).are_met(stage);
    if waits {
        Next::Wait
    } else {
        Next::Start(index)
    }
}

/// Moves the stage by the end of its run; says which end it was, bounds applied.
fn settle(stage: &mut Stage, ended: &v1::Ended) -> StageEnd {
    match stage_end(ended) {
        StageEnd::Reboot if stage.reboots >= MAX_STAGE_REBOOTS => {
            stage.detail = format!("asked for more than {MAX_STAGE_REBOOTS} reboots");
            stage.state = StageState::Failed;
            StageEnd::Failed
        }
        StageEnd::Reboot => {
            stage.reboots += 1;
            stage.state = StageState::Rebooting;
            StageEnd::Reboot
        }
        StageEnd::Interrupted if stage.interruptions >= MAX_INTERRUPTIONS => {
            stage.detail = format!("interrupted {} times in a row", stage.interruptions + 1);
            stage.state = StageState::Failed;
            StageEnd::Failed
        }
        StageEnd::Interrupted => {
            stage.interruptions += 1;
            stage.reboots = 0;
            stage.state = StageState::Waiting;
            StageEnd::Interrupted
        }
        StageEnd::Succeeded => {
            stage.interruptions = 0;
            stage.state = StageState::Succeeded;
            StageEnd::Succeeded
        }
        StageEnd::Failed => {
            stage.state = StageState::Failed;
            StageEnd::Failed
        }
    }
}

fn describe(stage: &Stage, index: usize, end: StageEnd, verdict: &Verdict) -> String {
    let name = &stage.plan.name;
    let seconds = verdict.ms as f64 / 1000.0;
    match end {
        StageEnd::Succeeded => format!("stage {index} ({name}) succeeded in {seconds:.1} s"),
        StageEnd::Reboot => format!(
            "stage {index} ({name}) asked for reboot {} of {MAX_STAGE_REBOOTS}",
            stage.reboots
        ),
        StageEnd::Interrupted => format!(
            "stage {index} ({name}) was interrupted and is run again: {}",
            stage.detail
        ),
        StageEnd::Failed => match (verdict.exit_code, stage.detail.is_empty()) {
            (Some(code), true) => format!(
                "stage {index} ({name}): bootstrap.sh ended with exit code {code} after {seconds:.1} s"
            ),
            (_, _) => format!("stage {index} ({name}): {}", stage.detail),
        },
    }
}

/// Takes over a new bootstrap sequence: what is done and unchanged stays done; from the first change on all waits.
/// `retry` also lets failed stages wait again. Says whether a stage now has to run.
pub(super) fn take_plans(
    instance: &mut Instance,
    plans: &[crate::model::cluster::StagePlan],
    retry: bool,
) -> bool {
    let mut changed = false;
    let mut old: BTreeMap<usize, Stage> = std::mem::take(&mut instance.stages)
        .into_iter()
        .enumerate()
        .collect();
    for (index, plan) in plans.iter().enumerate() {
        let before = old.remove(&index);
        let same = before
            .as_ref()
            .is_some_and(|stage| stage.plan.key == plan.key);
        changed |= !same;
        let mut stage = before.unwrap_or_else(|| Stage::waiting(plan.clone()));
        stage.plan = plan.clone();
        if changed || (retry && stage.state == StageState::Failed) {
            stage.reset();
        }
        instance.stages.push(stage);
    }
    instance.next_stage().is_some()
}
