//! Where a forward listens on this host: a TCP port, or a unix socket that goes with it.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::place::Local;
use crate::error::Error;

/// Listens.
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, OwnSocket),
}

/// A socket's file; it goes when this is dropped.
pub(super) struct OwnSocket(PathBuf);

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // somebody else has removed it
    }
}

/// Whoever has connected.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens there.
    ///
    /// # Errors
    /// When it can't, with the way out.
    pub(super) async fn bind(local: &Local) -> Result<Self, Error> {
        let refused = |at: &dyn std::fmt::Display, error: io::Error| {
            Error::usage(
                format!("cannot listen on {at}: {error}"),
                "name another port or path after the place; port 0 takes any that is free",
            )
        };
        match local {
            Local::Tcp(host, port) => {
                let bound = async {
                    let listener = TcpListener::bind((host.as_str(), *port)).await?;
                    let address = listener.local_addr()?;
                    Ok(Self::Tcp(listener, address))
                };
                let at = format!("{host} port {port}");
                bound.await.map_err(|error| refused(&at, error))
            }
            Local::Unix(path) => bind_unix(path).map_err(|error| refused(&path.display(), error)),
        }
    }

    /// The next one to connect. Cancel safe.
    ///
    /// # Errors
    /// When it can't be taken at the moment.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            Self::Unix(_, own) => own.0.display().fmt(f),
        }
    }
}

/// Whoever may connect to the socket reaches the machine: only its owner may.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    let listener = UnixListener::bind(path)?;
    let own = OwnSocket(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(listener, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_and_port_0_is_any() {
        let any = Local::Tcp("127.0.0.1".to_owned(), 0);
        let first = Listener::bind(&any).await.expect("there is one");
        let Listener::Tcp(_, address) = &first else {
            panic!("{first}")
        };
        assert_ne!(address.port(), 0);
        assert_eq!(first.to_string(), address.to_string());
        let taken = Local::Tcp("127.0.0.1".to_owned(), address.port());
        let Err(error) = Listener::bind(&taken).await else {
            panic!("it is taken")
        };
        assert!(
            error.to_string().contains(&address.port().to_string()),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_goes_with_the_forward() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("web.sock");
        let local = Local::Unix(path.clone());
        let listener = Listener::bind(&local).await.expect("it is free");
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Listener::bind(&local).await.is_err(), "one at a time");
        assert!(path.exists(), "the first one's is left alone");
        drop(listener);
        assert!(!path.exists());
    }
}
