//! Names of pools and of their members: `hadoop` gives hadoop1, hadoop2; `{id}` and `{id:02}` set form and place.

use std::collections::BTreeMap;
use std::ops::Range;

use aot_model::spec::MemberSpec;
use aot_proto::hostname;
use aot_proto::ids::{InstanceName, PoolName};

use super::Build;
use super::extend::NamedEntry;
use super::template::Template;
use crate::MAX_INSTANCES;
use crate::read::{At, Located, Text};
use crate::report::Mistake;

/// Largest number of a member.
const MAX_ID: u32 = 999_999;

/// Names that are taken, with the place that took them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    instances: BTreeMap<String, At>,
    pools: BTreeMap<String, At>,
    /// By what each machine is called on all others, its name and its host name, in lower case.
    hosts: BTreeMap<String, NameOwner>,
    total: usize,
}

/// Who is called so.
#[derive(Debug)]
struct NameOwner {
    instance: String,
    at: At,
}

/// Why nobody knows the members of an entry; the problem is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMembers {
    /// What they are called: another name may have been meant.
    Unnamed,
    /// How many there are, or what their hosts are called; the names that they may have are known.
    Uncounted,
}

impl Build {
    /// The pool's name and its members.
    pub(super) fn members(
        &mut self,
        entry: &NamedEntry,
        names: &mut Names,
    ) -> Result<(Option<PoolName>, Vec<MemberSpec>), NoMembers> {
        let template = self.template(&entry.name, entry.is_pool);
        let template = template.ok_or(NoMembers::Unnamed)?;
        let pool = if entry.is_pool {
            Some(self.pool_name(entry, names).ok_or(NoMembers::Unnamed)?)
        } else {
            None
        };
        let ids = if entry.is_pool {
            self.ids(entry).ok_or(NoMembers::Uncounted)?
        } else {
            1..2
        };
        let before = names.total;
        names.total += ids.len();
        if names.total > MAX_INSTANCES {
            // Said once, where the bound is passed.
            if before <= MAX_INSTANCES {
                let message = format!(
                    "with these there are {} instances; at most {MAX_INSTANCES} are allowed",
                    names.total
                );
                self.problems.push(size_at(entry).problem(message));
            }
            return Err(NoMembers::Uncounted);
        }
        let hosts = self.host_template(entry, ids.len());
        let hosts = hosts.ok_or(NoMembers::Uncounted)?;
        let mut members = Vec::with_capacity(ids.len());
        for id in ids {
            let name = self.instance_name(template.render(id), &entry.name.at, names);
            let name = name.ok_or(NoMembers::Unnamed)?;
            let mut called = vec![(name.to_string(), &entry.name.at)];
            if let (Some(hosts), Some(given)) = (&hosts, &entry.common.hostname) {
                called.push((hosts.render(id), &given.at));
            }
            let known = called
                .iter()
                .all(|(called, at)| self.host_name(called, name.as_str(), at, names));
            if !known {
                return Err(NoMembers::Unnamed);
            }
            let hostname = called.pop().map_or_else(|| name.to_string(), |last| last.0);
            members.push(MemberSpec { name, hostname });
        }
        Ok((pool, members))
    }

    /// Whether an instance can be called so, by itself and beside all others: /etc/hosts and known_hosts of every machine
    /// lead by these names.
    fn host_name(&mut self, called: &str, instance: &str, at: &At, names: &mut Names) -> bool {
        if let Err(why) = hostname::check(called) {
            let problem = at.problem(format!("{called:?} is not a host name: {why}"));
            self.problems.push(problem);
            return false;
        }
        let lower = called.to_ascii_lowercase();
        let taken = names.hosts.get(&lower);
        if let Some(first) = taken.filter(|first| first.instance != instance) {
            let message = format!(
                "{called:?} would be a name of both {instance} and {}: every machine would reach only one of them",
                first.instance
            );
            let problem = at
                .problem(message)
                .help("names and host names must all differ, whatever their case");
            self.problems
                .push(problem.other(first.at.span.clone(), "the other comes from here"));
            return false;
        }
        names.hosts.entry(lower).or_insert_with(|| NameOwner {
            instance: instance.to_owned(),
            at: at.clone(),
        });
        true
    }

    fn pool_name(&mut self, entry: &NamedEntry, names: &mut Names) -> Option<PoolName> {
        let at = &entry.name.at;
        let name: PoolName = match entry.label().parse() {
            Ok(name) => name,
            Err(bad) => {
                self.problems.push(at.problem(bad.to_string()));
                return None;
            }
        };
        let taken = names
            .pools
            .get(name.as_str())
            .or_else(|| names.instances.get(name.as_str()));
        if let Some(first) = taken {
            let problem = at.problem(format!("the name {:?} is taken", name.as_str()));
            self.problems
                .push(problem.other(first.span.clone(), "by this one"));
            return None;
        }
        names.pools.insert(name.to_string(), at.clone());
        Some(name)
    }

    fn instance_name(&mut self, text: String, at: &At, names: &mut Names) -> Option<InstanceName> {
        let name: InstanceName = match text.parse() {
            Ok(name) => name,
            Err(bad) => {
                self.problems.push(at.problem(bad.to_string()));
                return None;
            }
        };
        // A pool may have one member of its own name only when it has a template without a number, which is refused.
        let taken = names
            .instances
            .get(name.as_str())
            .or_else(|| names.pools.get(name.as_str()));
        if let Some(first) = taken {
            let problem = at.problem(format!(
                "there are two instances or pools called {:?}",
                name.as_str()
            ));
            self.problems
                .push(problem.other(first.span.clone(), "the first comes from here"));
            return None;
        }
        names.instances.insert(text, at.clone());
        Some(name)
    }

    fn template(&mut self, name: &Located<Text>, is_pool: bool) -> Option<Template> {
        let text = &name.value.0;
        if !is_pool {
            return Some(Template::plain(text));
        }
        match Template::of_pool(text) {
            Ok(template) => Some(template),
            Err(message) => {
                let problem = name
                    .at
                    .problem(message)
                    .help("{id} is the number, {id:02} the number with two digits");
                self.problems.push(problem);
                None
            }
        }
    }

    fn host_template(&mut self, entry: &NamedEntry, count: usize) -> Option<Option<Template>> {
        let Some(hostname) = &entry.common.hostname else {
            return Some(None);
        };
        let problem = match Template::parse(&hostname.value.0) {
            Ok(hosts) if count > 1 && !hosts.has_id() => hostname
                .at
                .problem(format!("{count} members can't have the same host name"))
                .help("add the number, as in \"node{id}\", or remove the key"),
            Ok(hosts) => return Some(Some(hosts)),
            Err(message) => hostname.at.problem(message),
        };
        self.problems.push(problem);
        None
    }

    /// Numbers of a pool's members.
    fn ids(&mut self, entry: &NamedEntry) -> Option<Range<u32>> {
        let problem = match (&entry.size, &entry.ids) {
            (Some(size), None) if size.value as usize <= MAX_INSTANCES => {
                return Some(1..size.value + 1);
            }
            (Some(size), None) => size.at.problem(format!(
                "{} is out of range, wants 0 to {MAX_INSTANCES}",
                size.value
            )),
            (None, Some(ids)) => match range(&ids.value.0) {
                Ok(range) => return Some(range),
                Err(message) => ids
                    .at
                    .problem(message)
                    .help("as in 2..4, which is 2, 3 and 4"),
            },
            (Some(size), Some(ids)) => {
                let other = (ids.at.span.clone(), "and here");
                size.at
                    .problem("both size and ids are given")
                    .other(other.0, other.1)
                    .help("keep one of the two")
            }
            (None, None) if self.unread_under(&entry.path()) => return None,
            (None, None) => missing_size(entry),
        };
        self.problems.push(problem);
        None
    }
}

fn missing_size(entry: &NamedEntry) -> Mistake {
    let message = format!("the pool {:?} has no size", entry.label());
    entry
        .name
        .at
        .problem(message)
        .help("add `size: 3`, or `ids: 2..4`")
}

fn size_at(entry: &NamedEntry) -> At {
    let size = entry.size.as_ref().map(|size| &size.at);
    let ids = entry.ids.as_ref().map(|ids| &ids.at);
    size.or(ids).unwrap_or(&entry.name.at).clone()
}

/// `2..4` is 2, 3 and 4.
fn range(text: &str) -> Result<Range<u32>, String> {
    let bad = || format!("{text:?} is not a range of numbers");
    let (first, last) = text.split_once("..").ok_or_else(bad)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| bad());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("{text} is empty: {first} is more than {last}"));
    }
    if last > MAX_ID {
        return Err(format!(
            "{last} is out of range; at most {MAX_ID} is allowed"
        ));
    }
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_both_ends() {
        assert_eq!(range("2..4"), Ok(2..5));
        assert_eq!(range("3..3"), Ok(3..4));
        for bad in ["", "4", "4..2", "a..b", "1..", "1..9999999", "-1..2"] {
            assert!(range(bad).is_err(), "{bad:?} was taken");
        }
    }
}
