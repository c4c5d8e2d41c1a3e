//! The `local` provider: an instance is a copy-on-write clone of this machine, with the real agent inside.
//!
//! A clone has its own mount, pid, uts and ipc namespaces, an overlay over this machine's files, and an address of its
//! own in 127.0.0.0/8; it shares kernel and network. It outlives the master: a supervisor process holds it
//! (`machine_run`), and everything about it lies in its folder. Mounts exist in the clone's own namespace only.

mod address;
mod boot;
mod console;
mod control;
mod init;
mod layers;
mod mounts;
mod prepare;
mod probe;
mod record;
mod shelf;
mod supervisor;
mod userns;

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::{InstanceName, MachineId};
use futures::future::{BoxFuture, join_all};
use rustix::process::Signal;

pub use init::machine_init;
pub use supervisor::machine_run;

use self::control::Supervised;
use self::record::{Ending, MachineFile};
use self::shelf::{Seen, Shelf, remove_tree};
use super::{
    Ask, ClientToken, ClusterRef, ElasticIp, ErrorKind, Ground, LaunchSpec, Leftovers, Lifecycle,
    Machine, MachineState, Problem, Provider, ProviderError, Receipt, Tagged, Thing, tags,
};
use crate::model::file::ProviderKind;

/// How long a supervisor has to end a clone, its own grace included.
const END_LIMIT: Duration = Duration::from_secs(15);

/// What can go wrong with a clone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or process of ours.
    #[error("the clones' folder: {0}")]
    Io(#[from] io::Error),
    /// The agent to put inside.
    #[error("the agent {path} cannot be read: {source}", path = path.display())]
    Agent {
        /// Where it should lie.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No such clone in this cluster.
    #[error("there is no local machine {0} in this cluster")]
    Unknown(MachineId),
    /// It can't be started again.
    #[error("local machine {0} is terminated")]
    Terminated(MachineId),
    /// The token's machines are gone.
    #[error("the client token was used for {0}, which is terminated: launch with a new attempt")]
    TokenSpent(MachineId),
    /// Same token, other members.
    #[error("the client token was used for other members: launch with a new attempt")]
    TokenMismatch,
    /// It did not come up.
    #[error("local machine {id} ({name}) did not start: {why}")]
    Start {
        /// Its id.
        id: MachineId,
        /// Its member.
        name: InstanceName,
        /// Its own words.
        why: String,
    },
    /// It did not go down.
    #[error("local machine {0} did not end within {limit} s", limit = END_LIMIT.as_secs())]
    Stuck(MachineId),
    /// No address left.
    #[error("too many local machines")]
    TooMany,
}

impl Error {
    /// For the trait; `leftovers` is what the call at hand may have made.
    fn into_provider(self, leftovers: Leftovers) -> ProviderError {
        let (kind, leftovers) = match &self {
            Self::TokenSpent(_) => (ErrorKind::TokenSpent, Leftovers::Unknown),
            Self::TokenMismatch => (ErrorKind::Invalid, Leftovers::Unknown),
            Self::Agent { .. } | Self::Unknown(_) | Self::Terminated(_) => {
                (ErrorKind::Invalid, leftovers)
            }
            Self::TooMany => (ErrorKind::Quota, leftovers),
            Self::Io(_) | Self::Start { .. } | Self::Stuck(_) => (ErrorKind::Other, leftovers),
        };
        ProviderError {
            kind,
            leftovers,
            message: self.to_string(),
            code: None,
        }
    }
}

/// Clones of this machine, below one state directory.
pub struct LocalProvider {
    shelf: Arc<Shelf>,
    exe: PathBuf,
    /// Changes of state come one call after the other: two that end the same machine must not meet.
    changing: tokio::sync::Mutex<()>,
}

impl LocalProvider {
    /// Keeps its clones below `root`, the folder `local` of the state directory. Makes nothing yet.
    pub fn new(root: PathBuf) -> Self {
        // Stays the running program when the file is replaced by an upgrade.
        Self::new_with_exe(root, PathBuf::from("/proc/self/exe"))
    }

    /// As `new`, with the program that is run as `EXE machine-run FOLDER`; it must call `machine_run` and, started
    /// by itself as `EXE machine-init FOLDER`, `machine_init`.
    pub fn new_with_exe(root: PathBuf, exe: PathBuf) -> Self {
        let root = std::path::absolute(&root).unwrap_or(root);
        Self {
            shelf: Arc::new(Shelf::new(root)),
            exe,
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Runs something that blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shelf = Arc::clone(&self.shelf);
        match tokio::task::spawn_blocking(move || work(&shelf)).await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error).into()),
        }
    }

    async fn launch_all(
        &self,
        spec: &LaunchSpec,
        token: &ClientToken,
    ) -> Result<Vec<Machine>, ProviderError> {
        let (owned, own_token) = (spec.clone(), token.clone());
        let made = self
            .blocking(move |shelf| shelf.make(&owned, &own_token))
            .await
            .map_err(|error| error.into_provider(Leftovers::Unknown))?;
        let started = join_all(made.iter().map(|file| self.first_start(file))).await;
        for result in started {
            result.map_err(|error| error.into_provider(Leftovers::Some))?;
        }
        tracing::info!(machines = made.len(), cluster = %spec.cluster.name, "local machines launched");
        let look = move |shelf: &Shelf| {
            made.into_iter()
                .map(|file| shelf.look(file).map(shown))
                .collect()
        };
        let result: Result<Vec<Machine>, Error> = self.blocking(look).await;
        result.map_err(|error| error.into_provider(Leftovers::Some))
    }

    /// Starts a clone that never was up; one that was is left as it is.
    async fn first_start(&self, file: &MachineFile) -> Result<(), Error> {
        if self.shelf.dirs(&file.id).prepared().exists() {
            return Ok(());
        }
        self.start(file).await
    }

    async fn start(&self, file: &MachineFile) -> Result<(), Error> {
        if file.ending.is_some() {
            return Err(Error::Terminated(file.id.clone()));
        }
        let dirs = self.shelf.dirs(&file.id);
        control::start(&self.exe, &dirs)
            .await
            .map_err(|why| Error::Start {
                id: file.id.clone(),
                name: file.name.clone(),
                why,
            })
    }

    async fn change_one(&self, uuid: &str, action: Lifecycle, id: &MachineId) -> Result<(), Error> {
        let (own_uuid, own_id) = (uuid.to_owned(), id.clone());
        let seen = self
            .blocking(move |shelf| shelf.look(shelf.one(&own_uuid, &own_id)?))
            .await?;
        tracing::info!(machine = %id, ?action, state = %seen.state, "local machine asked to change");
        let (own_uuid, own_id) = (uuid.to_owned(), id.clone());
        match action {
            Lifecycle::Terminate => {
                self.blocking(move |shelf| terminate(shelf, &own_uuid, &own_id))
                    .await
            }
            Lifecycle::Stop => {
                self.blocking(move |shelf| end(shelf, &own_id, Signal::TERM))
                    .await
            }
            Lifecycle::Start => {
                if seen.state == MachineState::Stopping {
                    self.blocking(move |shelf| end(shelf, &own_id, Signal::TERM))
                        .await?;
                }
                self.start(&seen.file).await
            }
            Lifecycle::Reboot if seen.state == MachineState::Stopped => {
                self.start(&seen.file).await
            }
            Lifecycle::Reboot => {
                self.blocking(move |shelf| match control::find(&shelf.dirs(&own_id))? {
                    Some(supervised) => Ok(supervised.signal(Signal::HUP)?),
                    None => Err(Error::Terminated(own_id)),
                })
                .await
            }
        }
    }

    async fn probe(&self) -> Option<Problem> {
        // Its own folder, also for a second preflight at the same time; on the disk that the clones will use.
        let folder = self
            .shelf
            .root()
            .join(format!(".probe-{}", ulid::Ulid::generate()));
        let (name, value) = supervisor::probe_env();
        let mut command = tokio::process::Command::new(&self.exe);
        command.arg("machine-run").arg(&folder).env(name, value);
        let error = control::run(command).await.err()?;
        let root = rustix::process::geteuid().is_root();
        let setting = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
        Some(probe::problem(&error, root, self.shelf.root(), setting))
    }

    async fn clean(&self, uuid: String) -> Result<Vec<Receipt>, Error> {
        self.blocking(move |shelf| {
            let mut receipts = Vec::new();
            for seen in shelf.seen(&uuid)? {
                let id = seen.file.id.to_string();
                let left = seen.state != MachineState::Terminated;
                receipts.push(Receipt {
                    kind: "instance".into(),
                    id: id.clone(),
                    state: seen.state.to_string(),
                    left,
                });
                if !left {
                    shelf.forget(&seen.file)?;
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

/// As `tagged` shows it.
fn tagged(seen: &Seen) -> Tagged {
    let tag = |key: &str| seen.file.tags.get(key).cloned().unwrap_or_default();
    Tagged {
        kind: "instance",
        id: seen.file.id.to_string(),
        state: seen.state.to_string(),
        gone: seen.state == MachineState::Terminated,
        cluster: tag("Cluster"),
        uuid: tag(tags::CLUSTER_UUID),
    }
}

/// As the trait shows it.
fn shown(seen: Seen) -> Machine {
    seen.file.to_machine(seen.state, seen.reason)
}

/// Ends a clone's supervisor, and with it the clone; done when there is none.
fn end(shelf: &Shelf, id: &MachineId, signal: Signal) -> Result<(), Error> {
    let Some(supervised) = control::find(&shelf.dirs(id))? else {
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
fn terminate(shelf: &Shelf, uuid: &str, id: &MachineId) -> Result<(), Error> {
    if matches!(shelf.one(uuid, id)?.ending, Some(Ending::Done(_))) {
        return Ok(());
    }
    shelf.change(uuid, id, |file| file.ending = Some(Ending::Begun))?;
    end(shelf, id, Signal::INT)?;
    shelf.remove(uuid, id)
}

impl Provider for LocalProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Local
    }

    fn preflight<'a>(&'a self, _ask: &'a Ask<'a>) -> BoxFuture<'a, Vec<Problem>> {
        Box::pin(async { self.probe().await.into_iter().collect() })
    }

    fn outline<'a>(
        &'a self,
        _ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Vec<Thing>, ProviderError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn prepare<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Ground, ProviderError>> {
        Box::pin(ready(Ok(ask.known.clone())))
    }

    fn launch<'a>(
        &'a self,
        spec: &'a LaunchSpec,
        token: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(self.launch_all(spec, token))
    }

    fn describe<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(async {
            let uuid = cluster.uuid.clone();
            let seen = self.blocking(move |shelf| shelf.seen(&uuid)).await;
            seen.map(|seen| seen.into_iter().map(shown).collect())
                .map_err(|error| error.into_provider(Leftovers::None))
        })
    }

    fn lifecycle<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Vec<MachineId>, ProviderError>> {
        Box::pin(async move {
            let _one_at_a_time = self.changing.lock().await;
            let changes = machines
                .iter()
                .map(|id| self.change_one(&cluster.uuid, action, id));
            let result: Result<(), Error> = join_all(changes).await.into_iter().collect();
            result
                .map(|()| Vec::new())
                .map_err(|error| error.into_provider(Leftovers::None))
        })
    }

    fn name<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async {
            let (uuid, names) = (cluster.uuid.clone(), names.to_vec());
            let done = self.blocking(move |shelf| {
                names.into_iter().try_for_each(|(id, name)| {
                    shelf.change(&uuid, &id, |file| {
                        file.tags.insert(tags::NAME.into(), name.to_string());
                        file.name = name;
                    })
                })
            });
            done.await
                .map_err(|error| error.into_provider(Leftovers::None))
        })
    }

    fn addresses<'a>(
        &'a self,
        _cluster: &'a ClusterRef,
        machines: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>> {
        let none = |(id, _): &(MachineId, InstanceName)| {
            let error = ProviderError {
                kind: ErrorKind::Invalid,
                leftovers: Leftovers::None,
                message: "a local clone has no public address: leave allocate_ip_address out"
                    .into(),
                code: None,
            };
            (id.clone(), Err(error))
        };
        Box::pin(ready(machines.iter().map(none).collect()))
    }

    fn explain<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>> {
        Box::pin(async {
            let (uuid, ids) = (cluster.uuid.clone(), machines.to_vec());
            let read = self.blocking(move |shelf| {
                let tail = |id: MachineId| {
                    shelf.one(&uuid, &id).ok()?;
                    let text = console::tail(&shelf.dirs(&id).console()).ok()?;
                    Some((id, format!("end of its console:\n{text}")))
                };
                Ok(ids.into_iter().filter_map(tail).collect())
            });
            read.await.unwrap_or_default()
        })
    }

    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>> {
        Box::pin(async {
            let read = self.blocking(|shelf| shelf.all());
            let all = read
                .await
                .map_err(|error| error.into_provider(Leftovers::None))?;
            Ok(all.iter().map(tagged).collect())
        })
    }

    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>> {
        Box::pin(async {
            let done = self.clean(cluster.uuid.clone()).await;
            done.map_err(|error| error.into_provider(Leftovers::None))
        })
    }
}
