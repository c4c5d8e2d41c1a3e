//! Whose the settings and the state on this disk are. An image that was made of a running machine brings that machine's
//! settings, identity, journal and cluster facts along. The machine that is made of it must not speak for that one: it
//! waits for settings of its own, sets aside what it found, takes the other cluster's peers out of its files, and enrols as
//! itself. Called by the service, before anything is served or dialled.
//!
//! Host keys are renewed by cloud-init; root's own key pair stays, since an existing key is never replaced: an image is as
//! secret as the keys in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::files::{shut_dir, sync_dir, trimmed, write_atomic};
use aot_host::removal::remove_tree;
use aot_proto::ids::MachineId;
use tokio::time::{Instant, sleep};

use crate::boot_id::boot_id;
use crate::cluster_facts;
use crate::config::{Config, Platform};
use crate::identity::Vault;
use crate::imds::{self, Imds};
use crate::session::paths;

/// How long the metadata service is asked at the first start after a boot, before the settings are believed.
const ASKED: Duration = Duration::from_secs(120);
/// Between two questions to it, and between two readings of settings that are another machine's.
const AGAIN: Duration = Duration::from_secs(2);

/// Holds the machine's id and the boot during which it was found out.
const MACHINE: &str = "machine";
/// Holds what was found of other machines, a folder each.
const FORMER: &str = "former";
/// Named by its content: of use to any machine.
const BUNDLES: &str = "bundles";
/// What says whose the rest is: goes last.
const IDENTITY: &str = "identity.pem";

/// What belongs to another machine and can't be set aside.
#[derive(Debug, thiserror::Error)]
#[error("cannot set aside {}, which belongs to machine {owner}", path.display())]
pub(crate) struct Error {
    path: PathBuf,
    owner: String,
    source: io::Error,
}

/// The settings, with the id of this very machine in them; waits for as long as they are those of another.
pub(crate) async fn own_settings(mut config: Config) -> Config {
    if config.provider == Platform::Local {
        return config;
    }
    let named = config.machine_id.clone();
    let boot = boot_id(config.boot_id_file.as_deref());
    if named.is_some() && named == recorded_this_boot(&config.state_dir, &boot) {
        // An image is never booted within the boot that it was made in.
        return config;
    }
    let Some(machine) = ask(&config.imds, named.is_some()).await else {
        return config;
    };
    let mut warned = false;
    while config
        .machine_id
        .as_ref()
        .is_some_and(|named| *named != machine)
    {
        if !warned {
            tracing::warn!(
                settings = %config.file.display(),
                of = config.machine_id,
                machine,
                "cannot enrol yet: the settings are those of another machine; waiting for this one's"
            );
            warned = true;
        }
        sleep(AGAIN).await;
        match Config::read(&config.file) {
            Ok(new) => config = new,
            // They may be on their way.
            Err(error) => tracing::debug!(error = %Chain(&error), "no settings"),
        }
    }
    config.machine_id = Some(machine);
    config
}

/// What the metadata service calls this machine. When the settings name it too, the service is asked for two minutes only.
async fn ask(base: &str, is_named: bool) -> Option<String> {
    let give_up = Instant::now() + ASKED;
    let mut warned = false;
    loop {
        let error = match instance_id(base).await {
            Ok(id) => return Some(id),
            Err(error) => error,
        };
        if is_named && Instant::now() >= give_up {
            tracing::warn!(error = %Chain(&error), "the metadata service does not answer; using the settings");
            return None;
        }
        if !warned {
            tracing::warn!(error = %Chain(&error), "the metadata service does not say yet which machine this is");
            warned = true;
        }
        sleep(AGAIN).await;
    }
}

async fn instance_id(base: &str) -> Result<String, imds::Error> {
    let imds = Imds::open(base).await?;
    let id = imds.get("/latest/meta-data/instance-id").await?;
    Ok(id.trim().to_owned())
}

/// Makes the state folder that of the machine that `config` names: what was another's is set aside, and this one is recorded.
/// Returns whose it was. Safe to repeat after a cut: what says whose it is goes last.
///
/// # Errors
/// When something of another machine can't be set aside: then nothing may be served.
pub(crate) fn claim(config: &Config, vault: &Vault) -> Result<Option<String>, Error> {
    let Some(machine) = &config.machine_id else {
        return Ok(None);
    };
    let state = &config.state_dir;
    let owner = vault.machine().or_else(|| recorded_machine(state));
    let other = owner.filter(|owner| owner != machine);
    if let Some(owner) = &other {
        if let Some(cluster) = vault.cluster()
            && let Err(error) = cluster_facts::withdraw(&paths(config), &cluster)
        {
            tracing::warn!(error = %Chain(&error), cluster, "peers of another machine's cluster may still be trusted");
        }
        set_aside(state, owner)?;
    }
    record(state, machine, &boot_id(config.boot_id_file.as_deref()));
    Ok(other)
}

/// Moves all that is in the state folder below `former/OWNER`.
fn set_aside(state: &Path, owner: &str) -> Result<(), Error> {
    let name = owner
        .parse::<MachineId>()
        .map_or("unknown".to_owned(), |id| id.to_string());
    let target = state.join(FORMER).join(name);
    let at = |path: &Path| {
        let (path, owner) = (path.to_owned(), owner.to_owned());
        move |source| Error {
            path,
            owner,
            source,
        }
    };
    if !target.join(UNFINISHED).exists() {
        match remove_tree(&target) {
            Err(error) if !error.is_not_found() => return Err(at(&target)(error.into())),
            _ => {}
        }
    }
    shut_dir(&state.join(FORMER)).map_err(at(&target))?;
    shut_dir(&target).map_err(at(&target))?;
    fs::write(target.join(UNFINISHED), "").map_err(at(&target))?;
    let entries = fs::read_dir(state).map_err(at(state))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name != FORMER && name != BUNDLES);
    names.sort_by_key(|name| (name == IDENTITY, name == MACHINE));
    for name in names {
        let from = state.join(&name);
        fs::rename(&from, target.join(&name)).map_err(at(&from))?;
        // In this order also after a power cut.
        sync_dir(state).map_err(at(&from))?;
    }
    fs::remove_file(target.join(UNFINISHED)).map_err(at(&target))
}

/// Is there while a folder of a former machine is being filled.
const UNFINISHED: &str = ".aot-unfinished";

/// Records which machine this is. Without it the next start asks the metadata service once more.
fn record(state: &Path, machine: &str, boot: &str) {
    let text = format!("{machine} {boot}\n");
    let path = state.join(MACHINE);
    if trimmed(&path).as_deref() == Some(text.trim()) {
        return;
    }
    if let Err(error) = write_atomic(&path, text.as_bytes(), 0o600) {
        tracing::warn!(error = %Chain(&error), path = %path.display(), "cannot record which machine this is");
    }
}

fn recorded_machine(state: &Path) -> Option<String> {
    let text = trimmed(&state.join(MACHINE))?;
    Some(text.split_once(' ')?.0.to_owned())
}

/// The machine's id, where it was found out during this boot.
fn recorded_this_boot(state: &Path, boot: &str) -> Option<String> {
    let text = trimmed(&state.join(MACHINE))?;
    let (machine, of) = text.split_once(' ')?;
    (of == boot).then(|| machine.to_owned())
}

#[cfg(test)]
mod tests;
