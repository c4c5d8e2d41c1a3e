//! Names of pools and of their members: `hadoop` gives hadoop1, hadoop2; `{id}` and `{id:02}` set form and place.

use std::collections::BTreeMap;
use std::ops::Range;

use aot_proto::ids::{InstanceName, PoolName};

use crate::config::MAX_INSTANCES;
use crate::config::read::{At, Located, Text};
use crate::config::report::Problem;
use crate::model::file::MemberSpec;

use super::Build;
use super::extend::Entry;

/// Largest number of a member.
const MAX_ID: u32 = 999_999;

/// Names that are taken, with the place that took them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    instances: BTreeMap<String, At>,
    pools: BTreeMap<String, At>,
    total: usize,
}

/// A name with places for a number.
#[derive(Debug, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Id { width: usize },
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| format!("the {{ in {text:?} is never closed"))?
                + open;
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(match &rest[open + 1..close] {
                "id" => Part::Id { width: 0 },
                other => match other.strip_prefix("id:0").map(str::parse) {
                    Some(Ok(width @ 1..=6)) => Part::Id { width },
                    _ => return Err(format!("{{{other}}} is not known in a name")),
                },
            });
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn has_id(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Id { .. }))
    }

    fn render(&self, id: u32) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Id { width } => format!("{id:0width$}"),
        });
        parts.collect()
    }
}

/// A pool's name: the template without its number, and without the hyphens that are left hanging.
pub(crate) fn without_template(text: &str) -> String {
    let Ok(template) = Template::parse(text) else {
        return text.to_owned();
    };
    if !template.has_id() {
        return text.to_owned();
    }
    let kept = template.0.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.trim_matches('-')),
        Part::Id { .. } => None,
    });
    kept.filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

impl Build {
    /// The pool's name and its members; `None` when there is a problem that leaves no names.
    pub(super) fn members(
        &mut self,
        entry: &Entry,
        names: &mut Names,
    ) -> Option<(Option<PoolName>, Vec<MemberSpec>)> {
        let template = self.template(&entry.name, entry.is_pool)?;
        let pool = if entry.is_pool {
            Some(self.pool_name(entry, names)?)
        } else {
            None
        };
        let ids = if entry.is_pool {
            self.ids(entry)?
        } else {
            1..2
        };
        let before = names.total;
        names.total += ids.len();
        if names.total > MAX_INSTANCES {
            // Said once, where the bound is passed.
            if before <= MAX_INSTANCES {
                let message = format!(
                    "with these there are {} instances, {MAX_INSTANCES} is the most",
                    names.total
                );
                self.problems.push(size_at(entry).problem(message));
            }
            return None;
        }
        let hosts = self.host_template(entry, ids.len())?;
        let mut members = Vec::with_capacity(ids.len());
        for id in ids {
            let name = self.instance_name(template.render(id), &entry.name.at, names)?;
            let hostname = match &hosts {
                Some(hosts) => hosts.render(id),
                None => name.to_string(),
            };
            members.push(MemberSpec { name, hostname });
        }
        Some((pool, members))
    }

    fn pool_name(&mut self, entry: &Entry, names: &mut Names) -> Option<PoolName> {
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
            return Some(Template(vec![Part::Text(text.clone())]));
        }
        match Template::parse(text) {
            Ok(template) if template.has_id() => Some(template),
            Ok(mut template) => {
                template.0.push(Part::Id { width: 0 });
                Some(template)
            }
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

    fn host_template(&mut self, entry: &Entry, count: usize) -> Option<Option<Template>> {
        let Some(hostname) = &entry.common.hostname else {
            return Some(None);
        };
        let problem = match Template::parse(&hostname.value.0) {
            Ok(hosts) if count > 1 && !hosts.has_id() => hostname
                .at
                .problem(format!("{count} members can't have the same host name"))
                .help("put the number in, as in \"node{id}\", or take the key out"),
            Ok(hosts) if is_host_name(&hosts.render(1)) => return Some(Some(hosts)),
            Ok(_) => hostname
                .at
                .problem(format!("{:?} is not a host name", hostname.value.0)),
            Err(message) => hostname.at.problem(message),
        };
        self.problems.push(problem);
        None
    }

    /// Numbers of a pool's members.
    fn ids(&mut self, entry: &Entry) -> Option<Range<u32>> {
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
                    .problem("size and ids are given both")
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

fn missing_size(entry: &Entry) -> Problem {
    let message = format!("the pool {:?} has no size", entry.label());
    entry
        .name
        .at
        .problem(message)
        .help("add `size: 3`, or `ids: 2..4`")
}

fn size_at(entry: &Entry) -> At {
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
        return Err(format!("{last} is out of range, {MAX_ID} is the most"));
    }
    Ok(first..last + 1)
}

/// RFC 1123, section 2.1: labels of letters, digits and hyphens, with dots between.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_put_the_number_where_they_say() {
        let render = |text: &str, id| Template::parse(text).expect("a template").render(id);
        assert_eq!(render("web{id}", 7), "web7");
        assert_eq!(render("web{id:02}", 7), "web07");
        assert_eq!(render("p-{id:03}-x", 1234), "p-1234-x");
        for bad in ["web{", "web{n}", "web{id:2}", "web{id:00}", "web{id:0}"] {
            assert!(Template::parse(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_pool_is_called_by_its_template_without_the_number() {
        for (given, name) in [
            ("web", "web"),
            ("web{id:02}", "web"),
            ("p-{id}-x", "p-x"),
            ("p-{id}", "p"),
            ("{id}", ""),
        ] {
            assert_eq!(without_template(given), name, "{given}");
        }
    }

    #[test]
    fn ranges_have_both_ends() {
        assert_eq!(range("2..4"), Ok(2..5));
        assert_eq!(range("3..3"), Ok(3..4));
        for bad in ["", "4", "4..2", "a..b", "1..", "1..9999999", "-1..2"] {
            assert!(range(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn host_names_keep_to_rfc_1123() {
        for good in ["a", "1a", "node1.example.com", "A-b"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", "a..b", "-a", "a_b", "a b", "a-."] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
