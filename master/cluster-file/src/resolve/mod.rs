//! From the shapes of the file to the model: `extends`, `defaults`, templates, bounds and combinations.
//! Continues after every problem. Opens no file.

mod extend;
mod launch;
mod machine;
mod machine_secrets;
mod names;
mod needs;
mod secrets;
mod security;
mod stages;
mod template;
mod update;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aot_model::selector;
use aot_model::spec::{Attestation, ClusterSpec, FactsDetail, PoolSpec, ProviderKind, SshAccess};
use aot_proto::ids::ClusterName;
use serde_json::Map;

use super::raw::{RawCommon, RawFile, RawInstance, RawPool};
use super::read::{At, Located, Text};
use super::record::{Record as _, nearest};
use super::report::Mistake;
use extend::NamedEntry;
use names::NoMembers;

/// One file on its way into the model.
pub(crate) struct Build {
    /// Found so far.
    pub problems: Vec<Mistake>,
    /// Accepted, and worth a word.
    pub notices: Vec<(At, String)>,
    base_dir: PathBuf,
    /// Paths of what could not be read: what is missing there may have been meant there.
    unread: Vec<String>,
    /// What is given as provider is none, so nobody knows what the instances need.
    provider_unknown: bool,
}

impl Build {
    /// For a file in this folder, with the problems of reading it.
    pub(crate) fn new(base_dir: PathBuf, problems: Vec<Mistake>) -> Self {
        let unread = problems
            .iter()
            .map(|problem| problem.path.clone())
            .collect();
        Self {
            unread,
            problems,
            notices: Vec::new(),
            base_dir,
            provider_unknown: false,
        }
    }

    /// The whole file. `None` only when there is a problem.
    pub(crate) fn cluster(
        &mut self,
        name: Option<ClusterName>,
        raw: &RawFile,
    ) -> Option<ClusterSpec> {
        let provider = self.provider(raw);
        let all_named = self.all_named(raw);
        let entries = extend::resolve(raw, all_named, &mut self.problems);
        let secrets = self.secrets(raw, provider);
        self.check_uses(raw, &entries, &secrets);
        let pools = self.pools(&entries, provider, all_named);
        if pools.is_empty() && self.problems.is_empty() {
            let problem = Mistake::new(0..0, "", "the file has no instances and no pools");
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
            attestation: self.attestation(raw),
            security_groups,
            discovery_url: self.discovery_url(raw),
            ssh: self.ssh(raw, &pools),
            cluster_facts: self.cluster_facts(raw),
            groups,
            vars: raw
                .vars
                .as_ref()
                .map_or_else(Map::new, |vars| vars.value.0.clone()),
            secrets,
            pools,
            base_dir: self.base_dir.clone(),
        })
    }

    fn provider(&mut self, raw: &RawFile) -> ProviderKind {
        let words = [("ec2", ProviderKind::Ec2), ("local", ProviderKind::Local)];
        let given = self.one_of(raw.provider.as_ref(), &words);
        let unread = self.unread.iter().any(|path| path == "provider");
        self.provider_unknown = given.is_none() && (raw.provider.is_some() || unread);
        given.unwrap_or(ProviderKind::Ec2)
    }

    fn ssh(&mut self, raw: &RawFile, pools: &[PoolSpec]) -> SshAccess {
        let words =
            [SshAccess::Root, SshAccess::Users, SshAccess::None].map(|it| (it.as_str(), it));
        let ssh = self.one_of(raw.ssh.as_ref(), &words).unwrap_or_default();
        if let (SshAccess::Users, Some(given)) = (ssh, &raw.ssh)
            && pools.iter().all(|pool| pool.user.is_none())
        {
            self.notice(
                given.at.clone(),
                "no instance has a main user: add `user:`, or no keys are exchanged",
            );
        }
        ssh
    }

    fn cluster_facts(&mut self, raw: &RawFile) -> FactsDetail {
        let words = [
            ("full", FactsDetail::Full),
            ("addresses", FactsDetail::Addresses),
        ];
        self.one_of(raw.cluster_facts.as_ref(), &words)
            .unwrap_or_default()
    }

    fn attestation(&mut self, raw: &RawFile) -> Attestation {
        let words = [
            ("auto", Attestation::Auto),
            ("document", Attestation::Document),
            ("challenge", Attestation::Challenge),
            ("both", Attestation::Both),
            ("token", Attestation::Token),
        ];
        self.one_of(raw.attestation.as_ref(), &words)
            .unwrap_or_default()
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

    fn pools(
        &mut self,
        entries: &[NamedEntry],
        provider: ProviderKind,
        all_named: bool,
    ) -> Vec<PoolSpec> {
        let mut names = names::Names::default();
        let mut pools: Vec<Result<PoolSpec, NoMembers>> = Vec::new();
        let mut stages = Vec::new();
        for entry in entries {
            let members = self.members(entry, &mut names);
            let machine = self.machine(entry, provider);
            stages.push(self.stages(&entry.common));
            let user = self.user(&entry.common);
            let update = self.update(&entry.common);
            let health = self.health(&entry.common);
            pools.push(members.map(|(name, members)| PoolSpec {
                name,
                members,
                owner: text(&entry.common.owner),
                user,
                machine,
                stages: Vec::new(),
                update,
                health,
            }));
        }
        // Needs name other entries, so they come last. They are looked at whatever else is wrong.
        self.needs(entries, &pools, &mut stages, all_named);
        let with_stages = pools.into_iter().zip(stages);
        let pools = with_stages.filter_map(|(pool, stages)| {
            Some(PoolSpec {
                stages,
                ..pool.ok()?
            })
        });
        pools.collect()
    }

    /// Whether the name of every instance and pool could be read. If not, an unknown name is not a problem of its own.
    fn all_named(&self, raw: &RawFile) -> bool {
        let instances = raw
            .instances
            .iter()
            .flat_map(|list| &list.value)
            .all(|one| one.name.is_some());
        let pools = raw
            .pools
            .iter()
            .flat_map(|list| &list.value)
            .all(|one| one.name.is_some());
        let keys = RawFile::keys();
        // Of a key that is not known, entries may have been meant.
        let has_names = |path: &String| {
            let key = key_of(path);
            let is_known = keys.iter().any(|known| known.is(key));
            !path.contains('.') && (matches!(key, "instances" | "pools") || !is_known)
        };
        instances && pools && !self.unread.iter().any(has_names)
    }

    /// Whether some key of an entry, or of what it takes keys from, could not be read.
    fn unread_of(&self, entry: &NamedEntry) -> bool {
        let mut sources = entry.sources.iter().map(String::as_str).chain(["defaults"]);
        self.unread_under(&entry.path()) || sources.any(|path| self.unread_under(path))
    }

    /// Whether a part of an entry could not be read that may have had stages: the sequence, what the entry extends, or a key that is
    /// not known.
    fn unread_stages_of(&self, entry: &NamedEntry) -> bool {
        let own = entry.path();
        let sources = entry.sources.iter().map(String::as_str);
        let keys = [RawPool::keys(), RawInstance::keys()].concat();
        let has_stages = |key: &str| {
            let is_known = keys.iter().any(|known| known.is(key));
            !is_known || matches!(key, "bootstrap_sequence" | "stages" | "extends")
        };
        self.unread.iter().any(|unread| {
            let of = |path: &str| unread.strip_prefix(path)?.strip_prefix('.');
            let below = of(&own).or_else(|| sources.clone().find_map(of));
            below
                .or_else(|| of("defaults"))
                .is_some_and(|rest| has_stages(key_of(rest)))
        })
    }

    /// Whether something under this path could not be read.
    fn unread_under(&self, path: &str) -> bool {
        self.unread.iter().any(|unread| {
            unread
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        })
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
            if !selector::is_group_name(name) {
                let problem = text.at.problem(format!("{name:?} is not a group name"));
                self.problems
                    .push(problem.help("letters, digits, `_` and `-` are allowed"));
            }
            // Parsed by reference, so that a group that names itself is found.
            if let Err(error) = selector::parse(&format!("@{name}"), &saved) {
                self.problems
                    .push(text.at.problem(format!("not a target: {error}")));
            }
        }
        saved
    }

    fn local_notices(&mut self, raw: &RawFile, entries: &[NamedEntry]) {
        let mut ignored: Vec<At> = Vec::new();
        ignored.extend(raw.region.as_ref().map(|region| region.at.clone()));
        // A clone proves itself by its token: there is nobody between it and the master.
        let proof = raw.attestation.as_ref();
        let proof = proof.filter(|it| !matches!(it.value.0.as_str(), "auto" | "token"));
        ignored.extend(proof.map(|it| it.at.clone()));
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

    /// Gives a notice, once per place.
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
        let lower = text.to_ascii_lowercase();
        let help = match nearest(&lower, known) {
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

/// The key at the begin of a path.
fn key_of(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

/// The text of an optional value.
fn text(given: &Option<Located<Text>>) -> Option<String> {
    given.as_ref().map(|text| text.value.0.clone())
}
