//! Where a forward leads to and where it listens, as they are typed. Pure.

use std::path::PathBuf;

use aot_proto::limits::MAX_SOCKET_PATH_BYTES;
use aot_proto::v1::TunnelDestination;

use crate::error::Error;

/// The forms of the first argument.
const FORMS: &str = "NAME:PORT, NAME:HOST:PORT or NAME:/path/of/a/socket";

/// The forms of the second argument.
const LOCAL_FORMS: &str = "a port of 127.0.0.1 (0 = any), HOST:PORT, or the path of a socket";

/// An instance, and a place that it reaches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForwardPlace {
    /// The instance.
    pub name: String,
    /// The place.
    pub to: TunnelDestination,
}

/// Where this host listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl ForwardPlace {
    /// Reads `NAME:PORT`, `NAME:HOST:PORT` or `NAME:/path`.
    ///
    /// # Errors
    /// When it is none of these.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::usage(format!("{text:?}: {why}"), format!("give {FORMS}"));
        let (name, rest) = text
            .split_once(':')
            .ok_or_else(|| bad("it names no port"))?;
        if name.is_empty() {
            return Err(bad("it names no instance"));
        }
        let to = match rest {
            path if path.starts_with('/') => {
                if path.len() > MAX_SOCKET_PATH_BYTES {
                    return Err(bad("the path is longer than that of any socket"));
                }
                TunnelDestination {
                    path: path.to_owned(),
                    ..TunnelDestination::default()
                }
            }
            _ => {
                let (host, port) = host_and_port(rest);
                let port = port.filter(|port| *port > 0);
                TunnelDestination {
                    host: host.ok_or_else(|| bad("that is not a host"))?.to_owned(),
                    port: port.ok_or_else(|| bad("that is not a port"))?.into(),
                    path: String::new(),
                }
            }
        };
        let name = name.to_owned();
        Ok(Self { name, to })
    }

    /// The machine's own port.
    pub(crate) fn port(name: String, port: u16) -> Self {
        let to = TunnelDestination {
            port: port.into(),
            ..TunnelDestination::default()
        };
        Self { name, to }
    }
}

impl Local {
    /// Reads where to listen; by default the port of the place.
    ///
    /// # Errors
    /// When it can't be read, or nothing is given and the place has no port.
    pub(crate) fn parse(text: Option<&str>, place: &ForwardPlace) -> Result<Self, Error> {
        let loopback = |port| Self::Tcp("127.0.0.1".to_owned(), port);
        let Some(text) = text else {
            let port = u16::try_from(place.to.port).unwrap_or_default();
            return match port {
                0 => Err(Error::usage(
                    "a socket has no port to listen on by default",
                    format!("say where to listen: {LOCAL_FORMS}"),
                )),
                port => Ok(loopback(port)),
            };
        };
        if text.contains('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        match host_and_port(text) {
            (Some(""), Some(port)) if !text.contains(':') => Ok(loopback(port)),
            (Some(host), Some(port)) if !host.is_empty() => Ok(Self::Tcp(host.to_owned(), port)),
            _ => Err(Error::usage(
                format!("cannot listen on {text:?}"),
                format!("give {LOCAL_FORMS}"),
            )),
        }
    }
}

/// `PORT`, `HOST:PORT` or `[V6]:PORT`; a host that can't be one is `None`, and so is a port.
fn host_and_port(text: &str) -> (Option<&str>, Option<u16>) {
    let Some((host, port)) = text.rsplit_once(':') else {
        return (Some(""), text.parse().ok());
    };
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => Some(address),
        None if host.contains([':', '[', ']']) || host.is_empty() => None,
        None => Some(host),
    };
    (host, port.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str, port: u32, path: &str) -> TunnelDestination {
        TunnelDestination {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    #[test]
    fn places_are_read_as_they_are_meant() {
        for (text, name, wanted) in [
            ("web1:80", "web1", to("", 80, "")),
            ("web1:db.internal:5432", "web1", to("db.internal", 5432, "")),
            ("web1:10.0.0.5:1", "web1", to("10.0.0.5", 1, "")),
            ("web1:[fd00::1]:80", "web1", to("fd00::1", 80, "")),
            (
                "web1:/run/docker.sock",
                "web1",
                to("", 0, "/run/docker.sock"),
            ),
            ("web1:/odd:name", "web1", to("", 0, "/odd:name")),
        ] {
            let place = ForwardPlace::parse(text).expect(text);
            assert_eq!((place.name.as_str(), &place.to), (name, &wanted), "{text}");
        }
        let long = format!("web1:/{}", "x".repeat(MAX_SOCKET_PATH_BYTES));
        for bad in [
            "web1",
            "",
            ":80",
            "web1:",
            "web1:0",
            "web1:65536",
            "web1:http",
            "web1::80",
            "web1:fd00::1:80",
            "web1:run/x",
            "web1:[x:80",
            &long,
        ] {
            let error = ForwardPlace::parse(bad).expect_err(bad);
            assert!(matches!(error, Error::Usage { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn where_to_listen_is_the_same_port_unless_it_is_said() {
        let web = ForwardPlace::parse("web1:80").expect("fine");
        let socket = ForwardPlace::parse("web1:/run/x").expect("fine");
        let tcp = |host: &str, port| Local::Tcp(host.to_owned(), port);
        for (text, wanted) in [
            (None, tcp("127.0.0.1", 80)),
            (Some("0"), tcp("127.0.0.1", 0)),
            (Some("8080"), tcp("127.0.0.1", 8080)),
            (Some("0.0.0.0:8080"), tcp("0.0.0.0", 8080)),
            (Some("[::1]:8080"), tcp("::1", 8080)),
            (Some("./web.sock"), Local::Unix("./web.sock".into())),
            (Some("/tmp/web:1"), Local::Unix("/tmp/web:1".into())),
        ] {
            assert_eq!(Local::parse(text, &web).expect("fine"), wanted, "{text:?}");
        }
        assert!(Local::parse(None, &socket).is_err());
        assert!(Local::parse(Some("0"), &socket).is_ok());
        for bad in ["", "x", ":80", "host:", "70000", "::1:80"] {
            assert!(Local::parse(Some(bad), &web).is_err(), "{bad}");
        }
    }
}
