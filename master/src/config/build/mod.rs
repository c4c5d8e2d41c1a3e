//! From the shapes of the file to the model: `extends`, `defaults`, templates, bounds and combinations.
//! Goes on after every problem. Opens no file.

mod extend;
mod launch;
mod machine;
mod names;
mod needs;
mod security;
mod stages;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aot_proto::ids::ClusterName;

use crate::model::file::{ClusterSpec, PoolSpec, ProviderKind};
use crate::model::target;

use super::raw::{RawCommon, RawFile};
use super::read::{At, Located, Text};
use super::record::nearest;
use super::report::Problem;

use extend::Entry;

/// One file on its way into the model.
pub(crate) struct Build {
    /// Found so far.
    pub problems: Vec<Problem>,
    /// Accepted, and worth a word.
    pub notices: Vec<(At, String)>,
    base_dir: PathBuf,
}

impl Build {
    /// For a file in this folder, with the problems of reading it.
    pub fn new(base_dir: PathBuf, problems: Vec<Problem>) -> Self {
        Self {
            problems,
            notices: Vec::new(),
            base_dir,
        }
    }

    /// The whole file. `None` only when there is a problem.
    pub fn cluster(&mut self, name: Option<ClusterName>, raw: &RawFile) -> Option<ClusterSpec> {
        let provider = self.provider(raw);
        let entries = extend::resolve(raw, &mut self.problems);
        let pools = self.pools(&entries, provider);
        if pools.is_empty() && self.problems.is_empty() {
            let problem = Problem::new(0..0, "", "there is no instance and no pool");
            self.problems
                .push(problem.help("add `instances:` or `pools:`"));
        }
        let total = pools.iter().map(|pool| pool.members.len()).sum();
        let launch = self.launch(raw.launch.as_ref(), total);
        let security_groups = self.security_groups(raw);
        let groups = self.groups(raw);
        if provider == ProviderKind::Local {
            self.local_notices(raw, &entries);
        }
        Some(ClusterSpec {
            name: name?,
            provider,
            region: self.region(raw),
            launch,
            security_groups,
            discovery_url: self.discovery_url(raw),
            groups,
            pools,
            base_dir: self.base_dir.clone(),
        })
    }

    fn provider(&mut self, raw: &RawFile) -> ProviderKind {
        let words = [("ec2", ProviderKind::Ec2), ("local", ProviderKind::Local)];
        self.one_of(raw.provider.as_ref(), &words)
            .unwrap_or(ProviderKind::Ec2)
    }

    fn region(&mut self, raw: &RawFile) -> Option<String> {
        let region = raw.region.as_ref()?;
        let text = &region.value.0;
        let good = text.contains('-')
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            let problem = region.at.problem(format!("{text:?} is not a region"));
            self.problems.push(problem.help("as in us-west-2"));
        }
        Some(text.clone())
    }

    fn discovery_url(&mut self, raw: &RawFile) -> Option<String> {
        let url = raw.discovery_url.as_ref()?;
        let text = &url.value.0;
        if !(text.starts_with("https://") || text.starts_with("http://")) || text.contains(' ') {
            let problem = url
                .at
                .problem(format!("{text:?} is not an http or https address"));
            self.problems
                .push(problem.help("as in https://discovery.etcd.io/new?size=3"));
        }
        Some(text.clone())
    }

    fn pools(&mut self, entries: &[Entry], provider: ProviderKind) -> Vec<PoolSpec> {
        let mut names = names::Names::default();
        let mut pools = Vec::new();
        for entry in entries {
            let members = self.members(entry, &mut names);
            let machine = self.machine(entry, provider);
            let stages = self.stages(&entry.common);
            let Some((name, members)) = members else {
                continue;
            };
            pools.push(PoolSpec {
                name,
                members,
                owner: text(&entry.common.owner),
                user: self.user(&entry.common),
                machine,
                stages,
            });
        }
        // Needs name other entries, so they come last; a file with wrong names has its problems already.
        if pools.len() == entries.len() {
            self.needs(entries, &mut pools);
        }
        pools
    }

    fn user(&mut self, common: &RawCommon) -> Option<String> {
        let user = common.user.as_ref()?;
        let name = &user.value.0;
        let first = |c: char| c.is_ascii_lowercase() || c == '_';
        let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.len() > 32 || !name.starts_with(first) || !name.chars().all(rest) {
            self.problems
                .push(user.at.problem(format!("{name:?} is not a login name")));
        }
        Some(name.clone())
    }

    fn groups(&mut self, raw: &RawFile) -> BTreeMap<String, String> {
        let Some(groups) = &raw.groups else {
            return BTreeMap::new();
        };
        let saved: BTreeMap<String, String> = groups
            .value
            .iter()
            .map(|(name, text)| (name.clone(), text.value.0.clone()))
            .collect();
        for (name, text) in &groups.value {
            if !target::is_group_name(name) {
                let problem = text.at.problem(format!("{name:?} is not a group name"));
                self.problems
                    .push(problem.help("letters, digits, `_` and `-` are allowed"));
            }
            // Parsed by reference, so that a group that names itself is found.
            if let Err(error) = target::parse(&format!("@{name}"), &saved) {
                self.problems
                    .push(text.at.problem(format!("not a target: {error}")));
            }
        }
        saved
    }

    fn local_notices(&mut self, raw: &RawFile, entries: &[Entry]) {
        let mut ignored: Vec<At> = Vec::new();
        ignored.extend(raw.region.as_ref().map(|region| region.at.clone()));
        ignored.extend(raw.security_groups.as_ref().map(|groups| groups.at.clone()));
        ignored.extend(
            entries
                .iter()
                .flat_map(|entry| machine::ec2_only(&entry.common)),
        );
        for at in ignored {
            self.notice(at, "ignored: provider is local");
        }
    }

    /// Says a word, once a place.
    fn notice(&mut self, at: At, note: &str) {
        let note = (at, note.to_owned());
        if !self.notices.contains(&note) {
            self.notices.push(note);
        }
    }

    /// One of a few words.
    fn one_of<T: Copy>(&mut self, given: Option<&Located<Text>>, words: &[(&str, T)]) -> Option<T> {
        let given = given?;
        let text = given.value.0.as_str();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known = words.iter().map(|(word, _)| *word);
        let list = known.clone().collect::<Vec<_>>().join(", ");
        let help = match nearest(text, known) {
            Some(near) => format!("did you mean {near:?}? known: {list}"),
            None => format!("one of: {list}"),
        };
        self.problems.push(
            given
                .at
                .problem(format!("{text:?} is not known here"))
                .help(help),
        );
        None
    }

    /// A number inside bounds.
    fn bounded(
        &mut self,
        given: Option<&Located<u32>>,
        low: u32,
        high: u32,
        unit: &str,
    ) -> Option<u32> {
        let given = given?;
        if !(low..=high).contains(&given.value) {
            let message = format!(
                "{} is out of range, wants {low} to {high}{unit}",
                given.value
            );
            self.problems.push(given.at.problem(message));
        }
        Some(given.value)
    }

    /// A path of the file, absolute.
    fn path(&self, text: &str) -> PathBuf {
        let joined = self.base_dir.join(Path::new(text));
        // `a/./b` and a doubled slash are the same file; `..` is left to the system, because of links.
        joined.components().collect()
    }
}

/// The text of an optional value.
fn text(given: &Option<Located<Text>>) -> Option<String> {
    given.as_ref().map(|text| text.value.0.clone())
}
