//! Where things lie when nothing says so: for root the system's folders, for a user those of the XDG base directories. Reads
//! variables, no files.

use std::path::{Path, PathBuf};

use crate::SettingsError;

/// For all users of this machine.
const SYSTEM_FILE: &str = "/etc/aot/master.toml";
/// AWS's certificates for identity documents, of all users of this machine.
const SYSTEM_CERTIFICATES: &str = "/etc/aot/aws-certificates";
/// Those that a package brings.
const PACKAGED_CERTIFICATES: &str = "/usr/share/aot/aws-certificates";

/// The files that are read when none is named, strongest first: the user's own goes before the system's.
pub(crate) fn default_files(env: &dyn Fn(&str) -> Option<String>, uid: u32) -> Vec<PathBuf> {
    let user = own_dir(env, uid).map(|dir| dir.join("master.toml"));
    user.into_iter()
        .chain([PathBuf::from(SYSTEM_FILE)])
        .collect()
}

/// The one that is named, else the user's own and the system's; then the one that the package brings.
pub(crate) fn certificate_folders(
    named: Option<PathBuf>,
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = named.clone().into_iter().collect();
    if named.is_none() {
        let own = own_dir(env, uid);
        folders.extend(own.map(|dir| dir.join("aws-certificates")));
        folders.push(PathBuf::from(SYSTEM_CERTIFICATES));
    }
    folders.push(PathBuf::from(PACKAGED_CERTIFICATES));
    folders
}

/// The folder of a user's own settings; root's are the system's.
fn own_dir(env: &dyn Fn(&str) -> Option<String>, uid: u32) -> Option<PathBuf> {
    if uid == 0 {
        return None;
    }
    let home = || set(env, "HOME").map(|home| Path::new(&home).join(".config"));
    let base = set(env, "XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    base.map(|dir| dir.join("aot"))
}

/// A variable that is set to something.
pub(crate) fn set(env: &dyn Fn(&str) -> Option<String>, variable: &str) -> Option<String> {
    env(variable).filter(|value| !value.is_empty())
}

pub(crate) fn default_state_dir(
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
pub(crate) fn default_socket(
    env: &dyn Fn(&str) -> Option<String>,
    uid: u32,
    state_dir: &Path,
) -> PathBuf {
    if uid == 0 {
        return PathBuf::from("/run/aot/master.sock");
    }
    match set(env, "XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("aot/master.sock"),
        None => state_dir.join("master.sock"),
    }
}
