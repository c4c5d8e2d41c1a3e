//! `secrets:` of the file, and of its stages. Reads no value: those who have them are asked by the command line and the master.

use std::collections::{BTreeMap, BTreeSet};

use aot_model::secret::{AwsSecret, SecretSource, SecretUse};
use aot_model::spec::ProviderKind;
use aot_proto::aws::{is_region, region_of_arn};
use aot_proto::limits::{MAX_SECRET_ID_BYTES, MAX_SECRET_VERSION_BYTES, MAX_SECRETS};
use aot_proto::secret::{is_secret_name, is_secret_variable, is_variable_name};

use super::Build;
use super::extend::NamedEntry;
use crate::raw::{RawFile, RawSecret, RawSecretUse, RawStage};
use crate::read::{At, LineOrWords, Located, Text};
use crate::record::nearest;
use crate::report::Mistake;

/// What one has to say of a secret.
const SOURCES: &str = "one of env, file, command, ssm, secrets_manager";

impl Build {
    /// Where each value comes from.
    pub(super) fn secrets(
        &mut self,
        raw: &RawFile,
        provider: ProviderKind,
    ) -> BTreeMap<String, SecretSource> {
        let Some(given) = &raw.secrets else {
            return BTreeMap::new();
        };
        if given.value.len() > MAX_SECRETS {
            let problem = given
                .at
                .problem(format!("has more than {MAX_SECRETS} secrets"));
            self.problems.push(problem);
        }
        let mut secrets = BTreeMap::new();
        for (name, secret) in &given.value {
            if !is_secret_name(name) {
                let problem = secret
                    .at
                    .problem(format!("{name:?} is not a name for a secret"));
                self.problems.push(problem.help(
                    "letters, digits, `_` and `-`, beginning with a letter or `_`, at most 64",
                ));
            }
            if let Some(source) = self.secret_source(&secret.value, &secret.at, provider) {
                secrets.insert(name.clone(), source);
            }
        }
        secrets
    }

    fn secret_source(
        &mut self,
        raw: &RawSecret,
        at: &At,
        provider: ProviderKind,
    ) -> Option<SecretSource> {
        let keys = [
            ("env", raw.env.as_ref().map(|it| &it.at)),
            ("file", raw.file.as_ref().map(|it| &it.at)),
            ("command", raw.command.as_ref().map(|it| &it.at)),
            ("ssm", raw.ssm.as_ref().map(|it| &it.at)),
            (
                "secrets_manager",
                raw.secrets_manager.as_ref().map(|it| &it.at),
            ),
        ];
        let given: Vec<(&str, &At)> = keys
            .into_iter()
            .filter_map(|(key, at)| Some((key, at?)))
            .collect();
        match given.as_slice() {
            [_] => {}
            [] => {
                // A key that could not be read has its problem already.
                if !self.unread_under(&at.path) {
                    let problem = at.problem("does not say where its value comes from");
                    self.problems.push(problem.help(SOURCES));
                }
                return None;
            }
            [(first, other), (second, again), ..] => {
                let problem = again
                    .problem(format!("both {first} and {second} are given"))
                    .other(other.span.clone(), format!("{first} is here"));
                self.problems.push(problem.help(SOURCES));
                return None;
            }
        }
        let on_machine = self.secret_place(raw, provider);
        let aws = |id: &Located<Text>| AwsSecret {
            id: id.value.0.clone(),
            region: super::text(&raw.region),
            version: raw.version.as_ref().map(|it| it.value.0.clone()),
            on_machine,
        };
        if let Some(env) = &raw.env {
            return self.secret_env(env).map(SecretSource::Env);
        }
        if let Some(file) = &raw.file {
            return Some(SecretSource::File(self.path(&file.value.0)));
        }
        if let Some(command) = &raw.command {
            return self.secret_command(command).map(SecretSource::Command);
        }
        let ssm = raw.ssm.as_ref().map(|id| SecretSource::Ssm(aws(id)));
        let manager = raw.secrets_manager.as_ref();
        ssm.or_else(|| manager.map(|id| SecretSource::SecretsManager(aws(id))))
    }

    /// What is run: a line by a shell, words as they are.
    fn secret_command(&mut self, given: &Located<LineOrWords>) -> Option<Vec<String>> {
        let words: Vec<String> = match &given.value {
            LineOrWords::Line(line) => {
                return Some(["/bin/sh", "-c", &line.0].map(str::to_owned).to_vec());
            }
            LineOrWords::Words(words) => words.iter().map(|word| word.value.0.clone()).collect(),
        };
        match words.first() {
            None => self.problems.push(given.at.problem("is empty")),
            Some(program) if program.trim().is_empty() => {
                self.problems
                    .push(given.at.problem("its first word, the program, is empty"));
            }
            Some(_) => return Some(words),
        }
        None
    }

    fn secret_env(&mut self, env: &Located<Text>) -> Option<String> {
        let name = &env.value.0;
        if !is_variable_name(name) {
            let problem = env
                .at
                .problem(format!("{name:?} is not the name of a variable"));
            self.problems.push(problem);
            return None;
        }
        Some(name.clone())
    }

    /// `region`, `version` and `on`, which only those have that AWS has; whether machines read it.
    fn secret_place(&mut self, raw: &RawSecret, provider: ProviderKind) -> bool {
        let aws = [&raw.ssm, &raw.secrets_manager];
        let aws: Vec<&Located<Text>> = aws.into_iter().flatten().collect();
        let places = [
            raw.region.as_ref().map(|it| &it.at),
            raw.version.as_ref().map(|it| &it.at),
            raw.on.as_ref().map(|it| &it.at),
        ];
        for at in places.into_iter().flatten().filter(|_| aws.is_empty()) {
            let problem = at.problem("has no meaning here");
            let problem = problem.help("it is about ssm and secrets_manager");
            self.problems.push(problem);
        }
        for id in &aws {
            self.secret_id(id, raw);
        }
        let on = [("master", false), ("machine", true)];
        let on_machine = self.one_of(raw.on.as_ref(), &on).unwrap_or(false);
        if let (true, ProviderKind::Local, Some(on)) = (on_machine, provider, &raw.on) {
            let problem = on.at.problem("clones have no instance profile");
            let help = "provider is local: leave it out, and the master reads it";
            self.problems.push(problem.help(help));
        }
        on_machine && provider == ProviderKind::Ec2
    }

    /// The name or ARN of one that AWS has, with what is said of it besides.
    fn secret_id(&mut self, id: &Located<Text>, raw: &RawSecret) {
        if id.value.0.len() > MAX_SECRET_ID_BYTES {
            let long = format!("has more than {MAX_SECRET_ID_BYTES} bytes");
            self.problems.push(id.at.problem(long));
        }
        let version = raw.version.as_ref();
        if let Some(version) = version.filter(|it| it.value.0.len() > MAX_SECRET_VERSION_BYTES) {
            let long = format!("has more than {MAX_SECRET_VERSION_BYTES} bytes");
            self.problems.push(version.at.problem(long));
        }
        let Some(region) = &raw.region else { return };
        let text = region.value.0.as_str();
        if !is_region(text) {
            let problem = region.at.problem(format!("{text:?} is not a region"));
            self.problems.push(problem.help("as in us-west-2"));
        } else if let Some(other) = region_of_arn(&id.value.0).filter(|other| *other != text) {
            let problem = region.at.problem(format!("its ARN says {other}"));
            self.problems.push(problem.help("leave it out"));
        }
    }

    /// What a stage is given.
    pub(super) fn secret_uses(&mut self, raw: &RawStage) -> Vec<SecretUse> {
        let given = raw.secrets.iter().flat_map(|it| &it.value.0);
        let uses: Vec<SecretUse> = given.map(|given| one_use(&given.value)).collect();
        if let (Some(rerun), true) = (&raw.rerun_on_secret, uses.is_empty())
            && rerun.value
            && raw.secrets.is_none()
        {
            let problem = rerun.at.problem("the stage has no secrets");
            self.problems.push(problem.help("add `secrets: [NAME]`"));
        }
        uses
    }

    /// Whether what stages name is there, and can be had. In `defaults`, and where stages are inherited, a mistake is told once.
    pub(super) fn check_uses(
        &mut self,
        raw: &RawFile,
        entries: &[NamedEntry],
        sources: &BTreeMap<String, SecretSource>,
    ) {
        let declared = raw.secrets.iter().flat_map(|it| it.value.keys());
        let names: BTreeSet<&str> = declared.map(String::as_str).collect();
        let unread = self.unread.iter().any(|path| path == "secrets");
        let all_read = !unread && !self.unread_under("secrets");
        let mut found: Vec<Mistake> = Vec::new();
        for entry in entries {
            let stages = entry.common.bootstrap_sequence.iter();
            for stage in stages.flat_map(|list| &list.value) {
                found.extend(mistakes_of(&stage.value, &names, all_read));
                found.extend(self.machine_mistakes(entry, &stage.value, sources));
            }
        }
        let mut told: BTreeSet<(String, usize)> = BTreeSet::new();
        for mistake in found {
            if told.insert((mistake.path.clone(), mistake.span.start)) {
                self.problems.push(mistake);
            }
        }
    }
}

pub(super) fn one_use(given: &RawSecretUse) -> SecretUse {
    match given {
        RawSecretUse::Plain(name) => SecretUse {
            name: name.0.clone(),
            env: None,
        },
        RawSecretUse::Variable(it) => SecretUse {
            name: super::text(&it.name).unwrap_or_default(),
            env: super::text(&it.env),
        },
    }
}

/// What is wrong with the secrets that a stage names.
fn mistakes_of(stage: &RawStage, names: &BTreeSet<&str>, all_read: bool) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let own = stage.env.as_ref().map(|env| &env.value);
    let (mut seen, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for given in stage.secrets.iter().flat_map(|it| &it.value.0) {
        let (at, wanted) = (&given.at, one_use(&given.value));
        let name = wanted.name.as_str();
        if name.is_empty() {
            continue; // it has its problem already
        }
        if !names.contains(name) && all_read {
            let problem = at.problem(format!("no secret is named {name:?}"));
            mistakes.push(match nearest(name, names.iter().copied()) {
                Some(near) => problem.help(format!("did you mean {near:?}?")),
                None => problem.help("`secrets:` at the top of the file names them"),
            });
        }
        if !seen.insert(name.to_owned()) {
            mistakes.push(at.problem(format!("{name:?} is given twice")));
        }
        let Some(env) = &wanted.env else { continue };
        if !is_secret_variable(env) {
            let problem = at.problem(format!("{env:?} can't be a variable of a secret"));
            mistakes.push(problem.help("letters, digits and `_`; AOT_... and HOME are set by aot"));
        } else if own.is_some_and(|own| own.contains_key(env)) {
            mistakes.push(at.problem(format!("{env} is also given by `env:` of the stage")));
        } else if !variables.insert(env.clone()) {
            mistakes.push(at.problem(format!("{env} is given twice")));
        }
    }
    mistakes
}
