//! What `aot-master` answers without a daemon and without network: `check FILE` and `schema`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aot_cluster_file::{Parsed, Report};
use aot_model::plural;
use aot_model::problem::Problem;
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
            "notices": self.parsed.notices,
        })
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
        /// One per file.
        problems: Vec<Problem>,
    },
}

impl CheckError {
    /// For a person, with the lines of the file where there are any.
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Read { source, .. } => format!("error: {self}: {source}\n"),
            Self::File(report) => report.render(color),
            Self::Files { problems, .. } => {
                let lines = problems
                    .iter()
                    .map(|p| format!("error: {}\n  hint: {}\n", p.message, p.hint));
                lines.collect()
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
                let problems: Vec<Value> = problems
                    .iter()
                    .map(|p| plain(&p.message, Some(&p.hint)))
                    .collect();
                json!({"file": path, "problems": problems})
            }
        }
    }
}

/// Reads and checks a file and all that it names. No network.
///
/// # Errors
/// Everything that is wrong with the text, or else with the files that it names.
pub fn check(path: &Path) -> Result<CheckOk, CheckError> {
    let read = |source| CheckError::Read {
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(read)?;
    let parsed = aot_cluster_file::parse(&text, path).map_err(CheckError::File)?;
    let problems = aot_cluster_file::check_files(&parsed.spec, path);
    if problems.is_empty() {
        return Ok(CheckOk { parsed });
    }
    Err(CheckError::Files {
        path: path.to_owned(),
        problems,
    })
}

/// JSON Schema of cluster.yml, indented.
pub fn schema() -> String {
    format!("{:#}", aot_cluster_file::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_good() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let mut checked = Vec::new();
        for entry in std::fs::read_dir(&examples).expect("the examples") {
            let file = entry.expect("an example").path().join("cluster.yml");
            match check(&file) {
                Ok(ok) => checked.push(ok.parsed.spec.name.to_string()),
                Err(error) => panic!("{}:\n{}", file.display(), error.render(false)),
            }
        }
        checked.sort();
        assert_eq!(checked, ["cdh45", "hello", "micro", "p-1"]);
    }
}
