//! `needs` of stages: names into instances, and no cycles.

mod cycle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use aot_model::spec::{Need, PoolSpec};
use aot_proto::ids::InstanceName;

use super::Build;
use super::extend::NamedEntry;
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
    /// Fills in the needs of all stages. `pools` stand in the order of `entries`.
    pub(super) fn needs(
        &mut self,
        entries: &[NamedEntry],
        pools: &mut [Option<PoolSpec>],
        all_named: bool,
    ) {
        let mut known = StageOwners::of(pools);
        known.vague = entries
            .iter()
            .zip(&known.stages)
            .map(|(entry, built)| self.is_vague(entry, built.len()))
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
                            let edge = Edge {
                                on,
                                of: need.of.clone(),
                                at: given.at.clone(),
                            };
                            edges.entry((index, stage)).or_default().push(edge);
                            pool.stages[stage].needs.push(need);
                        }
                        Ok(None) => {}
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
        given != built || self.unread_of(entry)
    }
}

impl StageOwners {
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
            known.stages.push(
                pool.iter()
                    .flat_map(|pool| &pool.stages)
                    .map(|stage| stage.name.clone())
                    .collect(),
            );
            known.members.push(members);
        }
        known
    }

    /// `None` for an unknown name or stage where not all of them could be read.
    fn resolve(
        &self,
        given: &Located<Text>,
        complete: bool,
    ) -> Result<Option<(PoolStage, Need)>, Mistake> {
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
        let Some(&pool) = names.get(name) else {
            if !complete {
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
