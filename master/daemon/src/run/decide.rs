//! The loop of a cluster: decides on what has come, writes what changed, and only then does what is to be done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::event::Event;
use aot_model::unix_ms::UnixMs;
use aot_model::world::{Answer, CallAnswer, Changes, Effect, Input, TargetState, World};
use aot_proto::ids::RunId;
use aot_proto::v1;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::engine::{Engine, INPUTS, QueuedInput};
use super::updates::{Followers, JobUpdate};
use super::{Parts, now_ms, stop};

/// Most inputs that share one write to disk: all that wait.
const BATCH: usize = INPUTS;

/// Reconciling takes at most one part in this many of the loop's time: the more instances a cluster has, the more of what
/// happens to them shares one pass over all of them.
const RECONCILE_SHARE: u32 = 5;

/// How often time is an input.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Loop {
    pub(super) engine: Engine,
    pub(super) parts: Arc<Parts>,
    pub(super) followers: Followers,
    /// Not before then are clusters reconciled again.
    reconcile_from: Instant,
    /// Nothing of its cluster was left after the last batch.
    was_over: bool,
}

/// What an input came to, to be done once it is on disk.
struct Decided {
    answer: Answer,
    effects: Vec<Effect>,
    updates: Option<mpsc::Sender<JobUpdate>>,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Loop {
    pub(super) fn new(engine: Engine, parts: Arc<Parts>) -> Self {
        Self {
            engine,
            parts,
            followers: Followers::default(),
            reconcile_from: Instant::now(),
            was_over: false,
        }
    }

    /// Decides until its engine is stopped. Before that only when nothing of its cluster is left: then it gives back its queue, of
    /// which it decides nothing more.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<QueuedInput>,
    ) -> Option<mpsc::Receiver<QueuedInput>> {
        let stop = self.engine.stop.clone();
        if !self.recover_ended_runs().await {
            stop.cancel();
            return None;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_reconciled = self.engine.read(World::is_reconciled);
            let first = tokio::select! {
                Some(message) = queue.recv() => Some(message),
                _ = tick.tick() => Some(QueuedInput::of(Input::Tick)),
                () = tokio::time::sleep_until(self.reconcile_from), if !is_reconciled => None,
                () = stop.cancelled() => return None,
            };
            let mut batch = Vec::from_iter(first);
            while batch.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                batch.push(more);
            }
            // What waits may still be withdrawn by whoever asked for it.
            let good = tokio::select! {
                biased;
                good = self.engine.hold.until_good() => good,
                () = stop.cancelled() => return None,
            };
            batch.retain(QueuedInput::is_taken);
            let only_time = batch.iter().all(|it| matches!(it.input, Input::Tick));
            let decided = match good {
                Ok(()) => self.decide(batch).await,
                Err(lost) => self.refused(&lost),
            };
            if !decided {
                stop.cancel(); // what can't be recorded must not be done
                return None;
            }
            if self.is_over(only_time) {
                return Some(queue);
            }
        }
    }

    /// Whether nothing is left, and nothing but time has come since that was so before: an input that makes a new loop has
    /// the time to arrive.
    fn is_over(&mut self, only_time: bool) -> bool {
        let over = self.followers.is_empty() && self.engine.read(World::is_vacant);
        let was_over = std::mem::replace(&mut self.was_over, over);
        over && was_over && only_time
    }

    /// Spools that were whole when the last master ended, whose end was not yet in the store. `false` as [`Loop::decide`].
    async fn recover_ended_runs(&mut self) -> bool {
        let open: Vec<RunId> = self
            .engine
            .read(|world| world.runs.keys().copied().collect());
        let mut batch = Vec::new();
        for run in open {
            if let Some(ended) = self.parts.spools.synced_end_of(run) {
                batch.extend(self.recovered(run, Box::new(ended)).await);
            }
        }
        batch.is_empty() || self.decide(batch).await
    }

    /// The end of a run, unless its output has to be put first.
    async fn recovered(&self, run: RunId, ended: Box<v1::Ended>) -> Option<QueuedInput> {
        let outputs = &self.parts.outputs;
        let cluster = self.engine.read(|world| {
            let run = world.runs.get(&run)?;
            (outputs.are_shared() && !world.prints_archive(run)).then(|| run.at.cluster.clone())
        });
        let spool = match cluster {
            Some(cluster) => match outputs.short(run).await {
                None if outputs.are_put() => {
                    self.engine.submit_once_put(outputs, &cluster, run, ended);
                    return None;
                }
                short => short.map(|bytes| (run, bytes)),
            },
            None => None,
        };
        let end = QueuedInput::of(Input::Recovered { run, ended });
        Some(QueuedInput { spool, ..end })
    }

    /// Decides on a batch, and on what follows from it and others before; writes once, then does all effects in order.
    /// `false` when the store refused, or is another master's.
    async fn decide(&mut self, batch: Vec<QueuedInput>) -> bool {
        let now = now_ms();
        let has = |is: fn(&Input) -> bool| batch.iter().any(|message| is(&message.input));
        let ticked = has(|input| matches!(input, Input::Tick));
        let shown = has(|input| {
            let Input::Answered { answer, .. } = input else {
                return false;
            };
            matches!(answer, CallAnswer::Described(_))
        });
        let level = self.engine.hold.level();
        let mut spools = Vec::new();
        let mut steps = Vec::new();
        let (mut changes, follows) = {
            let shared = self.engine.world.clone();
            let mut world = shared.write().expect("decisions do not panic");
            for message in batch {
                let (answer, effects) = match message.input.refusal_at(level) {
                    Some(refusal) => (Answer::Error(refusal), Vec::new()),
                    None => world.step(message.input, now),
                };
                // An output belongs to the end of its run: where that is not accepted, it would be another agent's.
                if !matches!(answer, Answer::NotItsOwn) {
                    spools.extend(message.spool);
                }
                steps.push(Decided {
                    answer,
                    effects,
                    updates: message.updates,
                    reply: message.reply,
                });
            }
            let follows = self.reconcile(&mut world, now);
            (world.drain_changes(), follows)
        };
        let ended = ended_runs(&changes);
        self.record_outputs(&mut changes, &spools);
        // One write for the whole batch: a sync costs the same for one record as for a thousand.
        if !(changes.is_empty() && spools.is_empty())
            && let Err(error) = self.commit(changes, spools).await
        {
            return self.refused(&error);
        }
        // What is done now is of no use to anybody once another master decides.
        if let Err(lost) = self.engine.hold.until_good().await {
            return self.refused(&lost);
        }
        // Only now: whatever anyone learns or is asked from here on survives a kill.
        for step in steps {
            self.finish(step, now);
        }
        for effect in follows {
            self.perform(effect, now);
        }
        // After the effects: a follower that they register still reads the copy from memory.
        for run in ended {
            self.parts.spools.finish(run);
        }
        if shown {
            self.engine.shown.send_modify(|count| *count += 1);
        }
        if ticked {
            self.followers.drop_closed();
        }
        true
    }

    /// Puts on record with the ends of runs how much they printed, where that is not in `stored`.
    fn record_outputs(&self, changes: &mut Changes, stored: &[(RunId, Bytes)]) {
        let stored: HashSet<RunId> = stored.iter().map(|(run, _)| *run).collect();
        let ended = changes.runs.iter_mut().filter(|it| it.verdict.is_some());
        for run in ended.filter(|it| !stored.contains(&it.id)) {
            run.output = self.parts.outputs.on_record(run.id);
        }
    }

    async fn commit(
        &self,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
    ) -> Result<(), aot_store::Error> {
        let hold = &self.engine.hold;
        self.parts.store.commit(hold, changes, spools).await
    }

    /// The store refused a write, or the cluster is another master's: the world may have what the store has not, so this loop
    /// can't continue. Always `false`.
    fn refused(&self, error: &aot_store::Error) -> bool {
        if self.parts.fleet.is_some() && self.engine.hold.is_lost() {
            tracing::warn!(hold = self.engine.hold.name(), error = %Chain(error), "the cluster is another master's");
            return false;
        }
        self.parts.stop.cancel(); // the other loops too
        tracing::error!(error = %Chain(error), "the store refused a write; stopping before anything unrecorded is done");
        stop::because(match self.parts.room.check_now() {
            Ok(()) => Chain(error).to_string(),
            Err(full) => full.to_string(),
        });
        false
    }

    /// What follows from all inputs so far; of clusters only when it is their time again.
    fn reconcile(&mut self, world: &mut World, now: UnixMs) -> Vec<Effect> {
        let begun = Instant::now();
        if begun < self.reconcile_from {
            return world.reconcile_paced(now);
        }
        // What an input means for its cluster reads all its instances, so all that has come shares one pass over them.
        let effects = world.reconcile(now);
        self.reconcile_from = begun + begun.elapsed() * RECONCILE_SHARE;
        effects
    }

    fn finish(&mut self, step: Decided, now: UnixMs) {
        // Before its effects, and before any later ones: a follower misses nothing, and learns nothing twice.
        if let (Answer::Exec { job, targets }, Some(updates)) = (&step.answer, step.updates) {
            for (instance, state) in targets {
                if let TargetState::Running(runs) = state {
                    for run in runs {
                        let reader = self.parts.spools.read(*run, None, true);
                        let _ = updates.try_send(JobUpdate::Began(instance.clone(), reader)); // it holds this many
                    }
                }
            }
            self.followers.add(*job, updates);
        }
        if let Some(reply) = step.reply {
            let _ = reply.send(step.answer); // whoever asked may be gone
        }
        for effect in step.effects {
            self.perform(effect, now);
        }
    }

    pub(super) fn publish(&self, event: Event, now: UnixMs) {
        log(&event);
        self.engine.events.publish(event, now);
    }
}

fn ended_runs(changes: &Changes) -> Vec<RunId> {
    changes
        .runs
        .iter()
        .filter(|run| run.verdict.is_some())
        .map(|run| run.id)
        .collect()
}

fn log(event: &Event) {
    let instance = event
        .instance
        .as_ref()
        .map(|name| name.as_str())
        .unwrap_or_default();
    match event.kind {
        "instance-failed" | "boot-failed" | "notice" | "identity-used-twice" => {
            tracing::warn!(cluster = %event.cluster, instance, event = event.kind, detail = %event.message, "event");
        }
        _ => {
            tracing::info!(cluster = %event.cluster, instance, event = event.kind, detail = %event.message, "event")
        }
    }
}

#[cfg(test)]
mod tests;
