//! The text of a settings file: `master.toml`, and the settings of the last start, which the master writes itself. Reads no
//! file, and decides nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use aot_cluster_file::nearest;
use serde::{Deserialize, Serialize};

use crate::{FleetKeySetting, Settings, SettingsError};

pub(crate) const KEYS: [&str; 17] = [
    "listen",
    "advertise",
    "state_dir",
    "socket",
    "agent_dir",
    "keep_jobs",
    "keep_output",
    "keep_free",
    "store",
    "fleet_key",
    "peer_listen",
    "peer_advertise",
    "blobs",
    "attestation",
    "log",
    "log_format",
    "cluster",
];

/// One source of settings: flags, or a file. The fields are those of [`Settings`], as they are written there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Partial {
    pub(crate) listen: Option<String>,
    pub(crate) advertise: Option<TextOrList>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) agent_dir: Option<PathBuf>,
    /// `30d`: see `Settings::keep`.
    pub(crate) keep_jobs: Option<String>,
    /// `10GiB`: see `Settings::keep`.
    pub(crate) keep_output: Option<String>,
    /// `256MiB`: see `Settings::keep_free`.
    pub(crate) keep_free: Option<String>,
    pub(crate) store: Option<StoreUrl>,
    pub(crate) fleet_key: Option<PathBuf>,
    pub(crate) peer_listen: Option<String>,
    pub(crate) peer_advertise: Option<String>,
    /// `s3://bucket/prefix`: see `Settings::blobs`.
    pub(crate) blobs: Option<String>,
    pub(crate) log: Option<String>,
    /// `json`: see `Settings::log_format`.
    pub(crate) log_format: Option<String>,
    pub(crate) cluster: Option<String>,
    /// What is checked of machines that join.
    #[serde(skip_serializing_if = "PartialAttestation::is_unset")]
    pub(crate) attestation: PartialAttestation,
}

/// The URL of a database, which may have a password in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(pub String);

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl(..)")
    }
}

/// `[attestation]`, or `attestation.certificates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PartialAttestation {
    pub(crate) certificates: Option<PathBuf>,
}

impl PartialAttestation {
    fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// A list, or texts with commas between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TextOrList {
    /// `"a:1,b:2"`.
    One(String),
    /// `["a:1", "b:2"]`.
    Many(Vec<String>),
}

/// Settings of the last start, in the state folder: a master that comes back after a crash, a reboot or `shutdown` listens
/// where its machines look for it, whoever starts it and with whatever environment.
pub const LAST_START: &str = "settings.toml";

impl Settings {
    /// What the next start goes by where it is told nothing else, as the text of the file [`LAST_START`]. Where the state and
    /// the socket lie, the log's filter and format, and the cluster belong to each command instead.
    pub fn for_next_start(&self) -> String {
        let kept = Partial {
            listen: Some(self.listen.clone()),
            advertise: (!self.advertise.is_empty())
                .then(|| TextOrList::Many(self.advertise.clone())),
            agent_dir: self.agent_dir.clone(),
            keep_jobs: Some(humantime::format_duration(self.keep.age).to_string()),
            keep_output: Some(self.keep.output_bytes.to_string()),
            keep_free: self.keep_free.map(|bytes| bytes.to_string()),
            store: self.store.clone(),
            fleet_key: self.fleet_key.as_ref().map(FleetKeySetting::named),
            peer_listen: self.fleet_key.as_ref().map(|_| self.peer_listen.clone()),
            peer_advertise: self.peer_advertise.clone(),
            blobs: self.named_blobs.clone(),
            attestation: PartialAttestation {
                certificates: self.named_certificates.clone(),
            },
            ..Partial::default()
        };
        let text = toml::to_string(&kept).unwrap_or_default(); // plain texts and lists: nothing to fail on
        format!(
            "# Settings of the last start of the master, written by it. Flags, AOT_* and master.toml override them.\n{text}"
        )
    }
}

/// Reads the text of a settings file.
///
/// # Errors
/// Unknown keys, duplicate keys and wrong types, with their line.
pub(crate) fn parse_file(text: &str, path: &Path) -> Result<Partial, SettingsError> {
    let bad = |message| SettingsError::File {
        path: path.to_owned(),
        message,
    };
    let shown = |error: &toml::de::Error| match text.contains("store") {
        // It shows the line, and there may be a password in it.
        true => without_line(error, text),
        false => shown(error),
    };
    let whole: toml::Table = toml::from_str(text).map_err(|error| bad(shown(&error)))?;
    for key in whole.keys() {
        if !KEYS.contains(&key.as_str()) {
            let help = match nearest(key, KEYS.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known: {}", KEYS.join(", ")),
            };
            let line = text.lines().position(|line| {
                line.trim_start_matches(['[', ' '])
                    .starts_with(key.as_str())
            });
            let line = line.map_or(1, |line| line + 1);
            return Err(bad(format!("line {line}: unknown key {key:?} ({help})")));
        }
    }
    toml::from_str(text).map_err(|error| bad(shown(&error)))
}

/// Where and why, without what stands there.
fn without_line(error: &toml::de::Error, text: &str) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n');
    format!("line {}: {}", line.count() + 1, error.message())
}

fn shown(error: &toml::de::Error) -> String {
    error
        .to_string()
        .trim_end()
        .replace("TOML parse error at ", "")
}
