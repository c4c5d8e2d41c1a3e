//! Secrets as they are on record: where their values come from, who is given them, and the values, sealed. Nothing here has a
//! value in the clear: the model decides by their versions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// A parameter of AWS Systems Manager, which the master reads.
    Ssm(AwsSecret),
    /// A secret of AWS Secrets Manager, which the master reads.
    SecretsManager(AwsSecret),
}

/// A secret that AWS has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsSecret {
    /// Its name, or ARN.
    pub id: String,
    /// Its region; `None` = the cluster's, else that of the master's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl SecretSource {
    /// What the master itself has to read; `None` where the command line brings the value.
    pub fn of_master(&self) -> Option<&AwsSecret> {
        match self {
            Self::Ssm(at) | Self::SecretsManager(at) => Some(at),
            Self::Env(_) | Self::File(_) | Self::Command(_) => None,
        }
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

/// A secret that a run is given, as the records have it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSecret {
    /// What it is given as.
    pub given: SecretUse,
    /// `None` when the cluster has no such secret any more.
    pub sealed: Option<SealedSecret>,
}
