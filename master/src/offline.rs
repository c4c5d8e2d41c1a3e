//! What `aot-master` answers without a daemon and without network: `check FILE`, `schema` and `config`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aot_cli::args::{Cli, VariableArgs};
use aot_cli::variables::given_beside;
use aot_cli::view::settings_table;
use aot_cli::{CLUSTER_FILE, OperatorSecret, SecretOrigin};
use aot_cluster_file::{FileProblem, Parsed, Report, Variables};
use aot_host::environment;
use aot_model::machine_rights::machine_rights;
use aot_model::plural;
use aot_model::problem::Problem;
use aot_model::secret::SecretSource;
use aot_settings::{SettingOrigin, SettingsError};
use serde_json::{Value, json};

/// A file that is good, with everything that it names.
#[derive(Debug, Clone)]
pub struct CheckOk {
    /// What it wants.
    pub parsed: Parsed,
}

impl CheckOk {
    /// One line for a person.
    pub fn summary(&self) -> String {
        let spec = &self.parsed.spec;
        let pools = spec.pools.iter().filter(|pool| pool.name.is_some()).count();
        format!(
            "cluster {}: {} ({}), all well",
            spec.name,
            plural::count(spec.instances().count(), "instance"),
            plural::count(pools, "pool")
        )
    }

    /// `{"cluster","provider","instances":[...],"notices":[...]}`.
    pub fn to_json(&self) -> Value {
        let spec = &self.parsed.spec;
        let instances: Vec<&str> = spec
            .instances()
            .map(|(_, member)| member.name.as_str())
            .collect();
        json!({
            "cluster": spec.name,
            "provider": spec.provider,
            "instances": instances,
            "notices": self.notices(),
        })
    }

    /// What is accepted and worth a word, and what the roles of its machines have to be allowed.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = self.parsed.notices.clone();
        let rights = machine_rights(&self.parsed.spec).into_iter();
        notices.extend(rights.map(|it| format!("instance profile {}: {}", it.profile, it.needs)));
        notices
    }
}

/// Why a file is not good. The exit code of all of them is 2.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It says something wrong.
    #[error("{0}")]
    File(Report),
    /// What it names is not there, or not good.
    #[error("{} named in {} cannot be used", plural::count(problems.len(), "file"), path.display())]
    Files {
        /// The path.
        path: PathBuf,
        /// One per file, with the line and column that name it.
        problems: Vec<(Option<(usize, usize)>, Problem)>,
    },
}

impl CheckError {
    /// For a person, with the lines of the file where there are any.
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Read { path, source } => {
                let is_missing = source.kind() == io::ErrorKind::NotFound;
                let hint = match is_missing && path == Path::new(CLUSTER_FILE) {
                    true => "  hint: aot-master init writes a first one\n",
                    false => "",
                };
                format!("error: {self}: {source}\n{hint}")
            }
            Self::File(report) => report.render(color),
            Self::Files { path, problems } => {
                let named = |(place, p): &(Option<(usize, usize)>, Problem)| {
                    let place =
                        place.map(|(line, column)| format!("{}:{line}:{column}: ", path.display()));
                    let place = place.unwrap_or_default();
                    format!("error: {place}{}\n  hint: {}\n", p.message, p.hint)
                };
                problems.iter().map(named).collect()
            }
        }
    }

    /// `{"file","problems":[{"line","column","path","message","help"}]}`; line and column are null where there are none.
    pub fn to_json(&self) -> Value {
        let plain = |message: &str, help: Option<&str>| json!({"line": null, "column": null, "path": "", "message": message, "help": help});
        match self {
            Self::Read { path, source } => {
                json!({"file": path, "problems": [plain(&format!("{self}: {source}"), None)]})
            }
            Self::File(report) => report.to_json(),
            Self::Files { path, problems } => {
                let problem = |(place, p): &(Option<(usize, usize)>, Problem)| {
                    let mut problem = plain(&p.message, Some(&p.hint));
                    if let Some((line, column)) = place {
                        problem["line"] = (*line).into();
                        problem["column"] = (*column).into();
                    }
                    problem
                };
                let problems: Vec<Value> = problems.iter().map(problem).collect();
                json!({"file": path, "problems": problems})
            }
        }
    }
}

/// The secrets of a file whose values the command line reads; none where the text is wrong, which the master says.
pub fn secrets(text: &str, path: &Path, variables: &Variables) -> Vec<OperatorSecret> {
    let Ok(parsed) = aot_cluster_file::parse_with(text, path, variables) else {
        return Vec::new();
    };
    let dir = parsed.spec.base_dir;
    let secret = |(name, source)| {
        let origin = match source {
            SecretSource::Env(variable) => SecretOrigin::Env(variable),
            SecretSource::File(path) => SecretOrigin::File(path),
            SecretSource::Command(argv) => SecretOrigin::Command {
                argv,
                dir: dir.clone(),
            },
            SecretSource::Ssm(_) | SecretSource::SecretsManager(_) => return None,
        };
        Some(OperatorSecret { name, origin })
    };
    parsed.spec.secrets.into_iter().filter_map(secret).collect()
}

/// Reads and checks a file and all that it names. No network.
///
/// # Errors
/// Everything that is wrong with the text, or else with the files that it names.
pub fn check(path: &Path, variables: &VariableArgs) -> Result<CheckOk, CheckError> {
    let read = |source| CheckError::Read {
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(read)?;
    let given =
        given_beside(variables, &text, environment::text).map_err(|unread| CheckError::Read {
            path: unread.path,
            source: unread.source,
        })?;
    let parsed = aot_cluster_file::parse_with(&text, path, &given).map_err(CheckError::File)?;
    let found = aot_cluster_file::file_problems(&parsed.spec, path);
    if found.is_empty() {
        return Ok(CheckOk { parsed });
    }
    let placed = |found: FileProblem| {
        let place = parsed.place_of(&found.file, &text, path);
        (place, found.problem)
    };
    let problems = found.into_iter().map(placed).collect();
    Err(CheckError::Files {
        path: path.to_owned(),
        problems,
    })
}

/// JSON Schema of cluster.yml, indented.
pub fn schema() -> String {
    format!("{:#}", aot_cluster_file::schema())
}

/// Each setting on a line, for a person or for programs.
///
/// # Errors
/// As the settings themselves.
pub fn config(cli: &Cli) -> Result<String, SettingsError> {
    if cli.global.json {
        return config_lines(cli);
    }
    let all = aot_settings::origins_of_command_line(cli)?;
    let row = |it: &SettingOrigin| {
        let value = it.value.clone().unwrap_or_default();
        [it.key.clone(), value, it.origin.to_string()]
    };
    let rows: Vec<[String; 3]> = all.iter().map(row).collect();
    Ok(settings_table(&rows))
}

/// Each setting as JSON on a line.
///
/// # Errors
/// As the settings themselves.
pub fn config_lines(cli: &Cli) -> Result<String, SettingsError> {
    let line = |it: &SettingOrigin| {
        json!({"setting": it.key, "value": it.value, "origin": it.origin.kind(), "from": it.origin.name()}).to_string()
    };
    let all = aot_settings::origins_of_command_line(cli)?;
    Ok(all.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_is_a_way_to_one() {
        let missing = check(Path::new("/no/such/cluster.yml"), &VariableArgs::default())
            .expect_err("it is not there");
        assert!(!missing.render(false).contains("init"), "another was named");
        let source = io::Error::from(io::ErrorKind::NotFound);
        let path = PathBuf::from(CLUSTER_FILE);
        let text = CheckError::Read { path, source }.render(false);
        assert!(
            text.ends_with("hint: aot-master init writes a first one\n"),
            "{text}"
        );
    }

    #[test]
    fn the_command_line_reads_what_the_master_does_not() {
        let text = "cluster: c\nprovider: local\nsecrets: {a: {env: A}, b: {file: b}, c: {command: x y}, d: {ssm: /d}}\ninstances: [{name: i}]\n";
        let path = Path::new("/clusters/c.yml");
        let found = secrets(text, path, &Variables::default());
        let origins: Vec<SecretOrigin> = found.into_iter().map(|it| it.origin).collect();
        let command = SecretOrigin::Command {
            argv: ["/bin/sh", "-c", "x y"].map(str::to_owned).to_vec(),
            dir: "/clusters".into(),
        };
        let want = [
            SecretOrigin::Env("A".to_owned()),
            SecretOrigin::File("/clusters/b".into()),
            command,
        ];
        assert_eq!(origins, want);
        assert_eq!(secrets("cluster: [", path, &Variables::default()), []);
    }

    #[test]
    fn a_check_names_the_rights_that_machines_need() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cluster.yml");
        let text = "cluster: c\nregion: eu-west-1\nsecrets: {a: {ssm: /a, on: machine}}\n\
            defaults: {ami: debian-12, ec2_size: t3.micro, instance_profile_name: web}\n\
            instances: [{name: i, bootstrap_sequence: [{dir: x, secrets: a}]}]\n";
        fs::write(&path, text).expect("writes");
        fs::create_dir(dir.path().join("x")).expect("a folder");
        fs::write(dir.path().join("x/bootstrap.sh"), "true\n").expect("writes");
        let good = check(&path, &VariableArgs::default());
        let good = good.unwrap_or_else(|error| panic!("{}", error.render(false)));
        let want = "instance profile web: its role needs ssm:GetParameter on arn:aws:ssm:eu-west-1:*:parameter/a for the secret a";
        assert_eq!(good.notices(), [want]);
        assert_eq!(good.to_json()["notices"][0], want);
    }

    #[test]
    fn a_first_file_is_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("shop");
        let files = aot_cli::init::init(&dir).expect("written");
        let ok = check(&files[0], &VariableArgs::default())
            .unwrap_or_else(|error| panic!("{}", error.render(false)));
        assert_eq!(ok.summary(), "cluster shop: 2 instances (1 pool), all well");
        assert_eq!(ok.parsed.notices, Vec::<String>::new());
    }

    #[test]
    fn a_file_is_checked_with_what_is_given_beside_it() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/variables");
        let given = VariableArgs {
            set: vec!["cluster=staging".into(), "http.port=81".into()],
            vars: vec![example.join("large.yml")],
        };
        let good = check(&example.join("cluster.yml"), &given).expect("good");
        assert!(good.summary().contains("staging: 4 instances"));
        let yaml = good.parsed.expanded.to_yaml().expect("YAML");
        for part in ["cluster: staging", "Welcome from staging", "size: 4"] {
            assert!(yaml.contains(part), "{part}: {yaml}");
        }
        let none = VariableArgs {
            vars: vec![example.join("none.yml")],
            ..VariableArgs::default()
        };
        let error = check(&example.join("cluster.yml"), &none).expect_err("is refused");
        assert!(error.render(false).contains("none.yml"), "{error}");
    }

    #[test]
    fn every_example_is_good() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut checked = Vec::new();
        for entry in std::fs::read_dir(&examples).expect("the examples") {
            let file = entry.expect("an example").path().join("cluster.yml");
            match check(&file, &VariableArgs::default()) {
                Ok(ok) => checked.push(ok.parsed.spec.name.to_string()),
                Err(error) => panic!("{}:\n{}", file.display(), error.render(false)),
            }
        }
        checked.sort();
        let names = [
            "cdh45", "hello", "micro", "p-1", "playbook", "site", "states",
        ];
        assert_eq!(checked, names);
    }
}
