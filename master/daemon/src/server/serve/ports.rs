//! What the master listens on: the agents' port, the same one after a restart, and the operators' socket.

use std::net::ToSocketAddrs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use super::error::{Error, io};

async fn bind(address: &str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
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
        return bind(address).await;
    };
    let last = std::fs::read_to_string(&file).ok();
    let again = match last.as_deref().map(str::trim) {
        Some(port) => bind(&format!("{host}:{port}")).await.ok(),
        None => None,
    };
    if last.is_some() && again.is_none() {
        tracing::warn!(listen = %address, "the port of the last start is in use: agents that know it cannot find this master");
    }
    let listener = match again {
        Some(listener) => listener,
        None => bind(address).await?,
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
