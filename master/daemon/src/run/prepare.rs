//! From a file's text to something that can be decided on: parsed, checked, its bundles packed into the store.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use aot_bundle::{BundleError, Packed};
use aot_cluster_file::Report;
use aot_model::problem::Problem;
use aot_model::secret::SecretVersions;
use aot_model::spec::{BundleSource, ClusterSpec, StageSpec};
use aot_model::stage::StagePlan;
use aot_model::stage::{key_with_secrets, ledger_key};
use aot_proto::v1::Variables;

/// Why a file can't be launched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is wrong with it.
    #[error(transparent)]
    File(Box<Report>),
    #[error("stage {index} of {pool} can't be packed")]
    Bundle {
        /// Of which pool or instance.
        pool: String,
        /// Which stage.
        index: usize,
        /// What about it.
        source: BundleError,
    },
}

/// A file as it is written, before its bundles are packed.
#[derive(Debug)]
pub(crate) struct ClusterText {
    /// Parsed.
    pub spec: ClusterSpec,
    /// What the operator should know.
    pub notices: Vec<String>,
    /// Bundles and cloud-configs that are not there, or not good.
    pub problems: Vec<Problem>,
    /// Text of each pool's cloud_config, by pool label.
    pub user_parts: BTreeMap<String, String>,
}

/// Parses the text and looks at the files that it names. Blocks on the disk.
///
/// # Errors
/// When the text itself is wrong.
pub(crate) fn read(text: &str, path: &Path, variables: &Variables) -> Result<ClusterText, Error> {
    let parsed = parse(text, path, variables)?;
    let mut problems = aot_cluster_file::check_files(&parsed.spec, path);
    let mut user_parts = BTreeMap::new();
    for pool in parsed.spec.pools.iter().filter(|_| problems.is_empty()) {
        let Some(path) = &pool.machine.cloud_config else {
            continue;
        };
        match std::fs::read_to_string(path) {
            Ok(text) => drop(user_parts.insert(pool.label().to_owned(), text)),
            Err(error) => {
                problems.push(Problem {
                    message: format!("cannot read cloud_config {}: {error}", path.display()),
                    hint: "it must be UTF-8 text".to_owned(),
                });
                break;
            }
        }
    }
    Ok(ClusterText {
        problems,
        user_parts,
        ..parsed
    })
}

/// Parses the text alone: the files that it names are somewhere else.
///
/// # Errors
/// When the text itself is wrong.
pub(crate) fn parse(text: &str, path: &Path, variables: &Variables) -> Result<ClusterText, Error> {
    let parsed = aot_cluster_file::parse_with(text, path, variables)
        .map_err(|report| Error::File(Box::new(report)))?;
    Ok(ClusterText {
        spec: parsed.spec,
        notices: parsed.notices,
        problems: Vec::new(),
        user_parts: BTreeMap::new(),
    })
}

/// Packs the bundles of every pool, each source once. `versions` are those of the secrets that its stages may name.
///
/// # Errors
/// When a bundle can't be packed.
pub(crate) fn stages(
    spec: &ClusterSpec,
    bundles: &Path,
    versions: &SecretVersions,
) -> Result<BTreeMap<String, Vec<StagePlan>>, Error> {
    let mut packed: HashMap<PathBuf, Packed> = HashMap::new();
    let mut all = BTreeMap::new();
    for pool in &spec.pools {
        let mut plans = Vec::new();
        for (index, stage) in pool.stages.iter().enumerate() {
            let failed = |source| Error::Bundle {
                pool: pool.label().to_owned(),
                index,
                source,
            };
            let packed = one(&stage.source, bundles, &mut packed).map_err(failed)?;
            plans.push(plan(
                stage,
                packed.sha256,
                packed.bytes,
                packed.has_templates,
                versions,
            ));
        }
        all.insert(pool.label().to_owned(), plans);
    }
    Ok(all)
}

fn one(
    source: &BundleSource,
    bundles: &Path,
    packed: &mut HashMap<PathBuf, Packed>,
) -> Result<Packed, BundleError> {
    if let Some(done) = packed.get(source.path()) {
        return Ok(done.clone());
    }
    let done = aot_bundle::pack(source, bundles)?;
    packed.insert(source.path().clone(), done.clone());
    Ok(done)
}

/// A stage whose bundle has this content, where secrets have these versions.
pub(crate) fn plan(
    stage: &StageSpec,
    sha256: String,
    bytes: u64,
    templates: bool,
    versions: &SecretVersions,
) -> StagePlan {
    let counted = stage.secrets.iter().filter(|_| stage.rerun_on_secret);
    let counted = counted.filter_map(|it| versions.get_key_value(&it.name));
    let versions = counted.map(|(name, version)| (name.clone(), version.clone()));
    let secret_versions: SecretVersions = versions.collect();
    let key = ledger_key(&sha256, &stage.args, &stage.env);
    StagePlan {
        name: stage.name.clone(),
        key: key_with_secrets(key, &stage.secrets, &secret_versions),
        bundle_sha256: sha256,
        bundle_bytes: bytes,
        args: stage.args.clone(),
        env: stage.env.clone(),
        timeout: stage.timeout,
        silence_timeout: stage.silence_timeout,
        needs: stage.needs.clone(),
        templates,
        secrets: stage.secrets.clone(),
        secret_versions,
    }
}

#[cfg(test)]
mod tests {
    use aot_model::secret::SecretUse;

    use super::*;

    fn stage(rerun_on_secret: bool) -> StageSpec {
        StageSpec {
            name: "setup".to_owned(),
            source: BundleSource::Dir("/x".into()),
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: None,
            silence_timeout: None,
            needs: Vec::new(),
            secrets: vec![SecretUse {
                name: "db".to_owned(),
                env: None,
            }],
            rerun_on_secret,
        }
    }

    #[test]
    fn another_value_is_another_stage_only_where_that_is_wanted_and_it_names_it() {
        let key = |stage: &StageSpec, db: &str, tls: &str| {
            let versions = [("db", db), ("tls", tls)];
            let versions = versions.map(|(name, it)| (name.to_owned(), it.to_owned()));
            plan(stage, "sha".to_owned(), 1, false, &versions.into()).key
        };
        let (keeps, follows) = (stage(false), stage(true));
        assert_eq!(key(&keeps, "1", "1"), key(&keeps, "2", "2"));
        assert_eq!(key(&follows, "1", "1"), key(&follows, "1", "2"));
        assert_ne!(key(&follows, "1", "1"), key(&follows, "2", "1"));
        // Of what machines read there is no version, unless one is named: then it is as a value's.
        let unknown = plan(&follows, "sha".to_owned(), 1, false, &SecretVersions::new()).key;
        assert_ne!(unknown, key(&follows, "1", "1"));
        let bare = StageSpec {
            secrets: Vec::new(),
            ..stage(false)
        };
        let before = ledger_key("sha", &[], &BTreeMap::new());
        assert_eq!(
            key(&bare, "1", "1"),
            before,
            "what has none runs no more often"
        );
    }
}
