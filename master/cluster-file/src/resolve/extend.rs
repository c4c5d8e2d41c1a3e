//! `extends` and `defaults`: every instance and pool with all its keys. Own keys win, then those of what it extends,
//! then the defaults.

use std::collections::{BTreeMap, BTreeSet};

use crate::raw::{RawCommon, RawFile};
use crate::read::{Located, Text};
use crate::record::{Record, nearest};
use crate::report::Mistake;

/// One instance or pool.
#[derive(Debug, Clone)]
pub(crate) struct NamedEntry {
    /// An entry of `pools:`.
    pub is_pool: bool,
    /// As the file has it, template and all.
    pub name: Located<Text>,
    /// What it extends.
    pub extends: Option<Located<Text>>,
    /// Number of members.
    pub size: Option<Located<u32>>,
    /// Or their first and last number.
    pub ids: Option<Located<Text>>,
    /// All other keys.
    pub common: RawCommon,
    /// Paths of all that it extends.
    pub sources: Vec<String>,
}

impl NamedEntry {
    /// What others call it: the name without its template.
    pub(super) fn label(&self) -> String {
        if self.is_pool {
            super::template::without_template(&self.name.value.0)
        } else {
            self.name.value.0.clone()
        }
    }

    /// Where it stands, `pools[0]`.
    pub(super) fn path(&self) -> String {
        let path = &self.name.at.path;
        path.strip_suffix(".name").unwrap_or(path).to_owned()
    }

    fn inherit(&mut self, base: &Self) {
        let hostname = self.common.hostname.clone();
        if self.size.is_none() && self.ids.is_none() {
            self.size.clone_from(&base.size);
            self.ids.clone_from(&base.ids);
        }
        self.common.inherit(&base.common);
        // A host name belongs to one machine.
        self.common.hostname = hostname;
    }
}

/// All instances and pools, in the file's order. Those without a name have their problem already and are left out.
pub(crate) fn resolve(
    raw: &RawFile,
    all_named: bool,
    problems: &mut Vec<Mistake>,
) -> Vec<NamedEntry> {
    let own = entries(raw);
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (index, entry) in own.iter().enumerate() {
        by_name.entry(entry.label()).or_insert(index);
        by_name.entry(entry.name.value.0.clone()).or_insert(index);
    }
    let defaults = raw.defaults.as_ref().map(|defaults| &defaults.value);
    let mut in_cycle = BTreeSet::new();
    let mut full = Vec::new();
    let mut found = Vec::new();
    for index in 0..own.len() {
        let chain = chain(index, &own, &by_name, &mut in_cycle, &mut found);
        let mut entry = own[index].clone();
        for base in &chain[1..] {
            entry.inherit(&own[*base]);
            entry.sources.push(own[*base].path());
        }
        if let Some(defaults) = defaults {
            entry.common.inherit(defaults);
        }
        full.push(entry);
    }
    if all_named {
        problems.append(&mut found);
    }
    full
}

/// The entry and what it extends, nearest first. Ends before a cycle closes.
fn chain(
    start: usize,
    own: &[NamedEntry],
    by_name: &BTreeMap<String, usize>,
    in_cycle: &mut BTreeSet<usize>,
    problems: &mut Vec<Mistake>,
) -> Vec<usize> {
    let mut chain = vec![start];
    let mut at = start;
    while let Some(extends) = &own[at].extends {
        let base = &extends.value.0;
        let Some(&next) = by_name.get(base) else {
            let problem = extends
                .at
                .problem(format!("no instance or pool is named {base:?}"));
            let near = nearest(base, by_name.keys().map(String::as_str));
            problems.push(match near {
                Some(near) => problem.help(format!("did you mean {near:?}?")),
                None => problem,
            });
            break;
        };
        if let Some(from) = chain.iter().position(|seen| *seen == next) {
            let cycle = &chain[from..];
            // Said once, at the first of its members.
            if cycle.iter().all(|member| in_cycle.insert(*member)) {
                let mut names: Vec<String> =
                    cycle.iter().map(|member| own[*member].label()).collect();
                names.push(own[next].label());
                problems.push(extends.at.problem(format!(
                    "dependency cycle in extends: {}",
                    names.join(" -> ")
                )));
            }
            break;
        }
        chain.push(next);
        at = next;
    }
    chain
}

fn entries(raw: &RawFile) -> Vec<NamedEntry> {
    let instances = raw
        .instances
        .iter()
        .flat_map(|list| &list.value)
        .filter_map(|instance| {
            Some(NamedEntry {
                is_pool: false,
                name: instance.name.clone()?,
                extends: instance.extends.clone(),
                size: None,
                ids: None,
                common: instance.common.clone(),
                sources: Vec::new(),
            })
        });
    let pools = raw
        .pools
        .iter()
        .flat_map(|list| &list.value)
        .filter_map(|pool| {
            Some(NamedEntry {
                is_pool: true,
                name: pool.name.clone()?,
                extends: pool.extends.clone(),
                size: pool.size.clone(),
                ids: pool.ids.clone(),
                common: pool.common.clone(),
                sources: Vec::new(),
            })
        });
    instances.chain(pools).collect()
}
