//! `needs` of stages: names into instances, and no cycles.

mod cycle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use aot_model::spec::{Need, PoolSpec, StageSpec};
use aot_proto::ids::InstanceName;

use super::Build;
use super::extend::NamedEntry;
use super::names::NoMembers;
use super::template::Template;
use crate::read::{Located, Text};
use crate::record::nearest;
use crate::report::Mistake;
use cycle::{Edge, Edges, PoolStage, cycles};

/// Whose stages can be waited for.
struct StageOwners {
    instances: BTreeMap<String, usize>,
    pools: BTreeMap<String, usize>,
    /// Names of the stages of each pool.
    stages: Vec<Vec<String>>,
    /// Pools whose stages could not all be read: more may have been meant.
    vague: Vec<bool>,
    members: Vec<Vec<InstanceName>>,
    /// Every entry has its names.
    all_named: bool,
    /// Names of pools of which it is not known how many members they have.
    uncounted: Vec<(Template, usize)>,
}

/// What a need looks like.
const FORM: &str = "INSTANCE/STAGE or pool:POOL/STAGE; a stage is a number from 0 or a name; without it, all stages";

/// Stages that there are: `its stages are 0 (prerequisites), 1 (node)`.
fn listed(names: &[String]) -> String {
    let all = names.iter().enumerate();
    let all: Vec<String> = all
        .map(|(index, name)| format!("{index} ({name})"))
        .collect();
    format!("its stages are {}", all.join(", "))
}

impl Build {
    /// Fills in the needs of all stages. `pools` and `stages` stand in the order of `entries`. What else is wrong with a pool keeps
    /// nobody from learning what is wrong with its needs, or with those of which it is one.
    pub(super) fn needs(
        &mut self,
        entries: &[NamedEntry],
        pools: &[Result<PoolSpec, NoMembers>],
        stages: &mut [Vec<StageSpec>],
        all_named: bool,
    ) {
        let mut known = StageOwners::of(entries, pools, stages);
        known.all_named &= all_named;
        known.vague = entries
            .iter()
            .zip(&known.stages)
            .map(|(entry, built)| self.is_vague(entry, built.len()))
            .collect();
        let mut edges: Edges = BTreeMap::new();
        for (index, (entry, stages)) in entries.iter().zip(stages).enumerate() {
            let raw = entry
                .common
                .bootstrap_sequence
                .as_ref()
                .map_or(&[][..], |list| &list.value);
            let are_built = stages.len() == raw.len();
            for (stage, raw) in raw.iter().enumerate() {
                for given in raw.value.needs.iter().flat_map(|list| &list.value.0) {
                    match known.resolve(given) {
                        Ok(Some((on, need))) if are_built => {
                            let edge = Edge {
                                on,
                                of: need.of.clone(),
                                at: given.at.clone(),
                            };
                            edges.entry((index, stage)).or_default().push(edge);
                            stages[stage].needs.push(need);
                        }
                        Ok(_) => {}
                        Err(problem) => self.problems.push(problem),
                    }
                }
            }
        }
        let counts: Vec<usize> = known.stages.iter().map(Vec::len).collect();
        self.problems.extend(cycles(edges, &counts, &known.members));
    }

    /// Whether an entry of which this many stages were built may have been meant to have more.
    fn is_vague(&self, entry: &NamedEntry, built: usize) -> bool {
        let given = entry
            .common
            .bootstrap_sequence
            .as_ref()
            .map_or(0, |list| list.value.len());
        given != built || self.unread_stages_of(entry)
    }
}

impl StageOwners {
    fn of(
        entries: &[NamedEntry],
        pools: &[Result<PoolSpec, NoMembers>],
        stages: &[Vec<StageSpec>],
    ) -> Self {
        let mut known = Self {
            instances: BTreeMap::new(),
            pools: BTreeMap::new(),
            stages: Vec::new(),
            vague: Vec::new(),
            members: Vec::new(),
            all_named: !pools
                .iter()
                .any(|pool| matches!(pool, Err(NoMembers::Unnamed))),
            uncounted: Vec::new(),
        };
        for (index, ((entry, pool), stages)) in entries.iter().zip(pools).zip(stages).enumerate() {
            let members = pool.iter().flat_map(|pool| &pool.members);
            let members: Vec<InstanceName> = members.map(|member| member.name.clone()).collect();
            let names = members.iter().map(|member| (member.to_string(), index));
            known.instances.extend(names);
            match (pool, entry.is_pool) {
                (Err(NoMembers::Uncounted), true) => {
                    known.pools.insert(entry.label(), index);
                    let template = Template::of_pool(&entry.name.value.0).ok();
                    known.uncounted.extend(template.map(|it| (it, index)));
                }
                (Err(NoMembers::Uncounted), false) => {
                    known.instances.insert(entry.label(), index);
                }
                (Ok(pool), _) => {
                    let name = pool.name.as_ref();
                    known
                        .pools
                        .extend(name.map(|name| (name.to_string(), index)));
                }
                (Err(NoMembers::Unnamed), _) => {}
            }
            known
                .stages
                .push(stages.iter().map(|stage| stage.name.clone()).collect());
            known.members.push(members);
        }
        known
    }

    /// `None` for an unknown name or stage where not all of them could be read.
    fn resolve(&self, given: &Located<Text>) -> Result<Option<(PoolStage, Need)>, Mistake> {
        let text = &given.value.0;
        let (whose, stage) = match text.split_once('/') {
            Some((whose, stage)) => (whose, Some(stage)),
            None => (text.as_str(), None),
        };
        let (names, name) = match whose.strip_prefix("pool:") {
            Some(pool) => (&self.pools, pool),
            None => (&self.instances, whose),
        };
        if name.is_empty() || stage.is_some_and(str::is_empty) {
            let problem = given.at.problem(format!("{text:?} is not a need"));
            return Err(problem.help(FORM));
        }
        let mut uncounted = self.uncounted.iter().filter(|_| whose == name);
        let may_be_of = |(of, _): &&(Template, usize)| of.fits(name);
        let maybe = || uncounted.find(may_be_of).map(|(_, pool)| pool);
        let Some(&pool) = names.get(name).or_else(maybe) else {
            if !self.all_named {
                return Ok(None);
            }
            return Err(self.unknown(given, whose, name));
        };
        let stage = match self.stage(pool, stage) {
            Ok(stage) => stage,
            Err(_) if self.vague[pool] => return Ok(None),
            Err((message, help)) => {
                let problem = given.at.problem(format!("{whose} {message}"));
                return Err(problem.help(help));
            }
        };
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
            stage: u32::try_from(stage).unwrap_or(u32::MAX),
            text: text.clone(),
        };
        Ok(Some(((pool, stage), need)))
    }

    /// The index of a stage that is given by its number or name; without either it is the last one, which runs when all
    /// others have succeeded. The error is what the pool lacks, and a way out.
    fn stage(&self, pool: usize, given: Option<&str>) -> Result<usize, (String, String)> {
        let names = &self.stages[pool];
        let Some(last) = names.len().checked_sub(1) else {
            let help = "remove the need, or give it a bootstrap_sequence";
            return Err(("has no stages".to_owned(), help.to_owned()));
        };
        let Some(given) = given else {
            return Ok(last);
        };
        if let Ok(number) = given.parse::<usize>() {
            let lacks = || (format!("has no stage {number}"), listed(names));
            return (number <= last).then_some(number).ok_or_else(lacks);
        }
        let mut called = (0..=last).filter(|index| names[*index] == given);
        match (called.next(), called.next()) {
            (Some(stage), None) => Ok(stage),
            (Some(first), Some(second)) => {
                let help = format!("select one by its number: {first} or {second}");
                Err((format!("has more than one stage {given:?}"), help))
            }
            (None, _) => {
                let help = match nearest(given, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => listed(names),
                };
                Err((format!("has no stage {given:?}"), help))
            }
        }
    }

    fn unknown(&self, given: &Located<Text>, whose: &str, name: &str) -> Mistake {
        if whose == name && self.pools.contains_key(name) {
            let problem = given
                .at
                .problem(format!("{name:?} is a pool, not an instance"));
            return problem.help(format!("for all its members: pool:{}", given.value.0));
        }
        let names = if whose == name {
            &self.instances
        } else {
            &self.pools
        };
        let what = if whose == name { "instance" } else { "pool" };
        let problem = given.at.problem(format!("no {what} is named {name:?}"));
        match nearest(name, names.keys().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean {near:?}?")),
            None => problem,
        }
    }
}
