//! The values of secrets that a file names, sealed as soon as they are here: those that the command line has read come with the
//! request, those that the master reads from AWS are read now. Those that machines read are asked for by nobody here. What a
//! command is given is what the cluster has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aot_model::cluster::Cluster;
use aot_model::problem::Problem;
use aot_model::secret::{KeptSecret, SealedSecrets, SecretReader, SecretSource, SecretUse, kept};
use aot_model::spec::ClusterSpec;
use aot_proto::ids::ClusterName;
use aot_proto::limits::{MAX_ALL_SECRETS_BYTES, MAX_SECRETS};
use aot_proto::secret::{check_value, is_secret_variable};
use aot_proto::v1;
use tonic::Status;

use super::{OperatorApi, stopping};
use crate::run::ask;

/// What came of reading them.
#[derive(Debug, Default)]
pub(super) struct SealedFile {
    pub(super) sealed: SealedSecrets,
    /// Those that can't be had or used, and why.
    pub(super) problems: Vec<Problem>,
}

impl OperatorApi {
    /// All secrets of a file.
    ///
    /// # Errors
    /// When the master stops.
    pub(super) async fn secrets_of(
        &self,
        spec: &ClusterSpec,
        given: Vec<v1::SecretValue>,
    ) -> Result<SealedFile, Status> {
        let mut read = SealedFile::default();
        let given = given.into_iter().map(|it| (it.name, it.value));
        let mut given: BTreeMap<String, Vec<u8>> = given.collect();
        let mut bytes = 0;
        for (name, source) in &spec.secrets {
            let value = match source.reader() {
                SecretReader::Machine(..) => continue,
                SecretReader::Master(at) => {
                    let region = at.said_region().or(spec.region.as_deref());
                    let region = region.map(str::to_owned);
                    self.lookups.secret(source.clone(), region).await
                }
                SecretReader::Operator => match given.remove(name) {
                    Some(value) => Ok(value),
                    None => {
                        read.problems.push(not_sent(name));
                        continue;
                    }
                },
            };
            let value = match value {
                Ok(value) => value,
                Err(ask::Error::Stopping) => return Err(stopping()),
                Err(error) => {
                    read.problems.push(unreadable(name, &error));
                    continue;
                }
            };
            bytes += value.len();
            match check_value(&value, is_variable(spec, name)) {
                Ok(()) => {
                    let sealed = self.vault.seal(&spec.name, name, &value);
                    read.sealed.insert(name.clone(), sealed);
                }
                Err(why) => read.problems.push(Problem {
                    message: format!("secret {name:?} can't be used: {why}"),
                    hint: format!("look at {}", in_words(source)),
                }),
            }
        }
        if bytes > MAX_ALL_SECRETS_BYTES {
            let most = MAX_ALL_SECRETS_BYTES >> 10;
            read.problems.push(Problem {
                message: format!("the secrets have more than {most} KiB together"),
                hint: "copy large files with `aot-master cp`".to_owned(),
            });
        }
        Ok(read)
    }

    /// What a command is to be given.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the cluster has no such secret, or one can't be given so.
    pub(super) fn secrets_given(
        &self,
        cluster: &ClusterName,
        given: &[v1::SecretUse],
        env_given: &HashMap<String, String>,
    ) -> Result<Vec<SecretUse>, Status> {
        if given.len() > MAX_SECRETS {
            return Err(Status::invalid_argument(format!(
                "more than {MAX_SECRETS} secrets"
            )));
        }
        let known = self.engine.read(cluster, |world| {
            let cluster = world.clusters.get(cluster);
            cluster.map(known_secrets).unwrap_or_default()
        });
        let mut all: Vec<SecretUse> = Vec::new();
        for v1::SecretUse { name, env } in given {
            let bad = |why: String| Status::invalid_argument(format!("--secret {name}: {why}"));
            let Some(secret) = known.get(name) else {
                return Err(bad(unknown(cluster, &known)));
            };
            if all.iter().any(|it| it.name == *name) {
                return Err(bad("it is given twice".to_owned()));
            }
            if !env.is_empty() {
                if !is_secret_variable(env) {
                    return Err(bad(format!("{env:?} can't be a variable of a secret")));
                }
                let is_taken = |it: &SecretUse| it.env.as_ref() == Some(env);
                if env_given.contains_key(env) || all.iter().any(is_taken) {
                    return Err(bad(format!("the variable {env} is given twice")));
                }
                // What a machine reads is checked there.
                if let KeptSecret::Sealed(secret) = secret {
                    let value = self.vault.open(cluster, name, secret);
                    let checked = value.map_or(Ok(()), |value| check_value(&value, true));
                    checked.map_err(|why| bad(why.to_string()))?;
                }
            }
            all.push(SecretUse {
                name: name.clone(),
                env: (!env.is_empty()).then(|| env.clone()),
            });
        }
        Ok(all)
    }
}

/// What a cluster has of each of its secrets.
fn known_secrets(cluster: &Cluster) -> BTreeMap<String, KeptSecret> {
    let (sources, sealed) = (&cluster.spec.secrets, &cluster.secrets);
    let names: BTreeSet<&String> = sources.keys().chain(sealed.keys()).collect();
    let known = |name: &String| Some((name.clone(), kept(name, sources, sealed)?));
    names.into_iter().filter_map(known).collect()
}

/// Whether some stage is given a secret as a variable.
fn is_variable(spec: &ClusterSpec, name: &str) -> bool {
    let stages = spec.pools.iter().flat_map(|pool| &pool.stages);
    let mut uses = stages.flat_map(|stage| &stage.secrets);
    uses.any(|it| it.name == name && it.env.is_some())
}

fn not_sent(name: &str) -> Problem {
    Problem {
        message: format!("the value of the secret {name:?} did not come with the request"),
        hint: "use an aot-master of this master's version".to_owned(),
    }
}

fn unreadable(name: &str, error: &ask::Error) -> Problem {
    Problem {
        message: format!("cannot read the secret {name:?}: {error}"),
        hint: "the master reads it with its own AWS settings: see docs/secrets.md for the rights that it needs"
            .to_owned(),
    }
}

fn in_words(source: &SecretSource) -> String {
    match source {
        SecretSource::Env(name) => format!("the variable {name}"),
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Command(_) => "what its command prints".to_owned(),
        SecretSource::Ssm(at) => format!("the parameter {}", at.id),
        SecretSource::SecretsManager(at) => format!("the secret {}", at.id),
    }
}

fn unknown(cluster: &ClusterName, known: &BTreeMap<String, KeptSecret>) -> String {
    match known.is_empty() {
        true => format!(
            "cluster {cluster} has no secrets: name them under `secrets:` in its file, and launch it"
        ),
        false => {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let names = names.join(", ");
            format!("cluster {cluster} has no secret of that name; it has: {names}")
        }
    }
}
