//! Why a master can't start, or stopped by itself. Printed by the program, with what each error came from.

use std::path::{Path, PathBuf};

use aot_host::holders::{self, HolderProcess};
use aot_store::room::{self, Room};

use crate::enrol::{ca, shared_keys};
use crate::run::agents;
use crate::server::listener;

/// Why a daemon can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one runs.
    #[error(
        "a master already uses {}{}: use that one, or name another place (--state-dir, --socket)",
        .0.display(), held(holders::of_lock(&.0.join("lock")))
    )]
    Running(PathBuf),
    /// One runs whose records are to be moved.
    #[error(
        "a master works on {} (it answers on {}): stop it first", dir.display(), socket.display()
    )]
    StillRuns {
        /// Its state folder.
        dir: PathBuf,
        /// Its operators' socket.
        socket: PathBuf,
    },
    /// The agents' port.
    #[error(
        "cannot listen on {address}{}, which {setting} sets", held(port(address).and_then(holders::of_port))
    )]
    Listen {
        /// What says so.
        setting: &'static str,
        /// Address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file, folder or socket.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An address that agents could never dial.
    #[error("{0:?} is not a host:port to advertise to agents")]
    Advertise(String),
    /// Others can read the state's folder, and it is not for us to change that.
    #[error(
        "others can read {}, and it holds more than aot's state: name a folder of its own, or chmod 700 it", .0.display()
    )]
    Shared(PathBuf),
    /// There is too little room, and that is why.
    #[error("{full}")]
    Full {
        /// Where, and how little.
        full: room::Full,
        /// What could not be done.
        source: Box<Error>,
    },
    /// It was asked to stop before it served.
    #[error("stopped before it served")]
    Interrupted,
    /// The state can't be written any more.
    #[error("stopped: {0}")]
    Stopped(&'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] aot_store::Error),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// The keys of its fleet.
    #[error(transparent)]
    SharedKeys(#[from] shared_keys::SharedKeysError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] listener::Error),
    /// Agents.
    #[error(transparent)]
    Agents(#[from] agents::Error),
    /// Random numbers.
    #[error("the system has no random bytes")]
    Random,
}

/// Who is in the way, where that is seen.
fn held(by: Option<HolderProcess>) -> String {
    by.map_or_else(String::new, |by| format!(" ({by})"))
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

impl Error {
    /// That there is no room, where that is likely to be the cause.
    pub(super) fn explained(self, room: &Room) -> Self {
        match room.check_now() {
            Err(full) if self.may_be_for_want_of_room() => Self::Full {
                full,
                source: Box::new(self),
            },
            _ => self,
        }
    }

    fn may_be_for_want_of_room(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Store(_) | Self::Ca(_) | Self::Agents(_)
        )
    }
}
