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

/// The problem of the first circle. Every stage waits for the one before it, too.
fn circle(edges: &Edges, stages: &[usize]) -> Option<Problem> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Open,
        Done,
    }
    let mut seen: BTreeMap<Step, Seen> = BTreeMap::new();
    for pool in 0..stages.len() {
        for stage in 0..stages[pool] {
            // Each frame: a step, and how many of what it waits for have been looked at.
            let mut stack = vec![((pool, stage), 0)];
            while let Some(((at, looked), depth)) =
                stack.last().copied().map(|top| (top, stack.len()))
            {
                if looked == 0 && seen.insert(at, Seen::Open) == Some(Seen::Done) {
                    seen.insert(at, Seen::Done);
                    stack.pop();
                    continue;
                }
                let waits = edges.get(&at).map_or(&[][..], Vec::as_slice);
                let before = (at.1 > 0).then(|| (at.0, at.1 - 1));
                let next = waits.get(looked).map(|(step, _)| *step);
                let next = if looked < waits.len() {
                    next
                } else if looked == waits.len() {
                    before
                } else {
                    None
                };
                let Some(next) = next else {
                    seen.insert(at, Seen::Done);
                    stack.pop();
                    continue;
                };
                stack[depth - 1].1 = looked + 1;
                match seen.get(&next) {
                    Some(Seen::Done) => {}
                    Some(Seen::Open) => return blame(edges, &stack, next),
                    None => stack.push((next, 0)),
                }
            }
        }
    }
    None
}

/// The problem of one need on the circle: a circle can't be made of "the stage before" alone.
fn blame(edges: &Edges, stack: &[(Step, usize)], back_to: Step) -> Option<Problem> {
    let from = stack.iter().position(|(step, _)| *step == back_to)?;
    let on_circle = stack[from..].iter().find_map(|(step, looked)| {
        edges
            .get(step)?
            .get(looked.checked_sub(1)?)
            .map(|(_, problem)| problem.clone())
    })?;
    Some(on_circle.help("the stages need each other in a circle; take one of the needs out"))
}
