//! Instances of a change at a pace on which a stage or a check has just succeeded: they continue at once, and who waits gets a
//! place that has come free. So what an agent reports costs no pass over all instances; all else that happens is left to one.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::turns::{next_of, waits_in};
use super::volumes::mounts_any;
use crate::cluster::Cluster;
use crate::key::InstanceKey;
use crate::rolling::{Rolling, TurnStep};
use crate::stage::StagePlan;
use crate::turn_queue::{GroupQueue, QueueStep, TurnQueue};

impl World {
    /// All went well there: it continues, and may make room for others.
    pub(super) fn mark_moved(&mut self, at: &InstanceKey) {
        let queue = self.place_of(at).and(self.queues.get(&at.cluster));
        let Some(is_apart) = queue.map(|queue| queue.is_apart) else {
            return self.mark_due(&at.cluster);
        };
        self.due.moved.insert(at.clone());
        if !is_apart {
            self.mark_awaited(&at.cluster);
        }
    }

    /// Lets all continue that were marked, and those that get a place by it. What can't be decided so is left to a pass.
    pub(super) fn advance_moved(&mut self) {
        while let Some(at) = self.due.moved.pop_first() {
            if !self.moves_on(&at) {
                self.mark_due(&at.cluster);
            }
        }
    }

    /// Notes after a pass over a cluster how far its change at a pace is, unless another pass has to come first.
    pub(super) fn queue_turns(&mut self, name: &ClusterName) {
        let known = self.clusters.get(name).filter(|_| !self.is_due(name));
        let queue = known.and_then(|cluster| self.turn_queue(cluster));
        if let Some(queue) = queue.filter(TurnQueue::is_moving) {
            self.queues.insert(name.clone(), queue);
        }
    }

    /// `None` where time counts, or cluster facts that are still to come.
    pub(super) fn turn_queue(&self, cluster: &Cluster) -> Option<TurnQueue> {
        let launch = cluster.launch.as_ref()?;
        let rolling = launch.active_rolling()?;
        let has_pause = rolling.groups.iter().any(|it| it.pace.batch_wait_ms > 0);
        let mut plans = all_plans(cluster, rolling);
        if has_pause || plans.any(|plan| plan.templates) || mounts_any(cluster) {
            return None;
        }
        let counts = self.count_groups(cluster, launch, rolling);
        let groups = rolling.groups.iter().zip(counts).enumerate();
        Some(TurnQueue {
            job: launch.job,
            groups: groups
                .map(|(index, (group, count))| GroupQueue {
                    pace: group.pace.clone(),
                    after: group.after.clone(),
                    next: next_of(cluster, launch, index, usize::MAX).into(),
                    waiting: count.so_far.waiting,
                    running: count.running.into_iter().cloned().collect::<BTreeSet<_>>(),
                    started: count.so_far.started,
                    failed: count.so_far.failed,
                })
                .collect(),
            is_barrier_open: self.barrier_open(cluster),
            is_apart: all_plans(cluster, rolling).all(|plan| plan.needs.is_empty()),
        })
    }

    /// The group in which it has a place that is known without a pass.
    fn place_of(&self, at: &InstanceKey) -> Option<usize> {
        let queue = self.queues.get(&at.cluster)?;
        let cluster = self.clusters.get(&at.cluster)?;
        let launch = cluster.launch.as_ref().filter(|it| it.job == queue.job)?;
        launch.active_rolling()?;
        let turn = cluster.instances.get(&at.instance)?.turn.as_ref()?;
        let has_place = turn.job == queue.job && queue.has_place(turn.group, &at.instance);
        has_place.then_some(turn.group)
    }

    /// Whether that could be decided.
    fn moves_on(&mut self, at: &InstanceKey) -> bool {
        let Some(group) = self.place_of(at) else {
            return false;
        };
        let is_open = self
            .queues
            .get(&at.cluster)
            .is_some_and(|it| it.is_barrier_open);
        if !self.has_passed(at) && !self.continue_stages(at, is_open) {
            return false;
        }
        if !self.has_passed(at) {
            return true; // it has something to do
        }
        if let Some(queue) = self.queues.get_mut(&at.cluster) {
            queue.leave(group, &at.instance);
        }
        self.give_places(&at.cluster)
    }

    fn has_passed(&self, at: &InstanceKey) -> bool {
        let turn = self.instance(at).and_then(|it| it.turn.as_ref());
        turn.is_some_and(|turn| turn.step == TurnStep::Passed)
    }

    fn give_places(&mut self, name: &ClusterName) -> bool {
        while let Some(queue) = self.queues.get_mut(name) {
            let names = match queue.next() {
                QueueStep::Begin(names) => names,
                QueueStep::Wait => return true,
                QueueStep::Pass => return false,
            };
            for instance in names {
                if !self.may_begin(name, &instance) {
                    return false;
                }
                let cluster = name.clone();
                let at = InstanceKey { cluster, instance };
                self.begin_turn(&at);
                self.due.moved.insert(at);
            }
        }
        false
    }

    /// It still waits, and is there.
    fn may_begin(&self, name: &ClusterName, instance: &InstanceName) -> bool {
        let known = self.clusters.get(name).and_then(|cluster| {
            let instance = cluster.instances.get(instance)?;
            Some((cluster.launch.as_ref()?, instance))
        });
        known.is_some_and(|(launch, instance)| {
            let is_there = instance.session.is_some() && instance.has_machine();
            is_there && waits_in(instance, launch)
        })
    }
}

/// Of all stages, as they are and as they are to be.
fn all_plans<'a>(
    cluster: &'a Cluster,
    rolling: &'a Rolling,
) -> impl Iterator<Item = &'a StagePlan> {
    let now = cluster.instances.values().flat_map(|it| &it.stages);
    let then = rolling.stages.values().flatten();
    now.map(|stage| &stage.plan).chain(then)
}
