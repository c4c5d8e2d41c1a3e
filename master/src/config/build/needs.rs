//! `needs` of stages: names into instances, and no circles.

use std::collections::BTreeMap;

use aot_proto::ids::InstanceName;

use crate::config::read::{Located, Text};
use crate::config::record::nearest;
use crate::config::report::Problem;
use crate::model::file::{Need, PoolSpec};

use super::Build;
use super::extend::Entry;

/// A stage of all members of a pool. Members are alike, so a circle between stages of single instances is one between
/// stages of their pools.
type Step = (usize, usize);

/// What a stage waits for, and the place that says so.
type Edges = BTreeMap<Step, Vec<(Step, Problem)>>;

/// Whose stages can be waited for.
struct Known {
    instances: BTreeMap<String, usize>,
    pools: BTreeMap<String, usize>,
    stages: Vec<usize>,
    /// Pools whose stages could not all be read: more may have been meant.
    vague: Vec<bool>,
    members: Vec<Vec<InstanceName>>,
}

impl Build {
    /// Fills in the needs of all stages. `pools` stand in the order of `entries`.
    pub(super) fn needs(
        &mut self,
        entries: &[Entry],
        pools: &mut [Option<PoolSpec>],
        all_named: bool,
    ) {
        let mut known = Known::of(pools);
        known.vague = entries
            .iter()
            .zip(&known.stages)
            .map(|(entry, built)| self.is_vague(entry, *built))
            .collect();
        let complete = all_named && pools.iter().all(Option::is_some);
        let mut edges: Edges = BTreeMap::new();
        for (index, (entry, pool)) in entries.iter().zip(pools.iter_mut()).enumerate() {
            let raw = entry
                .common
                .bootstrap_sequence
                .as_ref()
                .map_or(&[][..], |list| &list.value);
            let Some(pool) = pool.as_mut().filter(|pool| pool.stages.len() == raw.len()) else {
                // It could not be built, and has its problem already.
                continue;
            };
            for (stage, raw) in raw.iter().enumerate() {
                for given in raw.value.needs.iter().flat_map(|list| &list.value.0) {
                    match known.resolve(given, complete) {
                        Ok(Some((on, need))) => {
                            let circle = given
                                .at
                                .problem(format!("{:?} waits for itself", entry.label()));
                            edges.entry((index, stage)).or_default().push((on, circle));
                            pool.stages[stage].needs.push(need);
                        }
                        Ok(None) => {}
                        Err(problem) => self.problems.push(problem),
                    }
                }
            }
        }
        self.problems.extend(circle(&edges, &known.stages));
    }

    /// Whether an entry of which so many stages were built may have been meant to have more.
    fn is_vague(&self, entry: &Entry, built: usize) -> bool {
        let given = entry
            .common
            .bootstrap_sequence
            .as_ref()
            .map_or(0, |list| list.value.len());
        given != built || self.unread_of(entry)
    }
}

impl Known {
    fn of(pools: &[Option<PoolSpec>]) -> Self {
        let mut known = Self {
            instances: BTreeMap::new(),
            pools: BTreeMap::new(),
            stages: Vec::new(),
            vague: Vec::new(),
            members: Vec::new(),
        };
        for (index, pool) in pools.iter().enumerate() {
            let members = pool
                .iter()
                .flat_map(|pool| &pool.members)
                .map(|member| member.name.clone());
            let members: Vec<InstanceName> = members.collect();
            known
                .instances
                .extend(members.iter().map(|member| (member.to_string(), index)));
            let name = pool.as_ref().and_then(|pool| pool.name.as_ref());
            known
                .pools
                .extend(name.map(|name| (name.to_string(), index)));
            known
                .stages
                .push(pool.as_ref().map_or(0, |pool| pool.stages.len()));
            known.members.push(members);
        }
        known
    }

    /// `None` for an unknown name or stage where not all of them could be read.
    fn resolve(
        &self,
        given: &Located<Text>,
        complete: bool,
    ) -> Result<Option<(Step, Need)>, Problem> {
        let text = &given.value.0;
        let form = || {
            let problem = given.at.problem(format!("{text:?} is not a need"));
            problem.help("INSTANCE/STAGE or pool:POOL/STAGE, as in manager/1 (stages count from 0)")
        };
        let (whose, stage) = text.rsplit_once('/').ok_or_else(form)?;
        let stage: u32 = stage.parse().map_err(|_| form())?;
        let (names, name) = match whose.strip_prefix("pool:") {
            Some(pool) => (&self.pools, pool),
            None => (&self.instances, whose),
        };
        let Some(&pool) = names.get(name) else {
            if !complete {
                return Ok(None);
            }
            return Err(self.unknown(given, whose, name));
        };
        let has = self.stages[pool];
        if stage as usize >= has {
            if self.vague[pool] {
                return Ok(None);
            }
            let problem = given.at.problem(format!("{whose} has no stage {stage}"));
            return Err(problem.help(match has {
                0 => "it has no stages at all".to_owned(),
                _ => format!("its stages are 0 to {}", has - 1),
            }));
        }
        let of = match whose.strip_prefix("pool:") {
            Some(_) => self.members[pool].clone(),
            None => self.members[pool]
                .iter()
                .filter(|member| member.as_str() == name)
                .cloned()
                .collect(),
        };
        let need = Need {
            of,
            stage,
            text: text.clone(),
        };
        Ok(Some(((pool, stage as usize), need)))
    }

    fn unknown(&self, given: &Located<Text>, whose: &str, name: &str) -> Problem {
        if whose == name && self.pools.contains_key(name) {
            let problem = given
                .at
                .problem(format!("there is no instance {name:?}, but a pool"));
            return problem.help(format!("for all its members: pool:{}", given.value.0));
        }
        let names = if whose == name {
            &self.instances
        } else {
            &self.pools
        };
        let what = if whose == name { "instance" } else { "pool" };
        let problem = given.at.problem(format!("there is no {what} {name:?}"));
        match nearest(name, names.keys().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean {near:?}?")),
            None => problem,
        }
    }
}

/// What a step waits for: the needs that the file gives it, and the stage before it.
fn waits(edges: &Edges, step: Step) -> impl Iterator<Item = (Step, Option<&Problem>)> {
    let given = edges.get(&step).into_iter().flatten();
    let before = (step.1 > 0).then(|| ((step.0, step.1 - 1), None));
    given
        .map(|(on, problem)| (*on, Some(problem)))
        .chain(before)
}

/// The problem of one circle. Takes away, again and again, every step that waits for nothing that is left; what stays
/// waits for a circle or is on one.
fn circle(edges: &Edges, stages: &[usize]) -> Option<Problem> {
    let mut left: BTreeMap<Step, usize> = BTreeMap::new();
    let mut waited_for: BTreeMap<Step, Vec<Step>> = BTreeMap::new();
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
    let mut free: Vec<Step> = left
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(step, _)| *step)
        .collect();
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
    blame(edges, &left)
}

/// The problem of one need on a circle: follows what is left until a step comes again.
fn blame(edges: &Edges, left: &BTreeMap<Step, usize>) -> Option<Problem> {
    let mut at = *left.keys().next()?;
    let mut seen: BTreeMap<Step, usize> = BTreeMap::new();
    let mut needs: Vec<Option<&Problem>> = Vec::new();
    while !seen.contains_key(&at) {
        seen.insert(at, needs.len());
        let (next, need) = waits(edges, at).find(|(on, _)| left.contains_key(on))?;
        needs.push(need);
        at = next;
    }
    // A circle can't be made of "the stage before" alone, so one of its needs is in the file.
    let need = needs[seen[&at]..].iter().flatten().next()?;
    let problem = (*need).clone();
    Some(problem.help("the stages need each other in a circle; take one of the needs out"))
}
