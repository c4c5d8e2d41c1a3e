//! Cycles of stages that wait for each other, each told with all that is on it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::InstanceName;

use crate::read::At;
use crate::report::Mistake;

/// A stage of all members of a pool. Members are alike, so a cycle between stages of single instances is one between
/// stages of their pools, and the other way round.
pub(super) type PoolStage = (usize, usize);

/// One need of a stage.
pub(super) struct Edge {
    /// The stage that it waits for.
    pub on: PoolStage,
    /// Of these members.
    pub of: Vec<InstanceName>,
    /// Where the file says so.
    pub at: At,
}

/// What stages wait for.
pub(super) type Edges = BTreeMap<PoolStage, Vec<Edge>>;

/// Most cycles that are told of one file.
const MOST: usize = 10;

/// The problems of all cycles, each at one of its needs. `stages` are counts, a pool each, as `members` are.
pub(super) fn cycles(
    mut edges: Edges,
    stages: &[usize],
    members: &[Vec<InstanceName>],
) -> Vec<Mistake> {
    // Whom nobody is waits for nobody, and nobody waits for it.
    for given in edges.values_mut() {
        given.retain(|edge| !edge.of.is_empty());
    }
    edges.retain(|(pool, _), _| !members[*pool].is_empty());
    let mut problems = Vec::new();
    // Without the need that was blamed, what is found next is another cycle.
    while problems.len() < MOST {
        let left = left(&edges, stages);
        let Some((step, index, problem)) = blame(&edges, &left, members) else {
            break;
        };
        problems.push(problem);
        if let Some(given) = edges.get_mut(&step) {
            given.remove(index);
        }
    }
    problems
}

/// What a step waits for: the needs that the file gives it, and the stage before it.
fn waits(edges: &Edges, step: PoolStage) -> impl Iterator<Item = (PoolStage, Option<usize>)> {
    let given = edges.get(&step).into_iter().flatten().enumerate();
    let before = (step.1 > 0).then(|| ((step.0, step.1 - 1), None));
    given
        .map(|(index, edge)| (edge.on, Some(index)))
        .chain(before)
}

/// Every step that waits for a cycle or is on one: takes away, again and again, those that wait for nothing that is left.
fn left(edges: &Edges, stages: &[usize]) -> BTreeSet<PoolStage> {
    let mut left: BTreeMap<PoolStage, usize> = BTreeMap::new();
    let mut waited_for: BTreeMap<PoolStage, Vec<PoolStage>> = BTreeMap::new();
    let steps = stages
        .iter()
        .enumerate()
        .flat_map(|(pool, count)| (0..*count).map(move |stage| (pool, stage)));
    for step in steps {
        left.insert(step, waits(edges, step).count());
        for (on, _) in waits(edges, step) {
            waited_for.entry(on).or_default().push(step);
        }
    }
    let free = left.iter().filter(|(_, count)| **count == 0);
    let mut free: Vec<PoolStage> = free.map(|(step, _)| *step).collect();
    while let Some(step) = free.pop() {
        left.remove(&step);
        for waiting in waited_for.get(&step).into_iter().flatten() {
            if let Some(count) = left.get_mut(waiting) {
                *count -= 1;
                if *count == 0 {
                    free.push(*waiting);
                }
            }
        }
    }
    left.into_keys().collect()
}

/// One stage of one instance on the way along what is left.
struct InstanceStage<'a> {
    step: PoolStage,
    member: &'a InstanceName,
    /// The need that leads on from here; `None` = the stage before.
    need: Option<usize>,
}

/// One need on a cycle, and its problem: follows what is left until a stage comes again.
fn blame(
    edges: &Edges,
    left: &BTreeSet<PoolStage>,
    members: &[Vec<InstanceName>],
) -> Option<(PoolStage, usize, Mistake)> {
    let mut step = *left.first()?;
    let mut member = members[step.0].first()?;
    let mut way: Vec<InstanceStage<'_>> = Vec::new();
    let from = loop {
        if let Some(from) = way
            .iter()
            .position(|stop| stop.step == step && stop.member == member)
        {
            break from;
        }
        let (on, need) = waits(edges, step).find(|(on, _)| left.contains(on))?;
        way.push(InstanceStage { step, member, need });
        if let Some(index) = need {
            let of = &edges[&step][index].of;
            // Whoever was met before closes the cycle sooner.
            let met = way.iter().find(|stop| stop.step == on);
            let met = met.filter(|stop| of.contains(stop.member));
            member = met.map_or_else(|| of.first(), |stop| Some(stop.member))?;
        }
        step = on;
    };
    let mut cycle = way.split_off(from);
    // A cycle can't be made of "the stage before" alone, so one of its needs is in the file.
    let first = cycle.iter().position(|stop| stop.need.is_some())?;
    cycle.rotate_left(first);
    let (step, index) = (cycle[0].step, cycle[0].need?);
    let names = cycle.iter().chain(&cycle[..1]);
    let names: Vec<String> = names
        .map(|stop| format!("{}/{}", stop.member, stop.step.1))
        .collect();
    let at = &edges[&step][index].at;
    let problem = at.problem(format!("waits for itself: {}", names.join(" -> ")));
    let problem = problem.help("the stages form a dependency cycle; remove one of the needs");
    Some((step, index, problem))
}
