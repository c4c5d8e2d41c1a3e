//! Stages of a bootstrap sequence; their needs are resolved in `needs`.

use std::collections::BTreeMap;
use std::path::Path;

use aot_model::spec::{BundleSource, StageSpec};

use super::Build;
use crate::raw::{RawCommon, RawStage};
use crate::read::At;

/// Stages of one instance.
const MAX_STAGES: usize = 100;
/// Arguments and environment of one stage, bytes together: half of what Linux gives a process at least (execve(2)).
const MAX_ARGUMENT_BYTES: usize = 64 << 10;

impl Build {
    /// The stages, without their needs.
    pub(super) fn stages(&mut self, common: &RawCommon) -> Vec<StageSpec> {
        let Some(list) = &common.bootstrap_sequence else {
            return Vec::new();
        };
        if list.value.len() > MAX_STAGES {
            self.problems.push(
                list.at
                    .problem(format!("has more than {MAX_STAGES} stages")),
            );
        }
        list.value
            .iter()
            .filter_map(|stage| self.stage(&stage.value, &stage.at))
            .collect()
    }

    fn stage(&mut self, raw: &RawStage, at: &At) -> Option<StageSpec> {
        let (given, source) = match (&raw.tar, &raw.dir) {
            (Some(tar), None) => (tar, BundleSource::Tar(self.path(&tar.value.0))),
            (None, Some(dir)) => (dir, BundleSource::Dir(self.path(&dir.value.0))),
            (Some(tar), Some(dir)) => {
                let problem = dir
                    .at
                    .problem("both tar and dir are given")
                    .other(tar.at.span.clone(), "tar is here");
                self.problems.push(problem.help("one stage has one bundle"));
                return None;
            }
            (None, None) => {
                self.problems.push(
                    at.problem("the stage has no bundle")
                        .help("add `tar: PATH` or `dir: PATH`"),
                );
                return None;
            }
        };
        let file_name = Path::new(&given.value.0)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = raw
            .name
            .as_ref()
            .map(|name| name.value.0.clone())
            .or(file_name);
        self.limits(raw);
        Some(StageSpec {
            name: name.unwrap_or_else(|| given.value.0.clone()),
            source,
            args: raw
                .args
                .iter()
                .flat_map(|args| &args.value)
                .map(|arg| arg.value.0.clone())
                .collect(),
            env: self.env(raw, &given.at),
            timeout: raw.timeout.as_ref().map(|timeout| timeout.value.0),
            silence_timeout: raw.silence_timeout.as_ref().map(|timeout| timeout.value.0),
            needs: Vec::new(),
            secrets: self.secret_uses(raw),
            rerun_on_secret: raw.rerun_on_secret.as_ref().is_some_and(|it| it.value),
        })
    }

    fn limits(&mut self, raw: &RawStage) {
        let (Some(silence), Some(all)) = (&raw.silence_timeout, &raw.timeout) else {
            return;
        };
        if silence.value.0 > all.value.0 {
            let problem = silence
                .at
                .problem("is longer than timeout, so it has no effect");
            self.problems
                .push(problem.other(all.at.span.clone(), "timeout is here"));
        }
    }

    fn env(&mut self, raw: &RawStage, at: &At) -> BTreeMap<String, String> {
        let given = raw.env.iter().flat_map(|env| &env.value);
        let mut env = BTreeMap::new();
        for (key, value) in given {
            let first = |c: char| c.is_ascii_alphabetic() || c == '_';
            if !key.starts_with(first)
                || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                self.problems.push(
                    value
                        .at
                        .problem(format!("{key:?} is not the name of a variable")),
                );
            } else if key.starts_with("AOT_") || key == "HOME" {
                self.problems.push(
                    value
                        .at
                        .problem(format!("{key} is set by aot"))
                        .help("use another name"),
                );
            }
            env.insert(key.clone(), value.value.0.clone());
        }
        let args = raw
            .args
            .iter()
            .flat_map(|args| &args.value)
            .map(|arg| arg.value.0.len() + 1);
        let bytes = args
            .chain(env.iter().map(|(key, value)| key.len() + value.len() + 2))
            .sum::<usize>();
        if bytes > MAX_ARGUMENT_BYTES {
            let problem = at.problem(format!(
                "args and env have {bytes} bytes; at most {MAX_ARGUMENT_BYTES} are allowed"
            ));
            self.problems
                .push(problem.help("put long texts into the bundle"));
        }
        env
    }
}
