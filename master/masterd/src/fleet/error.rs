//! Why nothing was done for a fleet. Each error names the way out.

use std::path::PathBuf;

use aot_daemon::enrol::{ca, fleet_key, shared_keys};
use aot_store::blobs;
use aot_store::sqlite::export::PutFiles;

/// Why nothing, or not all, was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "AOT_STORE is not set: it names the database of the fleet, postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    NoStore,
    #[error(
        "AOT_FLEET_KEY is not set: it names the file of the fleet's key, which is made if there is none, or kms:KEY"
    )]
    NoFleetKey,
    #[error(
        "{} (AOT_FLEET_KEY) is not there, and the keys in {place} are sealed with it: copy it from the host of a master", path.display()
    )]
    KeyElsewhere { path: PathBuf, place: String },
    #[error(
        "AOT_BLOBS is not set, and {} has {} files (outputs over 64 KiB, bundles, agents, uploads; {} bytes) that are not in its records: set it, or leave them behind with --without-files",
        dir.display(), left.files, left.bytes
    )]
    FilesLeft { dir: PathBuf, left: PutFiles },
    #[error(
        "no master of {place} lives, so it is not known what all understand: start one{}",
        dead_ones(dead)
    )]
    NobodyLives { place: String, dead: Vec<String> },
    #[error(transparent)]
    Setting(#[from] aot_settings::SettingsError),
    #[error(transparent)]
    Key(#[from] fleet_key::FleetKeyError),
    #[error(transparent)]
    Keys(#[from] shared_keys::SharedKeysError),
    #[error(transparent)]
    Ca(#[from] ca::Error),
    #[error(transparent)]
    Daemon(#[from] aot_daemon::Error),
    #[error(transparent)]
    Postgres(#[from] aot_postgres::Error),
    #[error(transparent)]
    Store(#[from] aot_store::Error),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}

fn dead_ones(dead: &[String]) -> String {
    match dead.is_empty() {
        true => String::new(),
        false => format!(" (not seen to beat: {})", dead.join(", ")),
    }
}
