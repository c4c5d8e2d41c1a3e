//! Settings of the daemon, and of the commands that connect to it: flags, then `AOT_*`, then files, then defaults. Used by
//! both programs of the master before all else. Here the files are read; `merge` decides.

#![warn(unreachable_pub)]

mod blob_place;
mod check;
mod defaults;
mod error;
mod file;
mod fleet_key;
mod merge;
mod origins;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aot_cli::args::{Cli, Command, ListenArgs};
use aot_host::environment::{self, NotText};
use aot_host::log::LogFormat;
use aot_model::retention::RetentionLimits;

use defaults::{default_files, set};
use file::{Partial, PartialAttestation, TextOrList, parse_file};
use merge::merge;

pub use blob_place::BlobSetting;
pub use error::SettingsError;
pub use file::{LAST_START, StoreUrl};
pub use fleet_key::FleetKeySetting;
pub use origins::{SettingOrigin, SettingSource};

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
    /// What the masters of a fleet seal their keys with; `None` = this one is alone.
    pub fleet_key: Option<FleetKeySetting>,
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
    /// How a line of the log looks.
    pub log_format: LogFormat,
    /// Cluster that commands mean.
    pub cluster: Option<String>,
}

/// Reads the settings' files and merges: flags, `AOT_*` variables, the file of `--config` or else the user's and the
/// system's, defaults. `uid` is the effective user id. `again`: before the defaults come the settings of the last start,
/// see [`LAST_START`]; for a master in the background, which whoever needs one starts. With the files that were read.
///
/// # Errors
/// A file that was named but can't be read, unknown keys and wrong types with their line, values that make no sense.
fn load_all(
    flags: &Partial,
    config: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
    again: bool,
) -> Result<(Settings, Vec<(PathBuf, Partial)>), SettingsError> {
    let mut files = Vec::new();
    let named = config
        .map(Path::to_owned)
        .or_else(|| set(env, "AOT_CONFIG").map(PathBuf::from));
    let must_exist = named.is_some();
    for path in named.map_or_else(|| default_files(env, uid), |path| vec![path]) {
        files.extend(read_file(path, must_exist)?);
    }
    let merged = |files: &[(PathBuf, Partial)]| {
        let files: Vec<Partial> = files.iter().map(|(_, file)| file.clone()).collect();
        merge(flags, env, &files, uid)
    };
    let settings = merged(&files)?;
    let last = again.then(|| settings.state_dir.join(LAST_START));
    let last = last.map(|path| read_file(path, false)).transpose()?;
    match last.flatten() {
        None => Ok((settings, files)),
        Some(last) => {
            files.push(last);
            Ok((merged(&files)?, files))
        }
    }
}

/// A file's settings; `None` when it need not exist, and doesn't.
fn read_file(path: PathBuf, must_exist: bool) -> Result<Option<(PathBuf, Partial)>, SettingsError> {
    match fs::read_to_string(&path) {
        Ok(text) => {
            let file = parse_file(&text, &path)?;
            Ok(Some((path, file)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(source) => Err(SettingsError::Read { path, source }),
    }
}

/// [`load_all`] without its files.
fn load(
    flags: &Partial,
    config: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
    again: bool,
) -> Result<Settings, SettingsError> {
    load_all(flags, config, env, uid, again).map(|(settings, _)| settings)
}

fn listen_args(command: &Command) -> ListenArgs {
    match command {
        Command::Serve(args) => args.listen.clone(),
        Command::Launch(args) => args.listen.clone(),
        Command::Restart(args) => args.clone(),
        _ => ListenArgs::default(),
    }
}

/// What a command line says of settings.
fn flags_of(cli: &Cli) -> Partial {
    let listen = listen_args(&cli.command);
    Partial {
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
        log_format: None,
        cluster: cli.global.cluster.clone(),
    }
}

/// Does something that reads variables as `read` has them; the first that is not UTF-8 is what is wrong, whatever else is.
fn with_variables<T>(
    read: impl Fn(&str) -> Result<Option<String>, NotText>,
    work: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, SettingsError>,
) -> Result<T, SettingsError> {
    let wrong = OnceCell::new();
    let env = |name: &str| {
        read(name).unwrap_or_else(|error| {
            let _ = wrong.set(error); // the first one stays
            None
        })
    };
    let done = work(&env);
    wrong.into_inner().map_or(done, |error| Err(error.into()))
}

/// The settings of a command: its flags first, then the environment, then the files.
///
/// # Errors
/// A file that was named but can't be read, unknown keys and wrong types with their line, values that make no sense.
pub fn of_command_line(cli: &Cli) -> Result<Settings, SettingsError> {
    let again = matches!(&cli.command, Command::Serve(args) if args.background);
    let config = cli.global.config.as_deref();
    let uid = rustix::process::geteuid().as_raw();
    with_variables(environment::text, |env| {
        load(&flags_of(cli), config, env, uid, again)
    })
}

/// Every setting with where it comes from, as a master that is started in the background from here would have it.
///
/// # Errors
/// As [`of_command_line`].
pub fn origins_of_command_line(cli: &Cli) -> Result<Vec<SettingOrigin>, SettingsError> {
    let flags = flags_of(cli);
    let uid = rustix::process::geteuid().as_raw();
    let config = cli.global.config.as_deref();
    with_variables(environment::text, |env| {
        let (settings, files) = load_all(&flags, config, env, uid, true)?;
        Ok(origins::origins(&flags, env, &files, &settings))
    })
}
