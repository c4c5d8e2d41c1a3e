//! A change that goes over instances at a pace: who has a turn next, when it stops, and what is left then. Who has a place in it
//! is drawn up in `rolling`.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::plural;

use super::World;
use super::adopt::{adopt_plans, label, run_again, take_up};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::launch::Launch;
use crate::needs::Needs;
use crate::outcome::{Outcome, Verdict};
use crate::pace::{PaceStep, SoFar};
use crate::phase::Phase;
use crate::rolling::{Rolling, RollingGroup, TurnStep};

/// How many names a text has at most.
const MAX_NAMED: usize = 5;

/// What comes next.
enum NextTurn {
    /// It is the turn of these.
    Begin(Vec<InstanceName>),
    /// It is the turn of this one, since others wait for its stages.
    Needed(InstanceName),
    /// A batch of this group has just ended, when this many had been given a turn.
    BatchEnded(usize, usize),
    /// Nobody else has a turn, and why.
    Stop(String),
    /// Nothing now.
    Wait,
}

/// How far a group is.
#[derive(Default)]
pub(super) struct GroupCount<'a> {
    pub(super) so_far: SoFar,
    pub(super) running: Vec<&'a InstanceName>,
    failed: Vec<&'a InstanceName>,
}

impl World {
    /// Gives as many more a turn as their paces allow now.
    pub(super) fn advance_rolling(&mut self, name: &ClusterName) {
        self.resume_turns(name);
        loop {
            match self.next_turn(name) {
                NextTurn::Wait => return,
                NextTurn::Stop(why) => return self.stop_rolling(name, &why),
                NextTurn::BatchEnded(group, begun) => {
                    let now = self.now;
                    if let Some(rolling) = self.rolling_mut(name) {
                        rolling.groups[group].batch_ended = Some((begun, now));
                    }
                }
                NextTurn::Needed(instance) => {
                    let cluster = name.clone();
                    let at = InstanceKey { cluster, instance };
                    self.add_canary(&at);
                    self.begin_turn(&at);
                }
                NextTurn::Begin(names) => {
                    for instance in names {
                        let cluster = name.clone();
                        self.begin_turn(&InstanceKey { cluster, instance });
                    }
                }
            }
        }
    }

    /// Those that were lost amid an earlier change, and are back, are under change in this one.
    fn resume_turns(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let Some(launch) = cluster.launch.as_ref().filter(|it| it.rolling.is_some()) else {
            return;
        };
        let is_back = |it: &&Instance| {
            let turn = it.turn.as_ref().filter(|turn| turn.job == launch.job);
            it.session.is_some() && turn.is_some_and(|turn| turn.step == TurnStep::Lost)
        };
        let back = cluster.instances.values().filter(is_back);
        let back: Vec<InstanceName> = back.map(|it| it.name.clone()).collect();
        for instance in back {
            let cluster = name.clone();
            let at = InstanceKey { cluster, instance };
            self.add_canary(&at);
            if let Some(turn) = self.instance_mut(&at).and_then(|it| it.turn.as_mut()) {
                turn.step = TurnStep::Changing;
            }
        }
    }

    fn rolling_mut(&mut self, name: &ClusterName) -> Option<&mut Rolling> {
        self.cluster_mut(name)?.launch.as_mut()?.rolling.as_mut()
    }

    fn next_turn(&self, name: &ClusterName) -> NextTurn {
        let known = self.clusters.get(name).and_then(|cluster| {
            let launch = cluster.launch.as_ref()?;
            Some((cluster, launch, launch.active_rolling()?))
        });
        let Some((cluster, launch, rolling)) = known else {
            return NextTurn::Wait;
        };
        let counts = self.count_groups(cluster, launch, rolling);
        if counts.iter().all(|count| count.so_far.waiting == 0) {
            return NextTurn::Wait;
        }
        let mut groups = rolling.groups.iter().zip(&counts);
        if let Some(why) = groups.find_map(|(group, count)| exceeded(group, count)) {
            return NextTurn::Stop(why);
        }
        for (index, (group, count)) in rolling.groups.iter().zip(&counts).enumerate() {
            let so_far = SoFar {
                batch_ended_ms: group.batch_ended.map_or(0, |(_, ms)| ms),
                ..count.so_far
            };
            let begun = so_far.started;
            let ended = begun > 0 && so_far.running == 0 && group.pace.batch_wait_ms > 0;
            if ended && group.batch_ended.is_none_or(|(at, _)| at != begun) {
                return NextTurn::BatchEnded(index, begun);
            }
            let is_open = |other: &usize| {
                let other = &counts[*other].so_far;
                other.waiting + other.running > 0
            };
            if so_far.waiting == 0 || group.after.iter().any(is_open) {
                continue;
            }
            match group.pace.next(&so_far, self.now) {
                PaceStep::Wait => {}
                PaceStep::Stop(why) => return NextTurn::Stop(format!("{}: {why}", group.label)),
                PaceStep::Start(most) => {
                    let next = next_of(cluster, launch, index, most);
                    if !next.is_empty() {
                        return NextTurn::Begin(next);
                    }
                }
            }
        }
        self.awaited(cluster, launch)
    }

    pub(super) fn count_groups<'a>(
        &self,
        cluster: &'a Cluster,
        launch: &Launch,
        rolling: &Rolling,
    ) -> Vec<GroupCount<'a>> {
        let mut counts: Vec<GroupCount<'a>> = Vec::new();
        counts.resize_with(rolling.groups.len(), GroupCount::default);
        for instance in cluster.instances.values() {
            let turn = instance.turn.as_ref().filter(|turn| turn.job == launch.job);
            let Some((turn, count)) = turn.and_then(|it| Some((it, counts.get_mut(it.group)?)))
            else {
                continue;
            };
            match turn.step {
                // One that is away is left as it is: it holds nobody up.
                TurnStep::Waiting => {
                    count.so_far.waiting += usize::from(!self.is_left(instance));
                    continue;
                }
                TurnStep::Lost => continue,
                _ => count.so_far.started += 1,
            }
            if turn.step == TurnStep::Passed {
                continue;
            }
            let is_over = matches!(instance.phase, Phase::Failed | Phase::Gone);
            if is_over || self.is_lost_in_launch(instance) {
                count.so_far.failed += 1;
                count.failed.push(&instance.name);
            } else {
                count.so_far.running += 1;
                count.running.push(&instance.name);
            }
        }
        counts
    }

    /// Where all that have a turn wait for stages of others: one of these that waits for a turn itself, since files without
    /// dependency cycles always have one that can run; or, where none of them can come, why nobody else has a turn.
    fn awaited(&self, cluster: &Cluster, launch: &Launch) -> NextTurn {
        let needs = Needs::of(cluster);
        let has_turn = |it: &&Instance| {
            let turn = it.turn.as_ref().filter(|turn| turn.job == launch.job);
            let open = turn.is_some_and(|turn| {
                matches!(turn.step, TurnStep::Changing | TurnStep::Checking { .. })
            });
            open && !matches!(it.phase, Phase::Failed | Phase::Gone)
        };
        let all = cluster.instances.values().filter(has_turn);
        let mut open: Vec<&Instance> = all.filter(|it| !self.is_lost_in_launch(it)).collect();
        let Some(first) = open.first().map(|it| it.name.clone()) else {
            return NextTurn::Wait;
        };
        let mut seen: BTreeSet<&InstanceName> = open.iter().map(|it| &it.name).collect();
        let mut next = None;
        while let Some(instance) = open.pop() {
            if !needs.waits(instance) {
                return NextTurn::Wait; // it continues by itself
            }
            for name in needs.awaited(instance) {
                let other = cluster.instances.get(name).filter(|_| seen.insert(name));
                let Some(other) = other else {
                    continue;
                };
                if waits_in(other, launch) {
                    match self.is_left(other) {
                        true => {}
                        false if other.session.is_none() => return NextTurn::Wait,
                        false => next = next.or(Some(&other.name)),
                    }
                } else if !other.phase.is_at_rest() && !self.is_lost_in_launch(other) {
                    open.push(other);
                }
            }
        }
        match next {
            Some(name) => NextTurn::Needed(name.clone()),
            None => NextTurn::Stop(format!("{first} waits for stages that do not come")),
        }
    }

    /// One that gets a turn while canaries have theirs is one of them.
    fn add_canary(&mut self, at: &InstanceKey) {
        let Some(cluster) = self.clusters.get(&at.cluster) else {
            return;
        };
        let turn = cluster.instances.get(&at.instance);
        let Some(turn) = turn.and_then(|instance| instance.turn.as_ref()) else {
            return;
        };
        let (job, group) = (turn.job, turn.group);
        let turns = cluster.instances.values().filter_map(|it| it.turn.as_ref());
        let begun: Vec<&TurnStep> = turns
            .filter(|turn| (turn.job, turn.group) == (job, group))
            .filter(|turn| turn.has_begun())
            .map(|turn| &turn.step)
            .collect();
        let (count, open) = (
            begun.len(),
            begun.iter().any(|step| **step != TurnStep::Passed),
        );
        let rolling = self.rolling_mut(&at.cluster);
        if let Some(group) = rolling.and_then(|rolling| rolling.groups.get_mut(group))
            && open
            && group.pace.canary == count
        {
            group.pace.canary += 1;
        }
    }

    pub(super) fn begin_turn(&mut self, at: &InstanceKey) {
        let known = self.instance(at).and_then(|instance| {
            let launch = self.clusters.get(&at.cluster)?.launch.as_ref()?;
            let rolling = launch.rolling.as_ref()?;
            let plans = rolling.stages.get(label(instance))?.clone();
            Some((plans, rolling.from, rolling.moves))
        });
        let Some((plans, from, moves)) = known else {
            return;
        };
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        if let Some(turn) = &mut instance.turn {
            turn.step = TurnStep::Changing;
        }
        adopt_plans(instance, &plans, true);
        if let Some(from) = from {
            run_again(instance, from);
        }
        let at = std::slice::from_ref(at);
        self.recheck_templates(&at[0].cluster, at, moves);
        if self.stages_to_run(at) == 0
            && let Some(instance) = self.instance_mut(&at[0])
        {
            take_up(instance); // for its check alone
        }
        self.emit(&at[0], "update-started", "its turn has come");
    }

    fn stop_rolling(&mut self, name: &ClusterName, why: &str) {
        if let Some(rolling) = self.rolling_mut(name) {
            rolling.stopped = Some(why.to_owned());
        }
        let text = format!("{why}: no more instances are changed");
        self.emit_cluster(name, "update-stopped", text);
    }

    /// It waits for its turn, and may get it yet.
    pub(super) fn awaits_turn(&self, launch: &Launch, instance: &Instance) -> bool {
        launch.active_rolling().is_some() && waits_in(instance, launch) && !self.is_left(instance)
    }

    /// It waits for a turn and gets none: its agent is away, or its machine is going.
    fn is_left(&self, instance: &Instance) -> bool {
        self.is_lost(instance) || !instance.has_machine()
    }
}

/// The next of a group that are there, in their order.
pub(super) fn next_of(
    cluster: &Cluster,
    launch: &Launch,
    group: usize,
    most: usize,
) -> Vec<InstanceName> {
    let in_group = |it: &&Instance| {
        let turn = it.turn.as_ref();
        it.session.is_some()
            && it.has_machine()
            && turn.is_some_and(|turn| turn.waits_in(launch.job) && turn.group == group)
    };
    let place = |it: &&Instance| it.turn.as_ref().map(|turn| turn.place);
    let mut all: Vec<&Instance> = cluster.instances.values().filter(in_group).collect();
    all.sort_by_key(place);
    let first = all.into_iter().take(most);
    first.map(|instance| instance.name.clone()).collect()
}

pub(super) fn waits_in(instance: &Instance, launch: &Launch) -> bool {
    let turn = instance.turn.as_ref();
    turn.is_some_and(|turn| turn.waits_in(launch.job))
}

/// Why nobody else has a turn, if so.
fn exceeded(group: &RollingGroup, count: &GroupCount<'_>) -> Option<String> {
    let (failed, label, pace) = (count.so_far.failed, &group.label, &group.pace);
    let who = named(&count.failed);
    if pace.canary > 0 && failed > 0 && count.so_far.started <= pace.canary {
        return Some(format!("{label}: a canary did not succeed ({who})"));
    }
    let most = pace.max_errors.filter(|most| failed > *most)?;
    Some(format!(
        "{label}: {failed} did not succeed ({who}), and max_errors is {most}"
    ))
}

fn named(names: &[&InstanceName]) -> String {
    let first: Vec<&str> = names
        .iter()
        .take(MAX_NAMED)
        .map(|name| name.as_str())
        .collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Those that a launch or an apply has left as they were.
fn left<'a>(cluster: &'a Cluster, launch: &Launch) -> Vec<&'a InstanceName> {
    let rolled = launch.rolling.is_some();
    let all = cluster.instances.values().filter(|_| rolled);
    let waiting = all.filter(|it| waits_in(it, launch) && it.has_machine());
    waiting.map(|instance| &instance.name).collect()
}

/// How many those are, where there may be some.
pub(super) fn left_count(cluster: &Cluster, launch: &Launch) -> Option<usize> {
    let rolled = launch.rolling.is_some();
    rolled.then(|| left(cluster, launch).len())
}

/// What is said at the end of a launch or an apply that has left some as they were, and how to continue.
pub(super) fn left_in_words(cluster: &Cluster, launch: &Launch) -> Option<String> {
    let names = left(cluster, launch);
    let rolling = launch.rolling.as_ref().filter(|_| !names.is_empty())?;
    let why = rolling.stopped.as_deref();
    Some(format!(
        "{}; {} {} as before ({}); `aot-master apply` continues there",
        why.unwrap_or("not all agents are connected"),
        plural::count(names.len(), "instance"),
        if names.len() == 1 { "is" } else { "are" },
        named(&names)
    ))
}

/// How it ended for one that was left as it was; `None` for others.
pub(super) fn left_verdict(launch: &Launch, instance: &Instance) -> Option<Verdict> {
    let rolling = launch.rolling.as_ref();
    let rolling = rolling.filter(|_| waits_in(instance, launch))?;
    let stopped = rolling.stopped.as_deref();
    let why = stopped.or(launch.cancelled.then_some(launch.error.as_str()));
    Some(match why {
        Some(why) => Verdict::without_run(Outcome::Cancelled, format!("not started: {why}")),
        None if instance.session.is_none() => {
            Verdict::without_run(Outcome::Absent, "its agent is not connected")
        }
        None => {
            let why = format!("not started: {}", launch.error);
            Verdict::without_run(Outcome::Cancelled, why)
        }
    })
}
