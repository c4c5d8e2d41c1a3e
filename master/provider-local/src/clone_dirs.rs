//! The clones' folders on disk: makes, lists, changes and removes them. Never starts or signals a process. Blocks, so
//! the provider calls it on a blocking thread.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aot_model::hash::hex;
use aot_proto::ids::MachineId;
use aot_provider::token::hash_hex;
use aot_provider::{ClientToken, LaunchSpec, MachineState, tags};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::record::{self, Dirs, Ending, MachineFile, StateFile, load, save};
use crate::error::Error;
use crate::{address, control};

/// What a token stands for, written before anything is made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CloneBatch {
    cluster_uuid: String,
    token: ClientToken,
    members: Vec<String>,
}

/// Settings of the agent inside, as `/etc/aot/agent.toml`.
#[derive(Serialize)]
struct AgentToml<'a> {
    master: &'a [String],
    route: String,
    token: &'a str,
    machine_id: &'a str,
    provider: &'static str,
    boot_id_file: &'static str,
    ca_pem: &'a str,
}

/// A clone with what is known about it now.
pub(super) struct CloneState {
    pub file: MachineFile,
    pub state: MachineState,
    pub reason: String,
}

/// All clones below one state directory.
pub(super) struct CloneDirs {
    root: PathBuf,
    /// Held while a record is read, changed and written back.
    changing: Mutex<()>,
}

impl CloneDirs {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn dirs(&self, id: &MachineId) -> Dirs {
        Dirs(self.root.join("machines").join(id.as_str()))
    }

    /// Makes the batch's folders, or completes them; those that are whole are left alone.
    pub(crate) fn make(
        &self,
        spec: &LaunchSpec,
        token: &ClientToken,
    ) -> Result<Vec<MachineFile>, Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        make_dir(&self.root)?;
        self.intend(spec, token)?;
        let agent = self.store_agent(&spec.boot.agent_path)?;
        let mut taken: BTreeSet<_> = self
            .files()?
            .iter()
            .filter(|file| !is_done(file))
            .map(|file| file.address)
            .collect();
        let mut made = Vec::with_capacity(spec.members.len());
        for index in 0..spec.members.len() {
            let file = self.make_one(spec, token, index, &agent, &taken)?;
            taken.insert(file.address);
            made.push(file);
        }
        Ok(made)
    }

    /// Writes down what the token stands for, or checks that it is the same as before.
    fn intend(&self, spec: &LaunchSpec, token: &ClientToken) -> Result<(), Error> {
        let batch = CloneBatch {
            cluster_uuid: spec.cluster.uuid.clone(),
            token: token.clone(),
            members: spec
                .members
                .iter()
                .map(|member| member.name.to_string())
                .collect(),
        };
        let path = self.batch_path(&spec.cluster.uuid, token);
        match load::<CloneBatch>(&path)? {
            None => {
                make_dir(&self.root.join("batches"))?;
                Ok(save(&path, &batch)?)
            }
            Some(before) if before == batch => Ok(()),
            Some(_) => Err(Error::TokenMismatch),
        }
    }

    fn batch_path(&self, uuid: &str, token: &ClientToken) -> PathBuf {
        let name = hash_hex(&[Some(uuid), Some(&token.0)]);
        self.root.join("batches").join(format!("{name}.json"))
    }

    fn make_one(
        &self,
        spec: &LaunchSpec,
        token: &ClientToken,
        index: usize,
        agent: &Path,
        taken: &BTreeSet<std::net::Ipv4Addr>,
    ) -> Result<MachineFile, Error> {
        let member = &spec.members[index];
        let index = u32::try_from(index).map_err(|_| Error::TooMany)?;
        let id = address::machine_id(&spec.cluster.uuid, &token.0, index);
        let dirs = self.dirs(&id);
        if let Some(file) = load::<MachineFile>(&dirs.machine())? {
            return if file.ending.is_some() {
                Err(Error::TokenSpent(id))
            } else {
                Ok(file)
            };
        }
        make_dir(&dirs.0)?;
        let toml = AgentToml {
            master: &spec.boot.master,
            route: spec.boot.route.to_string(),
            token: &spec.boot.join_token,
            machine_id: id.as_str(),
            provider: "local",
            boot_id_file: "/etc/aot/boot_id",
            ca_pem: &spec.boot.ca_pem,
        };
        let toml = toml::to_string(&toml).map_err(io::Error::other)?;
        aot_host::files::write_atomic(&dirs.agent_toml(), toml.as_bytes(), 0o600)?;
        let _ = fs::remove_file(dirs.agent());
        fs::hard_link(agent, dirs.agent())?;
        let mut tags = tags::for_launch(spec, token);
        tags.insert(tags::NAME.into(), member.name.to_string());
        let file = MachineFile {
            address: address::choose(&id, taken).ok_or(Error::TooMany)?,
            id,
            cluster_uuid: spec.cluster.uuid.clone(),
            token: token.clone(),
            launch_index: index,
            name: member.name.clone(),
            hostname: member.hostname.clone(),
            masked: self.masked(),
            tags,
            launched_ms: aot_host::clock::unix_ms(),
            ending: None,
        };
        // Last: a folder without this file is half made.
        save(&dirs.machine(), &file)?;
        Ok(file)
    }

    /// The state directory as a whole, where this one is a folder of it.
    fn masked(&self) -> Vec<PathBuf> {
        let own = self
            .root
            .canonicalize()
            .unwrap_or_else(|_| self.root.clone());
        let whole = own
            .parent()
            .filter(|parent| own.ends_with("local") && parent.parent().is_some());
        vec![whole.map_or(own.clone(), Path::to_owned)]
    }

    /// One copy of each agent, by its hash; clones get links to it.
    fn store_agent(&self, path: &Path) -> Result<PathBuf, Error> {
        let bad = |source| Error::Agent {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(bad)?;
        let folder = self.root.join("agents");
        make_dir(&folder)?;
        let kept = folder.join(hex(digest::digest(&digest::SHA256, &bytes).as_ref()));
        if !kept.exists() {
            aot_host::files::write_atomic(&kept, &bytes, 0o755)?;
            fs::set_permissions(&kept, Permissions::from_mode(0o755))?;
        }
        Ok(kept)
    }

    /// Every record; a folder that is half made has none. Sweeps those that nobody needs to see any more.
    pub(crate) fn files(&self) -> Result<Vec<MachineFile>, Error> {
        let entries = match fs::read_dir(self.root.join("machines")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut files = Vec::new();
        for entry in entries {
            let dirs = Dirs(entry?.path());
            let Some(file) = load::<MachineFile>(&dirs.machine())? else {
                continue;
            };
            if record::expired(&file, aot_host::clock::unix_ms()) {
                remove_tree(&dirs.0)?;
                continue;
            }
            files.push(file);
        }
        files.sort_by(|a, b| {
            (a.launched_ms, &a.token, a.launch_index).cmp(&(
                b.launched_ms,
                &b.token,
                b.launch_index,
            ))
        });
        Ok(files)
    }

    /// A cluster's clones as they are now.
    pub(crate) fn of_cluster(&self, uuid: &str) -> Result<Vec<CloneState>, Error> {
        let files = self
            .files()?
            .into_iter()
            .filter(|file| file.cluster_uuid == uuid);
        files.map(|file| self.with_state(file)).collect()
    }

    /// Every clone as it is now, whoever's.
    pub(crate) fn all(&self) -> Result<Vec<CloneState>, Error> {
        self.files()?
            .into_iter()
            .map(|file| self.with_state(file))
            .collect()
    }

    /// One clone as it is now.
    pub(crate) fn with_state(&self, file: MachineFile) -> Result<CloneState, Error> {
        let dirs = self.dirs(&file.id);
        // In this order: a supervisor that ends in between leaves its last record behind.
        let supervised = control::find(&dirs)?.is_some();
        let state: Option<StateFile> = load(&dirs.state())?;
        let (state, reason) = record::state_now(&file, state.as_ref(), supervised);
        Ok(CloneState {
            file,
            state,
            reason,
        })
    }

    /// The record of one clone of a cluster.
    pub(crate) fn one(&self, uuid: &str, id: &MachineId) -> Result<MachineFile, Error> {
        load::<MachineFile>(&self.dirs(id).machine())?
            .filter(|file| file.cluster_uuid == uuid)
            .ok_or_else(|| Error::Unknown(id.clone()))
    }

    /// Changes one record.
    pub(crate) fn change(
        &self,
        uuid: &str,
        id: &MachineId,
        change: impl FnOnce(&mut MachineFile),
    ) -> Result<(), Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.one(uuid, id)?;
        change(&mut file);
        Ok(save(&self.dirs(id).machine(), &file)?)
    }

    /// Deletes everything of a clone but its record, then says there that it is gone.
    pub(crate) fn remove(&self, uuid: &str, id: &MachineId) -> Result<(), Error> {
        let dirs = self.dirs(id);
        for entry in fs::read_dir(&dirs.0)? {
            let path = entry?.path();
            if path != dirs.machine() {
                remove_tree(&path)?;
            }
        }
        self.change(uuid, id, |file| {
            file.ending = Some(Ending::Done(aot_host::clock::unix_ms()))
        })
    }

    /// Forgets a clone that is gone.
    pub(crate) fn forget(&self, file: &MachineFile) -> Result<(), Error> {
        remove_tree(&self.dirs(&file.id).0)?;
        let batch = self.batch_path(&file.cluster_uuid, &file.token);
        match fs::remove_file(batch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn is_done(file: &MachineFile) -> bool {
    matches!(file.ending, Some(Ending::Done(_)))
}

/// A folder that only its owner may look into.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a file or a folder with all below, if there is one. What is mounted there is left alone.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match aot_host::removal::remove_tree(path) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
