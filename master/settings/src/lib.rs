//! Settings of the daemon, and of the commands that connect to it: flags, then `AOT_*`, then files, then defaults. Used by
//! both programs of the master before all else. Here the files are read; `merge` decides.

#![warn(unreachable_pub)]

mod blob_place;
mod check;
mod defaults;
mod error;
mod file;
mod merge;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aot_cli::args::{Cli, Command, ListenArgs};
use aot_model::retention::RetentionLimits;

use defaults::{default_files, set};
use file::{Partial, PartialAttestation, TextOrList, parse_file};
use merge::merge;

pub use blob_place::BlobSetting;
pub use error::SettingsError;
pub use file::{LAST_START, StoreUrl};

/// Agents' port when nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:7440";

/// Masters' port when nothing else is said.
const DEFAULT_PEER_LISTEN: &str = "0.0.0.0:7441";

/// What the daemon and its commands go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of the agents' port; port 0 = any.
    pub listen: String,
    /// What agents dial, `host:port` each; empty = the address that `listen` was bound to.
    pub advertise: Vec<String>,
    /// Where the store, logs and bundles lie.
    pub state_dir: PathBuf,
    /// Where long things are put, besides the state folder; `None` = nowhere.
    pub blobs: Option<BlobSetting>,
    /// The same as it was said.
    pub named_blobs: Option<String>,
    /// Operators' unix socket.
    pub socket: PathBuf,
    /// Where the agents that are handed out lie; `None` = beside the executable.
    pub agent_dir: Option<PathBuf>,
    /// How long jobs, and how much of what they printed, are kept.
    pub keep: RetentionLimits,
    /// Bytes of the state's disk that are to stay free; `None` = the default.
    pub keep_free: Option<u64>,
    /// Database of the records; `None` = a file in the state folder.
    pub store: Option<StoreUrl>,
    /// File with the key that the masters of a fleet seal their keys with; `None` = this one is alone.
    pub fleet_key: Option<PathBuf>,
    /// `host:port` of the port for other masters, which only a master with a fleet key has; port 0 = any.
    pub peer_listen: String,
    /// What other masters dial, `host:port`; `None` = the address that `peer_listen` was bound to.
    pub peer_advertise: Option<String>,
    /// Folders with AWS's certificates for identity documents, `REGION.pem` each, the strongest first; `attestation import`
    /// writes to the first.
    pub certificates: Vec<PathBuf>,
    /// The one of them that was named, if any was.
    pub named_certificates: Option<PathBuf>,
    /// Log filter.
    pub log: Option<String>,
    /// Cluster that commands mean.
    pub cluster: Option<String>,
}

/// Reads the settings' files and merges: flags, `AOT_*` variables, the file of `--config` or else the user's and the
/// system's, defaults. `uid` is the effective user id. `again`: before the defaults come the settings of the last start,
/// see [`LAST_START`]; for a master in the background, which whoever needs one starts.
///
/// # Errors
/// A file that was named but can't be read, unknown keys and wrong types with their line, values that make no sense.
fn load(
    flags: &Partial,
    config: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
    again: bool,
) -> Result<Settings, SettingsError> {
    let mut files = Vec::new();
    let named = config
        .map(Path::to_owned)
        .or_else(|| set(env, "AOT_CONFIG").map(PathBuf::from));
    let must_exist = named.is_some();
    let paths = named.map_or_else(|| default_files(env, uid), |path| vec![path]);
    for path in paths {
        match fs::read_to_string(&path) {
            Ok(text) => files.push(parse_file(&text, &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Err(source) => return Err(SettingsError::Read { path, source }),
        }
    }
    let settings = merge(flags, env, &files, uid)?;
    if !again {
        return Ok(settings);
    }
    let last = settings.state_dir.join(LAST_START);
    match fs::read_to_string(&last) {
        Ok(text) => files.push(parse_file(&text, &last)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(settings),
        Err(source) => return Err(SettingsError::Read { path: last, source }),
    }
    merge(flags, env, &files, uid)
}

fn listen_args(command: &Command) -> ListenArgs {
    match command {
        Command::Serve(args) => args.listen.clone(),
        Command::Launch(args) => args.listen.clone(),
        Command::Restart(args) => args.clone(),
        _ => ListenArgs::default(),
    }
}

/// The settings of a command: its flags first, then the environment, then the files.
///
/// # Errors
/// A file that was named but can't be read, unknown keys and wrong types with their line, values that make no sense.
pub fn of_command_line(cli: &Cli) -> Result<Settings, SettingsError> {
    let listen = listen_args(&cli.command);
    let flags = Partial {
        listen: listen.listen,
        advertise: (!listen.advertise.is_empty()).then_some(TextOrList::Many(listen.advertise)),
        state_dir: cli.global.state_dir.clone(),
        socket: cli.global.socket.clone(),
        agent_dir: listen.agent_dir,
        keep_jobs: listen.keep_jobs,
        keep_output: listen.keep_output,
        keep_free: listen.keep_free,
        store: None, // a command line is shown to everybody on its host
        fleet_key: None,
        peer_listen: None, // they go with the fleet's key, which has no flag either
        peer_advertise: None,
        blobs: None,
        attestation: PartialAttestation::default(),
        log: None,
        cluster: cli.global.cluster.clone(),
    };
    let uid = rustix::process::geteuid().as_raw();
    load(
        &flags,
        cli.global.config.as_deref(),
        &|name| std::env::var(name).ok(),
        uid,
        matches!(&cli.command, Command::Serve(args) if args.background),
    )
}
