//! The second phase: the master has its port, its certificate and its socket. Connections wait in the kernel until it runs.

use std::path::Path;

use aot_host::files::write_atomic;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::error::{Error, io};
use super::ports::{self, PeerPort};
use super::{Opened, ServeOptions};
use crate::server::listener;

/// A master that can be dialled.
pub struct Bound {
    pub(super) port: TcpListener,
    /// Where that is, as bound.
    pub(super) listen: String,
    /// What agents dial.
    pub(super) advertise: Vec<String>,
    pub(super) tls: TlsAcceptor,
    /// For other masters, where this one has a fleet.
    pub(super) peer: Option<PeerPort>,
    pub(super) socket: UnixListener,
    /// Has the lock, and so the last field: the next master may have the state once the addresses are free.
    pub(super) opened: Opened,
}

impl Opened {
    /// Binds the agents' port and the operators' socket. Once both are this master's, writes down what its next start goes
    /// by: settings that can't be served with are never recorded.
    ///
    /// # Errors
    /// When an address is in use, can't be advertised, or the disk refuses.
    pub async fn bind(self) -> Result<Bound, Error> {
        let room = self.room.clone();
        let bound = self.bound().await;
        bound.map_err(|error| error.explained(&room))
    }

    async fn bound(self) -> Result<Bound, Error> {
        let (options, dir) = (&self.options, &*self.options.state_dir);
        let port = ports::bind_again(&options.listen, dir).await?;
        let listen = port.local_addr();
        let listen = listen.map_err(io("look at the port of", dir))?.to_string();
        let advertise = if options.advertise.is_empty() {
            vec![listen.clone()]
        } else {
            options.advertise.clone()
        };
        let tls = listener::tls(&self.ca, &ports::hosts(&advertise, &listen)?)?;
        let peer = match options.fleet_key {
            Some(_) => Some(ports::peer(options, &advertise).await?),
            None => None,
        };
        let socket = ports::operators_socket(&options.socket)?;
        mark_service(options)?;
        record_settings(&options.settings.0, &options.settings.1)?;
        if options.background {
            aot_host::share::raise();
        }
        Ok(Bound {
            port,
            listen,
            advertise,
            tls,
            peer,
            socket,
            opened: self,
        })
    }
}

/// Unchanged ones are not written: a full disk is not in the way of a restart.
fn record_settings(path: &Path, text: &str) -> Result<(), Error> {
    if std::fs::read(path).ok().as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    write_atomic(path, text.as_bytes(), 0o600).map_err(io("write", path))
}

/// A state that a service serves is never served by a master in the background: that one would be in the way when the
/// service comes back. The commands look for this file.
fn mark_service(options: &ServeOptions) -> Result<(), Error> {
    let path = options.state_dir.join("service");
    if options.supervised && !options.background && path.exists() {
        return Ok(()); // written by an earlier start
    }
    if options.supervised && !options.background {
        return write_atomic(&path, b"", 0o600).map_err(io("write", &path));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}
