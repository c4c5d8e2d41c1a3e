//! Whether the files that a cluster names are there. The only part of `config` that touches the disk.

use std::collections::BTreeSet;
use std::fs::File;

use crate::bundle;
use crate::model::file::ClusterSpec;
use crate::provider::Problem;

/// Largest cloud-config that can fit into user-data beside the agent's part.
const MAX_CLOUD_CONFIG_BYTES: u64 = 16_384;

/// Looks at every bundle and cloud-config once: there, readable, with a bootstrap.sh, no entry that leaves its folder.
/// Empty = all well.
pub fn check_files(spec: &ClusterSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for stage in spec.pools.iter().flat_map(|pool| &pool.stages) {
        if !seen.insert(stage.source.path()) {
            continue;
        }
        if let Err(error) = bundle::check(&stage.source) {
            problems.push(Problem {
                message: format!("bundle {}: {}", stage.name, chain(&error)),
                hint: error.hint().to_owned(),
            });
        }
    }
    let configs: BTreeSet<_> = spec
        .pools
        .iter()
        .filter_map(|pool| pool.machine.cloud_config.as_ref())
        .collect();
    for path in configs {
        let message = match File::open(path).and_then(|file| file.metadata()) {
            Ok(meta) if !meta.is_file() => format!("cloud_config {} is not a file", path.display()),
            Ok(meta) if meta.len() > MAX_CLOUD_CONFIG_BYTES => {
                format!(
                    "cloud_config {} has {} bytes, {MAX_CLOUD_CONFIG_BYTES} are the most",
                    path.display(),
                    meta.len()
                )
            }
            Ok(_) => continue,
            Err(error) => format!("cannot read cloud_config {}: {error}", path.display()),
        };
        let hint = "paths are relative to the cluster's file".to_owned();
        problems.push(Problem { message, hint });
    }
    problems
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
