//! Stages whose secrets their machines read by themselves: what that needs.

use std::collections::BTreeMap;

use aot_model::secret::SecretSource;

use super::Build;
use super::extend::NamedEntry;
use super::secrets::one_use;
use crate::raw::RawStage;
use crate::report::Mistake;

impl Build {
    /// What is wrong with the secrets of a stage that machines are to read: they have no rights, or nobody would see another value.
    pub(super) fn machine_mistakes(
        &self,
        entry: &NamedEntry,
        stage: &RawStage,
        sources: &BTreeMap<String, SecretSource>,
    ) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let has_profile = entry.common.instance_profile_name.is_some()
            || self.provider_unknown
            || self.unread_of(entry);
        let reruns = stage.rerun_on_secret.as_ref().filter(|it| it.value);
        for given in stage.secrets.iter().flat_map(|it| &it.value.0) {
            let name = one_use(&given.value).name;
            let source = sources.get(&name).filter(|it| it.is_on_machine());
            let Some(source) = source else { continue };
            if !has_profile {
                let what = format!(
                    "{} has no instance profile with which its machines could read {name:?}",
                    entry.label()
                );
                let problem = given.at.problem(what);
                let help = "add `instance_profile_name:`, or leave out `on: machine` of the secret";
                mistakes.push(problem.help(help));
            }
            if let (Some(reruns), None) = (reruns, source.pinned_version()) {
                let what = format!(
                    "nobody would see another value of {name:?}, which machines read by themselves"
                );
                let problem = reruns.at.problem(what);
                let problem = problem.other(given.at.span.clone(), "it is given here");
                mistakes.push(problem.help(pin(source)));
            }
        }
        mistakes
    }
}

/// How another value of a secret is made to be seen.
fn pin(source: &SecretSource) -> &'static str {
    match source {
        SecretSource::Ssm(_) => {
            "give the secret `version: NUMBER`, another one with each new value, or leave out its `on: machine`"
        }
        _ => {
            "give the secret `version: ID` (a UUID), another one with each new value, or leave out its `on: machine`"
        }
    }
}
