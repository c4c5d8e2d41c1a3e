//! Where a forwarded connection comes out: a port or a socket of this machine, or of a host that it reaches where its settings
//! allow that.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1::TunnelDestination;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::ForwardPolicy;
use crate::link::resolve;

/// How long a place may take to answer, its name included.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection of this machine.
#[derive(Debug)]
pub(super) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to a place, if that is allowed.
///
/// # Errors
/// Why not, in one line for a person.
pub(super) async fn connect(
    to: &TunnelDestination,
    policy: ForwardPolicy,
) -> Result<LocalStream, String> {
    if policy == ForwardPolicy::None {
        return Err("its /etc/aot/agent.toml says forward = \"none\"".to_owned());
    }
    let connected = timeout(CONNECT, connect_in_time(to, policy)).await;
    connected.unwrap_or_else(|_| Err(format!("{} did not answer in 10 s", shown(to))))
}

async fn connect_in_time(
    to: &TunnelDestination,
    policy: ForwardPolicy,
) -> Result<LocalStream, String> {
    let failed = |error: io::Error| format!("cannot connect to {}: {}", shown(to), Chain(&error));
    if !to.path.is_empty() {
        let stream = UnixStream::connect(&to.path).await.map_err(failed)?;
        return Ok(LocalStream::Unix(stream));
    }
    let port = u16::try_from(to.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{} is not a port", to.port))?;
    let places = addresses(&to.host, policy).await?;
    let stream = match first(&places, port).await {
        // What listens at the machine's address alone is a port of it as well.
        Err(error) if to.host.is_empty() => first(&named().await, port).await.map_err(|_| error),
        other => other,
    };
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(LocalStream::Tcp(stream))
}

/// The first of these addresses that accepts a connection.
async fn first(places: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for ip in places {
        match TcpStream::connect(SocketAddr::new(*ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of this machine that its own name stands for.
async fn named() -> Vec<IpAddr> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut all = resolve(&name).await.unwrap_or_default();
    all.retain(|ip| is_own(*ip));
    all
}

/// The addresses of a host that may be connected to; the loopback's where none is named.
async fn addresses(host: &str, policy: ForwardPolicy) -> Result<Vec<IpAddr>, String> {
    if matches!(host, "" | "localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut all = resolve(host)
        .await
        .map_err(|error| Chain(&error).to_string())?;
    all.retain(|ip| policy == ForwardPolicy::Any || is_own(*ip));
    if all.is_empty() {
        return Err(format!(
            "{host} is another host, and this machine forwards to itself alone; forward = \"any\" in its /etc/aot/agent.toml allows it"
        ));
    }
    Ok(all)
}

/// Whether an address is one of this machine: only such a one can be bound to. No packet is sent.
fn is_own(ip: IpAddr) -> bool {
    let is_ordinary = !ip.is_unspecified() && !ip.is_multicast();
    is_ordinary && UdpSocket::bind((ip, 0)).is_ok()
}

fn shown(to: &TunnelDestination) -> String {
    match (to.path.as_str(), to.host.as_str()) {
        ("", "") => format!("port {}", to.port),
        ("", host) => format!("{host} port {}", to.port),
        (path, _) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, UnixListener};

    fn port(host: &str, port: u16) -> TunnelDestination {
        TunnelDestination {
            host: host.to_owned(),
            port: port.into(),
            path: String::new(),
        }
    }

    #[tokio::test]
    async fn a_port_of_the_machine_is_reached_by_its_loopback_or_an_address_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().port();
        for host in ["", "localhost", "127.0.0.1"] {
            let stream = connect(&port(host, open), ForwardPolicy::Machine).await;
            assert!(
                matches!(stream, Ok(LocalStream::Tcp(_))),
                "{host}: {stream:?}"
            );
        }
        drop(listener);
        let refused = connect(&port("", open), ForwardPolicy::Machine).await;
        let why = refused.expect_err("nobody listens");
        assert!(
            why.contains(&format!("port {open}")) && why.contains("refused"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_loopback_of_the_other_kind_is_tried_too() {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            eprintln!("no IPv6 here");
            return;
        };
        let open = listener.local_addr().unwrap().port();
        let stream = connect(&port("", open), ForwardPolicy::Machine).await;
        assert!(stream.is_ok(), "{stream:?}");
    }

    #[tokio::test]
    async fn another_host_is_connected_to_only_where_the_settings_say_so() {
        // TEST-NET-1 (RFC 5737): nobody has it.
        let other = port("192.0.2.1", 9);
        let why = connect(&other, ForwardPolicy::Machine).await.unwrap_err();
        assert!(
            why.contains("192.0.2.1") && why.contains("forward = \"any\""),
            "{why}"
        );
        assert_eq!(
            addresses("192.0.2.1", ForwardPolicy::Any)
                .await
                .unwrap()
                .len(),
            1
        );
        for nobodys in ["0.0.0.0", "224.0.0.1"] {
            assert!(
                addresses(nobodys, ForwardPolicy::Machine).await.is_err(),
                "{nobodys}"
            );
        }
        let why = connect(&port("", 9), ForwardPolicy::None)
            .await
            .unwrap_err();
        assert!(why.contains("forward = \"none\""), "{why}");
    }

    #[tokio::test]
    async fn a_unix_socket_is_reached_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let to = TunnelDestination {
            path: path.clone(),
            ..TunnelDestination::default()
        };
        let why = connect(&to, ForwardPolicy::Machine).await.unwrap_err();
        assert!(why.contains(&path), "{why}");
        let _listener = UnixListener::bind(&path).unwrap();
        let stream = connect(&to, ForwardPolicy::Machine).await;
        assert!(matches!(stream, Ok(LocalStream::Unix(_))), "{stream:?}");
    }
}
