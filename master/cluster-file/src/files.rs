//! Whether the files that a cluster names are there and good. The only part of `config` that touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aot_bundle::BundleError;
use aot_model::problem::Problem;
use aot_model::spec::{ClusterSpec, PoolSpec};
use aot_proto::limits::MAX_USER_DATA_BYTES;

use super::node::{self, Body};
use super::report::{Mistake, Report};

/// Looks at every bundle and cloud-config once, by the rules of the launch: there, readable, with a bootstrap.sh that bash
/// can run, no entry that a machine would refuse; of a kind that cloud-init knows, small enough, good YAML. `path` is that
/// of the cluster's file, as it was given. Empty = all well.
pub fn check_files(spec: &ClusterSpec, path: &Path) -> Vec<Problem> {
    let problems = file_problems(spec, path).into_iter();
    problems.map(|found| found.problem).collect()
}

/// What is wrong with a file that a cluster names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// [`check_files`], with the file of each problem.
pub fn file_problems(spec: &ClusterSpec, path: &Path) -> Vec<FileProblem> {
    let mut problems: Vec<FileProblem> = Vec::new();
    let mut seen = BTreeSet::new();
    for stage in spec.pools.iter().flat_map(|pool| &pool.stages) {
        if !seen.insert(stage.source.path()) {
            continue;
        }
        if let Err(error) = aot_bundle::check(&stage.source) {
            let beside = match &error {
                BundleError::Io { source, .. } => beside_real(stage.source.path(), path, source),
                _ => None,
            };
            problems.push(FileProblem {
                file: stage.source.path().to_owned(),
                problem: Problem {
                    message: format!("bundle {}: {}", stage.name, chain(&error)),
                    hint: beside.unwrap_or_else(|| error.hint().to_owned()),
                },
            });
        }
    }
    let mut texts = BTreeMap::new();
    for pool in &spec.pools {
        let Some(file) = &pool.machine.cloud_config else {
            continue;
        };
        let read = texts
            .entry(file)
            .or_insert_with(|| read_cloud_config(file, path));
        let problem = match read {
            Ok(text) => cloud_config(text, file, spec, pool).err(),
            Err(problem) => Some(problem.clone()),
        };
        let found = problem.map(|problem| FileProblem {
            file: file.clone(),
            problem,
        });
        problems.extend(found.filter(|found| !problems.contains(found)));
    }
    problems
}

/// The text of a cloud_config.
fn read_cloud_config(file: &Path, cluster: &Path) -> Result<String, Problem> {
    let problem = |message: String, hint: &str| Problem {
        message,
        hint: hint.to_owned(),
    };
    let shown = file.display();
    // More than fits, so that what is too long is seen, and no more.
    let most = MAX_USER_DATA_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = fs::metadata(file).and_then(|meta| match meta.is_file() {
        true => fs::File::open(file)?.take(most).read_to_end(&mut bytes),
        false => Err(io::Error::other("it is not a file")),
    });
    if let Err(error) = read {
        let hint = beside_real(file, cluster, &error)
            .unwrap_or_else(|| "paths are relative to the cluster's file".to_owned());
        return Err(problem(
            format!("cannot read cloud_config {shown}: {error}"),
            &hint,
        ));
    }
    if bytes.len() > MAX_USER_DATA_BYTES {
        return Err(problem(
            format!(
                "cloud_config {shown} has more than {MAX_USER_DATA_BYTES} bytes, the most that EC2 accepts"
            ),
            "move what it does into a stage of bootstrap_sequence",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        problem(
            format!("cloud_config {shown}: line {line} is not UTF-8 text"),
            "save it as UTF-8 without BOM",
        )
    })
}

/// What a launch would say of it, and what cloud-init would do on the machine without telling anybody.
fn cloud_config(
    text: &str,
    file: &Path,
    spec: &ClusterSpec,
    pool: &PoolSpec,
) -> Result<(), Problem> {
    let problem = |why: String, hint: &str| Problem {
        message: format!("cloud_config {}: {why}", file.display()),
        hint: hint.to_owned(),
    };
    if text.starts_with('\u{feff}') {
        return Err(problem(
            "it begins with a byte order mark, so cloud-init does not know its first line"
                .to_owned(),
            "save it as UTF-8 without BOM",
        ));
    }
    aot_user_data::check_part(text, spec.name.as_str(), &pool.members).map_err(|error| {
        problem(
            error.to_string(),
            "its first line must begin with the kind of file it is",
        )
    })?;
    if !text.starts_with("#cloud-config") {
        return Ok(());
    }
    let report = |mistake: Mistake| {
        let report = Report::new(file.display().to_string(), text, vec![mistake]);
        Problem {
            message: format!("cloud_config {report}"),
            hint: "cloud-init would ignore the whole file, and the machine would run without it"
                .to_owned(),
        }
    };
    let root = node::parse(text).map_err(report)?;
    let archive = text.starts_with("#cloud-config-archive");
    match root.body {
        Body::Null => Ok(()),
        Body::Map(_) if !archive => Ok(()),
        Body::Seq(_) if archive => Ok(()),
        _ => {
            let wanted = if archive { "a list" } else { "a mapping" };
            let message = format!("wants {wanted} at its top, found {}", root.found());
            Err(report(Mistake::new(root.span, "", message)))
        }
    }
}

/// When the cluster's file was given as a link, and what is missing beside the link is there beside the file itself.
fn beside_real(missing: &Path, cluster: &Path, error: &io::Error) -> Option<String> {
    if error.kind() != io::ErrorKind::NotFound {
        return None;
    }
    let given = std::path::absolute(cluster).ok()?;
    let real = cluster.canonicalize().ok()?;
    let inside = missing.strip_prefix(given.parent()?).ok()?;
    let found: PathBuf = real.parent()?.join(inside);
    found.exists().then(|| {
        format!(
            "{} is a link: paths start at the folder of the link, and {} is there; give that file itself, {}",
            cluster.display(),
            found.display(),
            real.display()
        )
    })
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
