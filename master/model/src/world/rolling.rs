//! Who has to wait for a turn when a launch or an apply changes instances that are ready: drawn up once, when it begins. Who has
//! one is in `turns`.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId};

use super::World;
use super::adopt::{adopt_plans, run_again, take_up};
use super::templates::RenderBasis;
use crate::cluster::Cluster;
use crate::health::HealthSpec;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::pace::PacePolicy;
use crate::phase::Phase;
use crate::rolling::{Rolling, RollingGroup, RollingTurn, TurnStep};
use crate::spec::{ClusterSpec, PoolSpec};
use crate::stage::{StagePlan, StageState};

/// Instances whose stages stay as they are until their turn comes.
pub(super) type HeldBack = BTreeSet<InstanceName>;

/// What a launch or an apply changes.
pub(super) struct RollingDraft<'a> {
    pub(super) name: &'a ClusterName,
    pub(super) job: JobId,
    /// What the operator says of the pace.
    pub(super) pace: &'a PacePolicy,
    /// By pool label.
    pub(super) stages: &'a BTreeMap<String, Vec<StagePlan>>,
    /// From this stage on all run again, also what succeeded.
    pub(super) from: Option<usize>,
    /// Machines come or go with it.
    pub(super) moves: bool,
    pub(super) held: &'a HeldBack,
    /// All that it is about.
    pub(super) keys: &'a [InstanceKey],
}

/// Those of the instances for which this is so that are, or were, ready, and whose pool is changed at a pace.
pub(super) fn held_back(
    cluster: Option<&Cluster>,
    spec: &ClusterSpec,
    pace: &PacePolicy,
    chosen: impl Fn(&InstanceName) -> bool,
) -> HeldBack {
    let Some(cluster) = cluster else {
        return HeldBack::new();
    };
    let paced = |pool: &PoolSpec| !pace.over(&pool.update).is_unsaid();
    let pools = spec.pools.iter().filter(|pool| paced(pool));
    let members = pools.flat_map(|pool| &pool.members);
    let instances = members.filter_map(|member| cluster.instances.get(&member.name));
    let held = instances.filter(|instance| chosen(&instance.name) && is_held(instance));
    held.map(|instance| instance.name.clone()).collect()
}

fn is_held(instance: &Instance) -> bool {
    matches!(instance.phase, Phase::Ready | Phase::Failed)
        && was_ready(instance)
        && instance.has_machine()
        && instance.identity.is_some()
        && !instance.is_revoked()
}

/// Records of before this was kept say it by their phase alone.
fn was_ready(instance: &Instance) -> bool {
    instance.was_ready || instance.phase == Phase::Ready
}

/// An earlier change of it has begun and is not over.
fn is_mid_change(instance: &Instance) -> bool {
    let open = matches!(
        instance.phase,
        Phase::Configured | Phase::Bootstrapping | Phase::Blocked
    );
    open && was_ready(instance)
}

/// Its stages have succeeded, and the check that followed did not: nothing else keeps it from being ready.
pub(super) fn is_unhealthy(instance: &Instance) -> bool {
    let done = |stage: &crate::stage::Stage| stage.state == StageState::Succeeded;
    instance.phase == Phase::Failed
        && instance.turn.as_ref().is_some_and(RollingTurn::is_unproven)
        && instance.stages.iter().all(done)
}

impl World {
    /// Gives everybody a place; `None` when nobody has to wait. Who waits stays as it is; all others of those that were held back
    /// take over their stages now.
    pub(super) fn draw_rolling(&mut self, draft: &RollingDraft<'_>) -> Option<Rolling> {
        let cluster = self.clusters.get(draft.name)?;
        let mut groups = Groups::of(&cluster.spec, draft.pace);
        let turns = self.places(cluster, draft, &groups);
        groups.keep_used(&turns);
        for at in draft.keys {
            let drawn = turns.get(&at.instance);
            let turn = drawn.map(|drawn| RollingTurn {
                job: draft.job,
                group: groups.index[&drawn.group],
                place: drawn.place,
                step: drawn.step.clone(),
                unproven: drawn.unproven,
                said: String::new(),
            });
            self.place(draft, at, turn);
        }
        if groups.list.is_empty() {
            return None;
        }
        let cluster = self.clusters.get(draft.name)?;
        order(cluster, draft, &mut groups.list);
        let stages = cluster.spec.pools.iter().filter_map(|pool| {
            let is_of = |name: &InstanceName| turns.contains_key(name);
            let used = pool.members.iter().any(|member| is_of(&member.name));
            let plans = draft.stages.get(pool.label()).filter(|_| used)?;
            Some((pool.label().to_owned(), plans.clone()))
        });
        Some(Rolling {
            stages: stages.collect(),
            groups: groups.list,
            from: draft.from,
            moves: draft.moves,
            stopped: None,
        })
    }

    /// Who has to wait, and who is under way already. Those that failed come first, then all in the file's order.
    fn places(
        &self,
        cluster: &Cluster,
        draft: &RollingDraft<'_>,
        groups: &Groups,
    ) -> BTreeMap<InstanceName, Drawn> {
        let keys: BTreeSet<&InstanceName> = draft.keys.iter().map(|at| &at.instance).collect();
        let rendered = RenderBasis::of(cluster, draft.moves);
        let mut found = Vec::new();
        for (pool, group) in cluster.spec.pools.iter().zip(&groups.of_pool) {
            let Some(group) = *group else {
                continue;
            };
            let plans = draft
                .stages
                .get(pool.label())
                .map_or(&[][..], Vec::as_slice);
            let health = pool.health.as_ref();
            for member in pool.members.iter().filter(|it| keys.contains(&it.name)) {
                let Some(instance) = cluster.instances.get(&member.name) else {
                    continue;
                };
                let step = match draft.held.contains(&member.name) {
                    true if has_work(instance, plans, health, draft.from, &rendered) => {
                        TurnStep::Waiting
                    }
                    false if is_mid_change(instance) => match self.is_lost_in_launch(instance) {
                        true => TurnStep::Lost,
                        false => TurnStep::Changing,
                    },
                    _ => continue,
                };
                found.push((instance, group, step));
            }
        }
        found.sort_by_key(|(instance, ..)| instance.phase != Phase::Failed);
        let drawn = found
            .into_iter()
            .enumerate()
            .map(|(place, (instance, group, step))| {
                let drawn = Drawn {
                    group,
                    place,
                    step,
                    unproven: instance.turn.as_ref().is_some_and(RollingTurn::is_unproven),
                };
                (instance.name.clone(), drawn)
            });
        drawn.collect()
    }

    /// Those that wait for no turn in this job.
    pub(super) fn without_turn(&self, keys: &[InstanceKey], job: JobId) -> Vec<InstanceKey> {
        let waits = |at: &&InstanceKey| {
            let turn = self
                .instance(at)
                .and_then(|instance| instance.turn.as_ref());
            turn.is_some_and(|turn| turn.waits_in(job))
        };
        keys.iter().filter(|at| !waits(at)).cloned().collect()
    }

    fn place(&mut self, draft: &RollingDraft<'_>, at: &InstanceKey, turn: Option<RollingTurn>) {
        let is_held = draft.held.contains(&at.instance);
        let Some(instance) = self.instance(at) else {
            return;
        };
        let unhealthy = turn.is_none() && is_unhealthy(instance);
        if turn == instance.turn && !is_held && !unhealthy {
            return;
        }
        let label = super::adopt::label(instance).to_owned();
        let Some(instance) = self.instance_mut(at) else {
            return;
        };
        if turn.is_none() && is_held {
            let plans = draft.stages.get(&label).map_or(&[][..], Vec::as_slice);
            adopt_plans(instance, plans, true);
        }
        instance.turn = turn;
        if unhealthy {
            take_up(instance); // it is asked no more whether all is well
        }
    }
}

/// The place of one in its group.
struct Drawn {
    /// As in `Groups::of_pool`.
    group: usize,
    place: usize,
    step: TurnStep,
    unproven: bool,
}

/// Whether a turn of it would run a stage, or a check.
fn has_work(
    instance: &Instance,
    plans: &[StagePlan],
    health: Option<&HealthSpec>,
    from: Option<usize>,
    rendered: &RenderBasis,
) -> bool {
    let mut changed = instance.clone();
    adopt_plans(&mut changed, plans, true);
    if let Some(from) = from {
        run_again(&mut changed, from);
    }
    let is_unproven = instance.turn.as_ref().is_some_and(RollingTurn::is_unproven);
    changed.next_stage().is_some()
        || !rendered.due(&changed).is_empty()
        || (health.is_some() && is_unproven)
}

/// The groups of a file, and which of them each pool belongs to.
struct Groups {
    list: Vec<RollingGroup>,
    of_pool: Vec<Option<usize>>,
    /// Where those that are used have come to be.
    index: BTreeMap<usize, usize>,
}

impl Groups {
    fn of(spec: &ClusterSpec, pace: &PacePolicy) -> Self {
        let mut drafts: Vec<(Option<&PoolSpec>, PacePolicy, Option<&HealthSpec>, usize)> =
            Vec::new();
        let mut singles: Vec<usize> = Vec::new();
        let mut of_pool = Vec::new();
        for pool in &spec.pools {
            let policy = pace.over(&pool.update);
            if policy.is_unsaid() {
                of_pool.push(None);
                continue;
            }
            let health = pool.health.as_ref();
            let same =
                |index: &&usize| (&drafts[**index].1, drafts[**index].2) == (&policy, health);
            let known = singles.iter().find(same).filter(|_| pool.name.is_none());
            let index = match known {
                Some(index) => *index,
                None => {
                    let named = pool.name.is_some().then_some(pool);
                    drafts.push((named, policy, health, 0));
                    let index = drafts.len() - 1;
                    singles.extend(named.is_none().then_some(index));
                    index
                }
            };
            drafts[index].3 += pool.members.len();
            of_pool.push(Some(index));
        }
        let group = |(pool, policy, health, size): (
            Option<&PoolSpec>,
            PacePolicy,
            Option<&HealthSpec>,
            usize,
        )| RollingGroup {
            label: pool.map_or("single instances", PoolSpec::label).to_owned(),
            pace: policy.of(size),
            health: health.cloned(),
            after: Vec::new(),
            batch_ended: None,
        };
        Self {
            list: drafts.into_iter().map(group).collect(),
            of_pool,
            index: BTreeMap::new(),
        }
    }

    /// Without those in which nobody has a place. Who is under way already is a canary as well.
    fn keep_used(&mut self, turns: &BTreeMap<InstanceName, Drawn>) {
        let mut used: BTreeMap<usize, usize> = BTreeMap::new();
        for drawn in turns.values() {
            let under_way = used.entry(drawn.group).or_default();
            *under_way += usize::from(drawn.step == TurnStep::Changing);
        }
        let mut kept = Vec::new();
        for (index, group) in std::mem::take(&mut self.list).into_iter().enumerate() {
            let Some(under_way) = used.get(&index) else {
                continue;
            };
            self.index.insert(index, kept.len());
            kept.push(group);
            let pace = &mut kept.last_mut().expect("just put there").pace;
            if pace.canary > 0 {
                pace.canary = pace.canary.max(*under_way);
            }
        }
        self.list = kept;
    }
}

/// Groups go after those whose stages they need, unless these need theirs as well: then side by side.
fn order(cluster: &Cluster, draft: &RollingDraft<'_>, groups: &mut [RollingGroup]) {
    let in_job = |instance: &Instance| {
        let turn = instance
            .turn
            .as_ref()
            .filter(|turn| turn.job == draft.job)?;
        Some(turn.group)
    };
    let group_of: BTreeMap<&InstanceName, usize> = cluster
        .instances
        .values()
        .filter_map(|instance| Some((&instance.name, in_job(instance)?)))
        .collect();
    let mut needs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); groups.len()];
    for pool in &cluster.spec.pools {
        let mut members = pool.members.iter();
        let Some(group) = members.find_map(|member| group_of.get(&member.name)) else {
            continue;
        };
        let plans = draft.stages.get(pool.label()).into_iter().flatten();
        let named = plans.flat_map(|plan| &plan.needs).flat_map(|need| &need.of);
        let others = named.filter_map(|name| group_of.get(name));
        needs[*group].extend(others.filter(|other| *other != group));
    }
    let reached: Vec<BTreeSet<usize>> = (0..groups.len()).map(|from| reach(from, &needs)).collect();
    for (index, group) in groups.iter_mut().enumerate() {
        let first = needs[index].iter().copied();
        group.after = first
            .filter(|other| !reached[*other].contains(&index))
            .collect();
    }
}

/// All that a group needs, by way of others too.
fn reach(from: usize, needs: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<usize> = needs[from].iter().copied().collect();
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(&needs[next]);
        }
    }
    seen
}
