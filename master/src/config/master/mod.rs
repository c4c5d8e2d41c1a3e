//! Settings of the daemon, and of the commands that look for it: flags, then `AOT_*`, then files, then defaults.
//! `merge` decides and reads nothing; `load` reads the files.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::record::nearest;
use crate::model::retention::Limits;

/// Agents' port when nothing else is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7440";
/// For all users of this machine.
const SYSTEM_FILE: &str = "/etc/aot/master.toml";
/// Longest path of a unix socket (unix(7): sun_path has 108 bytes, the last is NUL).
const MAX_SOCKET_PATH: usize = 107;
const KEYS: [&str; 9] = [
    "listen",
    "advertise",
    "state_dir",
    "socket",
    "agent_dir",
    "keep_jobs",
    "keep_output",
    "log",
    "cluster",
];

/// What the daemon and its commands go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of the agents' port; port 0 = any.
    pub listen: String,
    /// What agents dial, `host:port` each; empty = the address that `listen` was bound to.
    pub advertise: Vec<String>,
    /// Where the store, logs and bundles lie.
    pub state_dir: PathBuf,
    /// Operators' unix socket.
    pub socket: PathBuf,
    /// Where the agents that are handed out lie; `None` = beside the executable.
    pub agent_dir: Option<PathBuf>,
    /// How long jobs, and how much of what they printed, are kept.
    pub keep: Limits,
    /// Log filter.
    pub log: Option<String>,
    /// Cluster that commands mean.
    pub cluster: Option<String>,
}

/// One source of settings: flags, or a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Partial {
    /// See `Settings`.
    pub listen: Option<String>,
    /// See `Settings`.
    pub advertise: Option<OneOrMany>,
    /// See `Settings`.
    pub state_dir: Option<PathBuf>,
    /// See `Settings`.
    pub socket: Option<PathBuf>,
    /// See `Settings`.
    pub agent_dir: Option<PathBuf>,
    /// `30d`: see `Settings::keep`.
    pub keep_jobs: Option<String>,
    /// `10GiB`: see `Settings::keep`.
    pub keep_output: Option<String>,
    /// See `Settings`.
    pub log: Option<String>,
    /// See `Settings`.
    pub cluster: Option<String>,
}

/// A list, or texts with commas between.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `"a:1,b:2"`.
    One(String),
    /// `["a:1", "b:2"]`.
    Many(Vec<String>),
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file says something wrong.
    #[error("cannot use {}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What, with its line.
        message: String,
    },
    /// A value makes no sense.
    #[error("{from} is {value:?}: {why}")]
    Value {
        /// Flag, variable or key.
        from: String,
        /// What was given.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Nothing says where the state is to lie.
    #[error("cannot tell where {what} is to be: neither {tried} is set")]
    NoHome {
        /// state dir or socket.
        what: &'static str,
        /// What was looked for.
        tried: &'static str,
    },
}

/// Reads the settings' files and merges: flags, `AOT_*` variables, the file of `--config` or else the user's and the
/// system's, defaults. `uid` is the effective user id.
///
/// # Errors
/// A file that was named but can't be read, unknown keys and wrong types with their line, values that make no sense.
pub fn load(
    flags: &Partial,
    config: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
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
    merge(flags, env, &files, uid)
}

/// The files that are read when none is named, strongest first: the user's own goes before the system's.
pub fn default_files(env: &dyn Fn(&str) -> Option<String>, uid: u32) -> Vec<PathBuf> {
    let home = || set(env, "HOME").map(|home| Path::new(&home).join(".config"));
    let user = set(env, "XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .map(|dir| dir.join("aot/master.toml"));
    let user = user.filter(|_| uid != 0);
    user.into_iter()
        .chain([PathBuf::from(SYSTEM_FILE)])
        .collect()
}

/// Reads the text of a settings file.
///
/// # Errors
/// Unknown keys, duplicate keys and wrong types, with their line.
pub fn parse_file(text: &str, path: &Path) -> Result<Partial, SettingsError> {
    let bad = |message| SettingsError::File {
        path: path.to_owned(),
        message,
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

fn shown(error: &toml::de::Error) -> String {
    error
        .to_string()
        .trim_end()
        .replace("TOML parse error at ", "")
}

/// Decides every setting. `files` are the settings of files, strongest first. Empty variables count as not set.
///
/// # Errors
/// Values that make no sense, and no place for state or socket.
pub fn merge(
    flags: &Partial,
    env: &dyn Fn(&str) -> Option<String>,
    files: &[Partial],
    uid: u32,
) -> Result<Settings, SettingsError> {
    let text = |pick: fn(&Partial) -> &Option<String>, variable: &str| {
        let file = || files.iter().find_map(|file| pick(file).clone());
        pick(flags)
            .clone()
            .or_else(|| set(env, variable))
            .or_else(file)
    };
    let path = |pick: fn(&Partial) -> &Option<PathBuf>, variable: &str| {
        let file = || files.iter().find_map(|file| pick(file).clone());
        pick(flags)
            .clone()
            .or_else(|| set(env, variable).map(PathBuf::from))
            .or_else(file)
    };
    let file_advertise = || files.iter().find_map(|file| file.advertise.clone());
    let from_env = || set(env, "AOT_ADVERTISE").map(OneOrMany::One);
    let advertise = flags
        .advertise
        .clone()
        .or_else(from_env)
        .or_else(file_advertise);
    let state_dir = match path(|from| &from.state_dir, "AOT_STATE_DIR") {
        Some(dir) => dir,
        None => default_state_dir(env, uid)?,
    };
    let settings = Settings {
        listen: text(|from| &from.listen, "AOT_LISTEN")
            .unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
        advertise: advertise.map(addresses).unwrap_or_default(),
        socket: path(|from| &from.socket, "AOT_SOCKET")
            .unwrap_or_else(|| default_socket(env, uid, &state_dir)),
        state_dir,
        agent_dir: path(|from| &from.agent_dir, "AOT_AGENT_DIR"),
        keep: keep(
            text(|from| &from.keep_jobs, "AOT_KEEP_JOBS"),
            text(|from| &from.keep_output, "AOT_KEEP_OUTPUT"),
        )?,
        log: text(|from| &from.log, "AOT_LOG"),
        cluster: text(|from| &from.cluster, "AOT_CLUSTER"),
    };
    check(&settings)?;
    Ok(settings)
}

fn keep(age: Option<String>, output: Option<String>) -> Result<Limits, SettingsError> {
    let mut limits = Limits::default();
    let bad = |from: &str, value: String, why| SettingsError::Value {
        from: from.to_owned(),
        value,
        why,
    };
    if let Some(text) = age {
        limits.age = humantime::parse_duration(&text).map_err(|_| {
            bad(
                "AOT_KEEP_JOBS (--keep-jobs, keep_jobs)",
                text,
                "a time is wanted: 30d, 12h",
            )
        })?;
    }
    if let Some(text) = output {
        let size = text.parse::<bytesize::ByteSize>();
        limits.output_bytes = size
            .map_err(|_| {
                bad(
                    "AOT_KEEP_OUTPUT (--keep-output, keep_output)",
                    text,
                    "a size is wanted: 10GiB, 500MiB",
                )
            })?
            .as_u64();
    }
    Ok(limits)
}

/// A variable that is set to something.
fn set(env: &dyn Fn(&str) -> Option<String>, variable: &str) -> Option<String> {
    env(variable).filter(|value| !value.is_empty())
}

fn addresses(given: OneOrMany) -> Vec<String> {
    let all = match given {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    let parts = all
        .iter()
        .flat_map(|text| text.split(','))
        .map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

fn default_state_dir(
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
) -> Result<PathBuf, SettingsError> {
    if uid == 0 {
        return Ok(PathBuf::from("/var/lib/aot"));
    }
    let home = || set(env, "HOME").map(|home| Path::new(&home).join(".local/state"));
    let base = set(env, "XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let none = SettingsError::NoHome {
        what: "the state dir",
        tried: "AOT_STATE_DIR, XDG_STATE_HOME nor HOME",
    };
    base.map(|base| base.join("aot")).ok_or(none)
}

/// Without a runtime folder of its own, a user's socket lies in the state dir, which is as private.
fn default_socket(env: &dyn Fn(&str) -> Option<String>, uid: u32, state_dir: &Path) -> PathBuf {
    if uid == 0 {
        return PathBuf::from("/run/aot/master.sock");
    }
    match set(env, "XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("aot/master.sock"),
        None => state_dir.join("master.sock"),
    }
}

fn check(settings: &Settings) -> Result<(), SettingsError> {
    let bad = |from: &str, value: String, why| {
        Err(SettingsError::Value {
            from: from.to_owned(),
            value,
            why,
        })
    };
    if !is_address(&settings.listen, 0) {
        return bad(
            "listen",
            settings.listen.clone(),
            "host:port is wanted, as in 0.0.0.0:7440",
        );
    }
    if let Some(wrong) = settings
        .advertise
        .iter()
        .find(|address| !is_address(address, 1))
    {
        return bad(
            "advertise",
            wrong.clone(),
            "host:port is wanted, as in 10.0.0.5:7440",
        );
    }
    for (from, path) in [
        ("state_dir", &settings.state_dir),
        ("socket", &settings.socket),
    ] {
        if !path.is_absolute() && path.as_os_str().is_empty() {
            return bad(from, String::new(), "a path is wanted");
        }
    }
    if settings.socket.as_os_str().len() > MAX_SOCKET_PATH {
        let value = settings.socket.display().to_string();
        return bad("socket", value, "a socket's path has 107 bytes at most");
    }
    Ok(())
}

/// `host:port`, `[v6]:port`; the port from `lowest` on.
fn is_address(text: &str, lowest: u16) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_good = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ', '[', ']']),
    };
    host_good && port.parse::<u16>().is_ok_and(|port| port >= lowest)
}
