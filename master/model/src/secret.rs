//! Secrets as they are on record: where their values come from, who is given them, and the values, sealed. Nothing here has a
//! value in the clear: the model decides by their versions. Of what machines read by themselves there is no value at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use aot_proto::aws::{is_uuid, region_of_arn};
use aot_proto::v1::AwsService;
use serde::{Deserialize, Serialize};

use crate::hash::sha256_hex;

/// Where the value of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A variable of the environment in which the command line runs.
    Env(String),
    /// A file, absolute; the command line reads it.
    File(PathBuf),
    /// What a command prints, which the command line runs in the file's folder: program and arguments.
    Command(Vec<String>),
    /// A parameter of AWS Systems Manager.
    Ssm(AwsSecret),
    /// A secret of AWS Secrets Manager.
    SecretsManager(AwsSecret),
}

/// A secret that AWS has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsSecret {
    /// Its name, or ARN.
    pub id: String,
    /// Its region; `None` = that of its ARN, else the cluster's or the machine's, else that of the master's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Which version of it; `None` = the current one. A master from before there was this reads that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The machines read it, and no master does. One from before there was this refuses its runs: it has no value of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_machine: bool,
}

/// Who reads the value of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretReader<'a> {
    /// The command line, which brings it.
    Operator,
    /// The master.
    Master(&'a AwsSecret),
    /// Each machine whose runs are given it.
    Machine(AwsService, &'a AwsSecret),
}

impl AwsSecret {
    /// The region that was said, in its ARN too.
    pub fn said_region(&self) -> Option<&str> {
        self.region.as_deref().or_else(|| region_of_arn(&self.id))
    }
}

impl SecretSource {
    /// Who reads it.
    pub fn reader(&self) -> SecretReader<'_> {
        let (service, at) = match self {
            Self::Env(_) | Self::File(_) | Self::Command(_) => return SecretReader::Operator,
            Self::Ssm(at) => (AwsService::Ssm, at),
            Self::SecretsManager(at) => (AwsService::SecretsManager, at),
        };
        match at.on_machine {
            true => SecretReader::Machine(service, at),
            false => SecretReader::Master(at),
        }
    }

    /// Whether machines read it by themselves.
    pub fn is_on_machine(&self) -> bool {
        matches!(self.reader(), SecretReader::Machine(..))
    }

    /// Says of one that machines read whether its value is another, as far as that can be known here: when it names a version
    /// that never changes. `None` for all others.
    pub fn pinned_version(&self) -> Option<String> {
        let SecretReader::Machine(service, at) = self.reader() else {
            return None;
        };
        let version = at.version.as_deref()?;
        let never_changes = match service {
            AwsService::Ssm => version.chars().all(|c| c.is_ascii_digit()),
            AwsService::SecretsManager => is_uuid(version),
            AwsService::Unspecified => false,
        };
        let region = at.region.as_deref().unwrap_or_default();
        let parts = [service.thing(), &at.id, region, version];
        never_changes.then(|| sha256_hex(parts.join("\n").as_bytes()))
    }
}

/// A secret that a stage or a command is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name, which its file has too.
    pub name: String,
    /// The variable that it is given as, besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// The value of a secret, sealed with a key that the records do not have.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Says whether two values are the same, to those who have the key: an HMAC, hex.
    pub version: String,
    /// Base64.
    pub sealed: String,
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret")
    }
}

/// The secrets of a cluster, by name.
pub type SealedSecrets = BTreeMap<String, SealedSecret>;

/// Versions of secrets, by name.
pub type SecretVersions = BTreeMap<String, String>;

/// The versions of these secrets.
pub fn versions(secrets: &SealedSecrets) -> SecretVersions {
    let version = |(name, secret): (&String, &SealedSecret)| (name.clone(), secret.version.clone());
    secrets.iter().map(version).collect()
}

/// The versions of all secrets of a file: of the values that are here, and of what machines read where that can be known.
pub fn all_versions(
    sources: &BTreeMap<String, SecretSource>,
    sealed: &SealedSecrets,
) -> SecretVersions {
    let pinned = sources.iter();
    let pinned = pinned.filter_map(|(name, source)| Some((name.clone(), source.pinned_version()?)));
    versions(sealed).into_iter().chain(pinned).collect()
}

/// What a cluster has of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptSecret {
    /// Its value.
    Sealed(SealedSecret),
    /// Where machines read it.
    OnMachine(AwsService, AwsSecret),
}

/// What a cluster with these sources and values has of a secret; `None` where it has no such secret.
pub fn kept(
    name: &str,
    sources: &BTreeMap<String, SecretSource>,
    sealed: &SealedSecrets,
) -> Option<KeptSecret> {
    match sources.get(name).map(SecretSource::reader) {
        Some(SecretReader::Machine(service, at)) => {
            Some(KeptSecret::OnMachine(service, at.clone()))
        }
        _ => sealed.get(name).cloned().map(KeptSecret::Sealed),
    }
}

/// A secret that a run is given, as the records have it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSecret {
    /// What it is given as.
    pub given: SecretUse,
    /// `None` when the cluster has no such secret any more.
    pub kept: Option<KeptSecret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, version: Option<&str>, on_machine: bool) -> AwsSecret {
        AwsSecret {
            id: id.to_owned(),
            region: None,
            version: version.map(str::to_owned),
            on_machine,
        }
    }

    #[test]
    fn only_a_version_that_never_changes_says_what_a_value_is() {
        let uuid = "6f1b0d8e-3c52-4a43-9c4e-0a1b2c3d4e5f";
        let ssm = |version, on_machine| SecretSource::Ssm(source("/a", version, on_machine));
        let manager = |version| SecretSource::SecretsManager(source("a", version, true));
        for (source, is_pinned) in [
            (ssm(Some("3"), true), true),
            (ssm(Some("3"), false), false),
            (ssm(Some("live"), true), false),
            (ssm(None, true), false),
            (manager(Some(uuid)), true),
            (manager(Some("AWSCURRENT")), false),
            (manager(None), false),
        ] {
            assert_eq!(source.pinned_version().is_some(), is_pinned, "{source:?}");
        }
        let of = |source: SecretSource| source.pinned_version();
        assert_ne!(of(ssm(Some("3"), true)), of(ssm(Some("4"), true)));
        assert_ne!(
            of(ssm(Some("3"), true)),
            of(SecretSource::Ssm(source("/b", Some("3"), true)))
        );
    }

    #[test]
    fn what_machines_read_has_no_value_here_whatever_the_records_have() {
        let value = SealedSecret {
            version: "1".to_owned(),
            sealed: "x".to_owned(),
        };
        let at = source("/a", Some("3"), true);
        let sources = BTreeMap::from([
            ("a".to_owned(), SecretSource::Ssm(at.clone())),
            ("b".to_owned(), SecretSource::Env("B".to_owned())),
        ]);
        let sealed = ["a", "b"].map(|name| (name.to_owned(), value.clone()));
        let sealed = SealedSecrets::from(sealed);
        assert_eq!(
            kept("a", &sources, &sealed),
            Some(KeptSecret::OnMachine(AwsService::Ssm, at))
        );
        assert_eq!(
            kept("b", &sources, &sealed),
            Some(KeptSecret::Sealed(value))
        );
        assert_eq!(kept("c", &sources, &sealed), None);
        let versions = all_versions(&sources, &sealed);
        assert_eq!(versions["b"], "1");
        assert_ne!(versions["a"], "1");
    }

    #[test]
    fn records_of_before_machines_read_any_are_read_and_stay_as_they_are() {
        let text = r#"{"ssm":{"id":"/a"}}"#;
        let before: SecretSource = serde_json::from_str(text).expect("reads");
        assert_eq!(before, SecretSource::Ssm(source("/a", None, false)));
        assert_eq!(serde_json::to_string(&before).expect("writes"), text);
    }
}
