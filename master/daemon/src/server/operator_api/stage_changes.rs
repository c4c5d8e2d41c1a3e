//! What of a stage that runs again changed since machines ran it: its args, its env, and the files of its bundle. The earlier
//! bundle is the one that the records name; it lies in this master's folder, or where masters share what is long.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use aot_host::chain::Chain;
use aot_model::plan::{PlanAction, PlanItem};
use aot_model::spec::ClusterSpec;
use aot_model::stage::StagePlan;
use aot_proto::ids::InstanceName;
use tonic::Status;

use super::handed::PoolStages;
use super::{OperatorApi, stopping};

/// How many changes of a stage are named.
const MAX_NAMED: usize = 10;

/// Pairs of bundles that are compared for one plan: each is read once.
const MAX_COMPARED: usize = 16;

/// Said of a bundle that can't be compared.
const BUNDLE: &str = "its bundle";

/// A stage before and after.
type StagePair = (StagePlan, StagePlan);

impl OperatorApi {
    /// Says in the plan of each instance whose stage changed what did: once, and for the others that it is the same.
    pub(super) async fn explain(
        &self,
        spec: &ClusterSpec,
        stages: &PoolStages,
        items: &mut [PlanItem],
    ) -> Result<(), Status> {
        let pairs = self.changed_stages(spec, stages, items);
        let mut said: HashMap<(&str, &str), InstanceName> = HashMap::new();
        let mut bundles = HashMap::new();
        for item in items {
            let Some((old, new)) = pairs.get(&item.instance) else {
                continue;
            };
            if let Some(first) = said.get(&(&*old.key, &*new.key)) {
                item.detail.push_str(&format!(", as on {first}"));
                continue;
            }
            let mut all = arguments_changed(old, new);
            let of_bundle = (&*old.bundle_sha256, &*new.bundle_sha256);
            if of_bundle.0 != of_bundle.1 {
                if bundles.len() < MAX_COMPARED && !bundles.contains_key(&of_bundle) {
                    let compared = self.bundle_changed(of_bundle.0, of_bundle.1).await?;
                    bundles.insert(of_bundle, compared);
                }
                let unknown = || vec![BUNDLE.to_owned()];
                all.extend(bundles.get(&of_bundle).cloned().unwrap_or_else(unknown));
            }
            item.detail.push_str(&format!(": {}", named(&all)));
            said.insert((&old.key, &new.key), item.instance.clone());
        }
        Ok(())
    }

    /// The stages that run again first, as they were and as they will be, where they were before.
    fn changed_stages(
        &self,
        spec: &ClusterSpec,
        stages: &PoolStages,
        items: &[PlanItem],
    ) -> BTreeMap<InstanceName, StagePair> {
        let pools: HashMap<&InstanceName, &str> = spec
            .instances()
            .map(|(pool, member)| (&member.name, pool.label()))
            .collect();
        self.engine.read(&spec.name, |world| {
            let cluster = world.clusters.get(&spec.name);
            let pair = |item: &PlanItem| {
                let PlanAction::Rerun { from } = item.action else {
                    return None;
                };
                let instance = cluster?.instances.get(&item.instance)?;
                let old = &instance.stages.get(from)?.plan;
                let label = pools.get(&item.instance)?;
                let new = stages.get(*label)?.get(from)?;
                let pair = (old.clone(), new.clone());
                (old.key != new.key).then(|| (item.instance.clone(), pair))
            };
            items.iter().filter_map(pair).collect()
        })
    }

    /// What changed in a bundle, once both are here.
    async fn bundle_changed(&self, old: &str, new: &str) -> Result<Vec<String>, Status> {
        let mut paths = Vec::new();
        for sha256 in [old, new] {
            match (self.bundles.bring(sha256).await, self.bundles.path(sha256)) {
                (Ok(true), Some(path)) => paths.push(path),
                (Ok(_), _) => return Ok(vec![BUNDLE.to_owned()]),
                (Err(error), _) => {
                    tracing::debug!(error = %Chain(&error), "cannot fetch a bundle to compare it");
                    return Ok(vec![BUNDLE.to_owned()]);
                }
            }
        }
        let work = tokio::task::spawn_blocking(move || files_changed(&paths));
        work.await.map_err(|_| stopping())
    }
}

/// What changed from the first of two bundles to the second.
fn files_changed(paths: &[PathBuf]) -> Vec<String> {
    let list = |path: &Path| {
        let listed = aot_bundle::list(path);
        listed.inspect_err(|error| tracing::debug!(error = %Chain(error), "cannot list a bundle"))
    };
    let lists: Result<Vec<_>, _> = paths.iter().map(|path| list(path)).collect();
    let Ok([old, new]) = lists.as_deref() else {
        return vec![BUNDLE.to_owned()];
    };
    match aot_bundle::changes(old, new) {
        none if none.is_empty() => vec!["how its bundle is packed".to_owned()],
        changes => changes,
    }
}

/// What is said of args and env: names alone, as values may be secret.
fn arguments_changed(old: &StagePlan, new: &StagePlan) -> Vec<String> {
    let mut all = Vec::new();
    if old.args != new.args {
        all.push("args".to_owned());
    }
    let mut names: Vec<&String> = old.env.keys().chain(new.env.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let sign = match (old.env.get(name), new.env.get(name)) {
            (None, _) => "+",
            (_, None) => "-",
            (before, now) if before == now => continue,
            _ => "",
        };
        all.push(format!("{sign}env {}", name.escape_debug()));
    }
    all.extend(secrets_changed(old, new));
    all
}

/// Names of the secrets that a stage is given now or no more, in another way, or with another value.
fn secrets_changed(old: &StagePlan, new: &StagePlan) -> Vec<String> {
    let given = |plan: &StagePlan| -> BTreeMap<String, (Option<String>, Option<String>)> {
        let version = |name| plan.secret_versions.get(name).cloned();
        let given = plan.secrets.iter();
        let given = given.map(|it| (it.name.clone(), (it.env.clone(), version(&it.name))));
        given.collect()
    };
    let (old, new) = (given(old), given(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = |name: &&String| match (old.get(*name), new.get(*name)) {
        (None, _) => Some(format!("+secret {name}")),
        (_, None) => Some(format!("-secret {name}")),
        (before, now) => (before != now).then(|| format!("secret {name}")),
    };
    names.iter().filter_map(changed).collect()
}

/// The first of them, and how many more there are.
fn named(all: &[String]) -> String {
    let first = &all[..all.len().min(MAX_NAMED)];
    match all.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aot_model::spec::BundleSource;

    use super::*;

    fn plan(args: &[&str], env: &[(&str, &str)]) -> StagePlan {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        StagePlan {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(owned).collect(),
            name: "setup".to_owned(),
            bundle_sha256: String::new(),
            bundle_bytes: 0,
            timeout: None,
            silence_timeout: None,
            needs: Vec::new(),
            key: String::new(),
            templates: false,
            secrets: Vec::new(),
            secret_versions: BTreeMap::new(),
        }
    }

    #[test]
    fn args_and_env_are_named_and_their_values_are_not() {
        let old = plan(
            &["a"],
            &[("KEPT", "1"), ("GONE", "hidden"), ("TOKEN", "old")],
        );
        let new = plan(
            &["b"],
            &[("KEPT", "1"), ("NEW", "hidden"), ("TOKEN", "new")],
        );
        let want = ["args", "-env GONE", "+env NEW", "env TOKEN"];
        assert_eq!(arguments_changed(&old, &new), want);
        assert_eq!(arguments_changed(&old, &old), Vec::<String>::new());
    }

    #[test]
    fn a_few_are_named_and_the_rest_is_counted() {
        let many: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(named(&many[..2]), "0, 1");
        assert_eq!(named(&many[..10]), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9");
        assert_eq!(named(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }

    #[test]
    fn bundles_that_are_here_are_compared_and_others_are_only_said_to_differ() {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, store) = (dir.path().join("bundle"), dir.path().join("store"));
        fs::create_dir(&source).expect("makes");
        let packed = |name: &str, text: &str| {
            fs::write(source.join(name), text).expect("writes");
            let packed = aot_bundle::pack(&BundleSource::Dir(source.clone()), &store);
            packed.expect("packs").path
        };
        let old = packed("bootstrap.sh", "one\n");
        let new = packed("more.sh", "two\n");
        assert_eq!(files_changed(&[old.clone(), new.clone()]), ["+more.sh"]);
        assert_eq!(files_changed(&[new, dir.path().join("none")]), [BUNDLE]);
        assert_eq!(
            files_changed(&[old.clone(), old]),
            ["how its bundle is packed"]
        );
    }
}
