//! Making, changing and removing clones: what a call of the provider does on this host. Blocks only on threads for that.

use std::io;
use std::path::Path;

use aot_host::chain::Chain;
use aot_proto::ids::MachineId;
use aot_provider::{
    ClientToken, LaunchSpec, Leftovers, Lifecycle, Machine, MachineState, Problem, ProviderError,
    Receipt,
};
use futures::future::join_all;
use rustix::process::Signal;

use crate::clone_dirs::{CloneDirs, CloneState};
use crate::control::{self, END_LIMIT, Supervised};
use crate::error::Error;
use crate::record::{Ending, MachineFile};
use crate::{LocalProvider, probe, supervisor};

impl LocalProvider {
    pub(crate) async fn launch_all(
        &self,
        spec: &LaunchSpec,
        token: &ClientToken,
    ) -> Result<Vec<Machine>, ProviderError> {
        let (owned, own_token) = (spec.clone(), token.clone());
        let made = self
            .blocking(move |clones| clones.make(&owned, &own_token))
            .await
            .map_err(|error| error.into_provider(Leftovers::Unknown))?;
        let started = join_all(made.iter().map(|file| self.first_start(file))).await;
        for result in started {
            result.map_err(|error| error.into_provider(Leftovers::Some))?;
        }
        tracing::info!(machines = made.len(), cluster = %spec.cluster.name, "local machines launched");
        let seen = move |clones: &CloneDirs| {
            made.into_iter()
                .map(|file| clones.with_state(file).map(shown))
                .collect()
        };
        let result: Result<Vec<Machine>, Error> = self.blocking(seen).await;
        result.map_err(|error| error.into_provider(Leftovers::Some))
    }

    /// Starts a clone that never was up; one that was is left as it is.
    async fn first_start(&self, file: &MachineFile) -> Result<(), Error> {
        if self.clones.dirs(&file.id).prepared().exists() {
            return Ok(());
        }
        self.start(file).await
    }

    async fn start(&self, file: &MachineFile) -> Result<(), Error> {
        if file.ending.is_some() {
            return Err(Error::Terminated(file.id.clone()));
        }
        let dirs = self.clones.dirs(&file.id);
        control::start(&self.exe, &dirs)
            .await
            .map_err(|why| Error::Start {
                id: file.id.clone(),
                name: file.name.clone(),
                why,
            })
    }

    /// The clones of a cluster as they are now. An end that an earlier master had begun, and did not live to see, is brought
    /// about first: whoever listed the clone meanwhile waits for it, and asks no more.
    pub(crate) async fn of_cluster(&self, uuid: &str) -> Result<Vec<CloneState>, Error> {
        let own_uuid = uuid.to_owned();
        let list = move |clones: &CloneDirs| clones.of_cluster(&own_uuid);
        let seen = self.blocking(list.clone()).await?;
        let is_begun = |it: &&CloneState| it.file.ending == Some(Ending::Begun);
        let begun: Vec<MachineId> = seen
            .iter()
            .filter(is_begun)
            .map(|it| it.file.id.clone())
            .collect();
        // What is changed at this moment is ended by whoever changes it.
        let Ok(_one_at_a_time) = self.changing.try_lock() else {
            return Ok(seen);
        };
        if begun.is_empty() {
            return Ok(seen);
        }
        for id in begun {
            let ended = self.change_one(uuid, Lifecycle::Terminate, &id).await;
            if let Err(error) = ended {
                tracing::warn!(machine = %id, error = %Chain(&error), "cannot end a machine whose end had begun; will try again");
            }
        }
        self.blocking(list).await
    }

    pub(crate) async fn change_one(
        &self,
        uuid: &str,
        action: Lifecycle,
        id: &MachineId,
    ) -> Result<(), Error> {
        let (own_uuid, own_id) = (uuid.to_owned(), id.clone());
        let seen = self
            .blocking(move |clones| clones.with_state(clones.one(&own_uuid, &own_id)?))
            .await?;
        tracing::info!(machine = %id, ?action, state = %seen.state, "local machine asked to change");
        let (own_uuid, own_id) = (uuid.to_owned(), id.clone());
        match action {
            Lifecycle::Terminate => {
                self.blocking(move |clones| terminate(clones, &own_uuid, &own_id))
                    .await
            }
            Lifecycle::Stop => {
                self.blocking(move |clones| end(clones, &own_id, Signal::TERM))
                    .await
            }
            Lifecycle::Start => {
                if seen.state == MachineState::Stopping {
                    self.blocking(move |clones| end(clones, &own_id, Signal::TERM))
                        .await?;
                }
                self.start(&seen.file).await
            }
            Lifecycle::Reboot if seen.state == MachineState::Stopped => {
                self.start(&seen.file).await
            }
            Lifecycle::Reboot => {
                self.blocking(move |clones| match control::find(&clones.dirs(&own_id))? {
                    Some(supervised) => Ok(supervised.signal(Signal::HUP)?),
                    None => Err(Error::Terminated(own_id)),
                })
                .await
            }
        }
    }

    pub(crate) async fn probe(&self) -> Option<Problem> {
        // Its own folder, also for a second preflight at the same time; on the disk that the clones will use.
        let folder = self
            .clones
            .root()
            .join(format!(".probe-{}", ulid::Ulid::generate()));
        let (name, value) = supervisor::probe_env();
        let mut command = tokio::process::Command::new(&self.exe);
        command.arg("machine-run").arg(&folder).env(name, value);
        let error = control::run(command).await.err()?;
        let root = rustix::process::geteuid().is_root();
        let setting = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
        Some(probe::problem(&error, root, self.clones.root(), setting))
    }

    pub(crate) async fn clean(&self, uuid: String) -> Result<Vec<Receipt>, Error> {
        self.blocking(move |clones| {
            let mut receipts = Vec::new();
            for seen in clones.of_cluster(&uuid)? {
                let id = seen.file.id.to_string();
                let left = seen.state != MachineState::Terminated;
                receipts.push(Receipt {
                    kind: "instance".into(),
                    id: id.clone(),
                    state: seen.state.to_string(),
                    left,
                });
                if !left {
                    clones.forget(&seen.file)?;
                }
                let state = if left {
                    "kept: its machine is not terminated"
                } else {
                    "deleted"
                };
                receipts.push(Receipt {
                    kind: "disk".into(),
                    id,
                    state: state.into(),
                    left,
                });
            }
            Ok(receipts)
        })
        .await
    }
}

/// As the trait shows it.
pub(crate) fn shown(seen: CloneState) -> Machine {
    seen.file.to_machine(seen.state, seen.reason)
}

/// Ends a clone's supervisor, and with it the clone; done when there is none.
fn end(clones: &CloneDirs, id: &MachineId, signal: Signal) -> Result<(), Error> {
    let Some(supervised) = control::find(&clones.dirs(id))? else {
        return Ok(());
    };
    let ended = |signal, supervised: &Supervised| -> io::Result<bool> {
        supervised.signal(signal)?;
        supervised.wait(END_LIMIT)
    };
    if ended(signal, &supervised)? || ended(Signal::KILL, &supervised)? {
        return Ok(());
    }
    Err(Error::Stuck(id.clone()))
}

/// Intent first: a supervisor that starts meanwhile sees it after it has taken the lock, or is found by `end`.
fn terminate(clones: &CloneDirs, uuid: &str, id: &MachineId) -> Result<(), Error> {
    if matches!(clones.one(uuid, id)?.ending, Some(Ending::Done(_))) {
        return Ok(());
    }
    clones.change(uuid, id, |file| file.ending = Some(Ending::Begun))?;
    end(clones, id, Signal::INT)?;
    clones.remove(uuid, id)
}

#[cfg(test)]
mod tests {
    use aot_provider::{ClusterRef, Provider};

    use super::*;
    use crate::LocalProvider;

    #[tokio::test]
    async fn an_end_that_an_earlier_master_had_begun_is_brought_about() {
        let root = tempfile::tempdir().expect("a folder");
        let id: MachineId = "local-1".parse().expect("an id");
        let dir = root.path().join("machines").join(id.as_str());
        std::fs::create_dir_all(&dir).expect("makes");
        let record = r#"{"id": "local-1", "cluster_uuid": "u", "token": "t", "launch_index": 0, "name": "web1",
            "hostname": "web1", "address": "127.77.1.2", "masked": [], "tags": {}, "launched_ms": 5, "ending": "begun"}"#;
        std::fs::write(dir.join("machine.json"), record).expect("writes");
        let provider = LocalProvider::new(root.path().to_owned());
        let cluster = ClusterRef {
            name: "c".parse().expect("a name"),
            uuid: "u".to_owned(),
            region: None,
        };
        let state = async || {
            let listing = provider.describe(&cluster).await.expect("lists");
            listing.machines[0].state
        };
        let changing = provider.changing.lock().await;
        assert_eq!(
            state().await,
            MachineState::ShuttingDown,
            "it may be this one's"
        );
        drop(changing);
        assert_eq!(state().await, MachineState::Terminated);
    }
}
