//! What the master listens on: the agents' port, the same one after a restart, the masters' port, and the operators' socket.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use super::ServeOptions;
use super::error::{Error, io};

/// What other masters dial.
pub(super) struct PeerPort {
    pub(super) port: TcpListener,
    /// `host:port`, as they are to have it.
    pub(super) advertise: String,
}

/// What sets the agents' port.
const LISTEN: &str = "--listen (AOT_LISTEN)";

/// What sets the masters' port.
const PEER_LISTEN: &str = "AOT_PEER_LISTEN";

async fn bind(address: &str, setting: &'static str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
        setting,
        address: address.to_owned(),
        source,
    };
    // A master that was killed leaves connections in TIME_WAIT; tokio sets SO_REUSEADDR, so they don't matter.
    let addresses: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
    TcpListener::bind(&addresses[..]).await.map_err(failed)
}

/// With port 0, the port of the last start is taken again when it is free: agents that are out there dial it.
pub(super) async fn bind_again(address: &str, state_dir: &Path) -> Result<TcpListener, Error> {
    let file = state_dir.join("port");
    let Some(host) = address.strip_suffix(":0") else {
        return bind(address, LISTEN).await;
    };
    let last = std::fs::read_to_string(&file).ok();
    let again = match last.as_deref().map(str::trim) {
        Some(port) => bind(&format!("{host}:{port}"), LISTEN).await.ok(),
        None => None,
    };
    if last.is_some() && again.is_none() {
        tracing::warn!(listen = %address, "the port of the last start is in use: agents that know it cannot find this master");
    }
    let listener = match again {
        Some(listener) => listener,
        None => bind(address, LISTEN).await?,
    };
    let port = listener
        .local_addr()
        .map_err(io("look at the port of", state_dir))?
        .port();
    if last.as_deref().map(str::trim) != Some(&port.to_string()) {
        aot_host::files::write_atomic(&file, port.to_string().as_bytes(), 0o600)
            .map_err(io("write", &file))?;
    }
    Ok(listener)
}

/// The masters' port. Others are told of it, so any port will do.
pub(super) async fn peer(options: &ServeOptions, agents: &[String]) -> Result<PeerPort, Error> {
    let port = bind(&options.peer_listen, PEER_LISTEN).await?;
    let bound = port.local_addr();
    let bound = bound.map_err(io("look at the masters' port of", &options.state_dir))?;
    let advertise = options.peer_advertise.clone();
    let advertise = advertise.unwrap_or_else(|| peer_address(bound, agents));
    Ok(PeerPort { port, advertise })
}

/// What other masters dial when nothing else is said: all addresses are none, and agents' are this master's too.
fn peer_address(bound: SocketAddr, agents: &[String]) -> String {
    let host = agents.first().and_then(|first| first.rsplit_once(':'));
    match host {
        Some((host, _)) if bound.ip().is_unspecified() => format!("{host}:{}", bound.port()),
        _ => bound.to_string(),
    }
}

/// Hosts that the server's certificate must name.
pub(super) fn hosts(advertise: &[String], bound: &str) -> Result<Vec<String>, Error> {
    let host = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| host.to_owned())
    };
    let mut hosts = Vec::new();
    for address in advertise {
        hosts.push(host(address).ok_or_else(|| Error::Advertise(address.clone()))?);
    }
    hosts.extend(host(bound));
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

/// The socket, mode 0600: only its owner and root come in. One that a dead master left is replaced.
pub(super) fn operators_socket(path: &Path) -> Result<UnixListener, Error> {
    if let Some(dir) = path.parent() {
        aot_host::files::private_dir(dir).map_err(io("make the folder", dir))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::Running(path.to_owned()));
    }
    let _ = std::fs::remove_file(path); // it need not be there
    let listener = UnixListener::bind(path).map_err(io("listen on", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(io("set the mode of", path))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_names_every_advertised_host_once() {
        let advertise = [
            "10.0.0.1:7440",
            "master.example:443",
            "[::1]:7440",
            "10.0.0.1:9",
        ]
        .map(str::to_owned);
        let hosts = hosts(&advertise, "0.0.0.0:7440").expect("they are fine");
        assert_eq!(hosts, ["0.0.0.0", "10.0.0.1", "::1", "master.example"]);
        for bad in ["10.0.0.1", "10.0.0.1:x", ":7440"] {
            assert!(
                super::hosts(&[bad.to_owned()], "0.0.0.0:1").is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn masters_dial_what_was_bound_or_where_agents_find_this_one() {
        let agents = ["10.0.0.5:7440", "b:1"].map(str::to_owned);
        for (bound, agents, want) in [
            ("0.0.0.0:7441", &agents[..], "10.0.0.5:7441"),
            ("[::]:7441", &agents[1..], "b:7441"),
            ("10.0.0.9:7441", &agents[..], "10.0.0.9:7441"),
            ("0.0.0.0:7441", &[], "0.0.0.0:7441"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(peer_address(bound, agents), want);
        }
    }

    #[tokio::test]
    async fn any_port_is_the_same_port_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        // Somebody else may be given a port that is free for a moment: then the next one is tried.
        let mut same = None;
        for _ in 0..20 {
            let first = bind_again("127.0.0.1:0", dir.path()).await.expect("binds");
            let number = port(&first);
            drop(first);
            let again = bind_again("127.0.0.1:0", dir.path()).await.expect("binds");
            if port(&again) == number {
                same = Some((again, number));
                break;
            }
        }
        let (_again, number) = same.expect("the same port");
        let other = bind_again("127.0.0.1:0", dir.path())
            .await
            .expect("binds elsewhere");
        assert_ne!(port(&other), number);
    }
}
