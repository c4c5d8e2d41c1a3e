//! Where the database is and how to get in, as a URL says it. A password that it has is never shown. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Longest wait for a connection to one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// An engine that answers nothing for this long is taken for gone: a probe after so much silence, and what was sent.
const SILENT: Duration = Duration::from_secs(10);

/// Why a text is not the URL of a database. Says nothing of the text itself, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("it does not begin with postgres://")]
    Scheme,
    /// Not readable by its rules.
    #[error("it is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE")]
    Form,
    /// A host is missing.
    #[error("it names no host: postgres://USER@HOST/DATABASE, or ?host=/var/run/postgresql")]
    NoHost,
    /// Two of them.
    #[error("it has more than one @: write that of a password as %40")]
    At,
    /// A user is missing.
    #[error("it names no user: postgres://USER@HOST/DATABASE")]
    NoUser,
    /// A database is missing.
    #[error("it names no database: postgres://USER@HOST/DATABASE")]
    NoDatabase,
    /// An unknown mode.
    #[error("its sslmode is none of disable, require, verify-ca and verify-full")]
    Mode,
    /// Verification without anything to verify by.
    #[error(
        "its sslmode needs sslrootcert=FILE, the certificate of the authority that the server's is signed by"
    )]
    NoRoot,
    /// A host elsewhere, and nothing said about encryption.
    #[error(
        "its host is on the network, where records would go in clear: say sslmode=verify-full&sslrootcert=FILE, or sslmode=disable if that is what you want"
    )]
    Clear,
}

/// What of the server's certificate is checked (libpq, "SSL Support").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerCheck {
    /// Nothing: whoever is in between can read along.
    Nothing,
    /// That this file's authority signed it.
    Authority(PathBuf),
    /// The same, and that it is the host's.
    Host(PathBuf),
}

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    pub(crate) config: Config,
    /// `None`: no TLS.
    pub(crate) tls: Option<ServerCheck>,
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Err(UrlError::Scheme);
        }
        let (rest, mode, root) = without_tls(text)?;
        let mut config: Config = rest.parse().map_err(|_| UrlError::Form)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError::NoHost);
        }
        // A second @ is most likely of a password that was not encoded: a part of it would be shown as host or database.
        if text.split('?').next().unwrap_or(text).matches('@').count() > 1 {
            return Err(UrlError::At);
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(UrlError::NoUser);
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(UrlError::NoDatabase);
        }
        let tls = checked(mode.as_deref(), root, is_here(&config))?;
        // As libpq has it: nothing is encrypted on a socket of this machine.
        let tls = tls.filter(|_| !is_socket(&config));
        config.ssl_mode(match tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
        with_limits(&mut config);
        Ok(Self { config, tls })
    }
}

impl PostgresUrl {
    /// The same with no more time for a connection to one address.
    pub(crate) fn connecting_within(&self, most: Duration) -> Self {
        let mut url = self.clone();
        let given = url.config.get_connect_timeout().copied();
        url.config
            .connect_timeout(given.map_or(most, |given| given.min(most)));
        url
    }
}

/// The URL without what is said about TLS, in libpq's words, which are more than `Config` knows; and that.
fn without_tls(text: &str) -> Result<(String, Option<String>, Option<PathBuf>), UrlError> {
    let after_login = text.rfind('@').unwrap_or(0);
    let Some(at) = text[after_login..].find('?') else {
        return Ok((text.to_owned(), None, None));
    };
    let (base, options) = text.split_at(after_login + at);
    let (mut mode, mut root, mut others) = (None, None, Vec::new());
    for option in options[1..].split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=').ok_or(UrlError::Form)? {
            ("sslmode", value) => mode = Some(value.to_owned()),
            ("sslrootcert", value) => root = Some(PathBuf::from(decoded(value)?)),
            _ => others.push(option),
        }
    }
    let base = match others.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", others.join("&")),
    };
    Ok((base, mode, root))
}

/// `%2F` is a slash (RFC 3986, 2.1).
fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits =
            [rest.next(), rest.next()].map(|it| it.and_then(|it| char::from(it).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err(UrlError::Form);
        };
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| UrlError::Form)?);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Form)
}

/// What is sent stays on this machine.
fn is_here(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|it| it.is_loopback())
        }
    });
    hosts && config.get_hostaddrs().iter().all(|it| it.is_loopback())
}

fn is_socket(config: &Config) -> bool {
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    config.get_hosts().iter().all(is_socket) && config.get_hostaddrs().is_empty()
}

fn checked(
    mode: Option<&str>,
    root: Option<PathBuf>,
    is_here: bool,
) -> Result<Option<ServerCheck>, UrlError> {
    match (mode, root) {
        (Some("disable"), _) => Ok(None),
        (None | Some("allow" | "prefer"), None) if is_here => Ok(None),
        (None | Some("allow" | "prefer"), None) => Err(UrlError::Clear),
        (Some("require"), None) => Ok(Some(ServerCheck::Nothing)),
        (Some("require" | "verify-ca"), Some(root)) => Ok(Some(ServerCheck::Authority(root))),
        (Some("verify-full"), Some(root)) => Ok(Some(ServerCheck::Host(root))),
        (Some("verify-ca" | "verify-full"), None) => Err(UrlError::NoRoot),
        _ => Err(UrlError::Mode),
    }
}

/// What makes an engine that went away be noticed, where the URL says nothing else.
fn with_limits(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_WITHIN);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENT);
    }
    if config.get_application_name().is_none() {
        config.application_name("aot-master");
    }
    config.keepalives_idle(SILENT);
    config.keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(3);
    // Of several hosts, or after a failover: never the one that is only read from.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
}

impl fmt::Display for PostgresUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{user}@")?;
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let addresses = self.config.get_hostaddrs().iter().map(ToString::to_string);
        let hosts: Vec<String> = match self.config.get_hosts().is_empty() {
            true => addresses.collect(),
            false => hosts.collect(),
        };
        for (at, host) in hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{}", port(at))?,
                false => write!(f, "{comma}{host}:{}", port(at))?,
            }
        }
        write!(f, "/{database}")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PostgresUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn it_says_where_and_never_the_password() {
        for (text, shown) in [
            (
                "postgres://aot:s3cret@db.example:6432/records?sslmode=disable",
                "postgres://aot@db.example:6432/records",
            ),
            (
                "postgresql://aot:s3cret%3F@%2Fvar%2Frun%2Fpostgresql/records",
                "postgres://aot@/var/run/postgresql:5432/records",
            ),
            (
                "postgres://aot:s3cret@a,b:7/records?sslmode=require",
                "postgres://aot@a:5432,b:7/records",
            ),
            (
                "postgres://aot:s3cret@[::1]/records",
                "postgres://aot@[::1]:5432/records",
            ),
        ] {
            let url = read(text).expect(text);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?} {url}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for (text, why) in [
            ("mysql://aot@db/records", UrlError::Scheme),
            ("/var/lib/records", UrlError::Scheme),
            ("postgres:///records?user=aot", UrlError::NoHost),
            ("postgres://db/records", UrlError::NoUser),
            ("postgres://aot:p@ss@localhost/records", UrlError::At),
            ("postgres://aot@localhost,b@d/records", UrlError::At),
            (
                "postgres://aot:p@s/s@db/records?sslmode=disable",
                UrlError::At,
            ),
            ("postgres://aot@localhost", UrlError::NoDatabase),
            ("postgres://aot@localhost:x/records", UrlError::Form),
            ("postgres://aot@localhost/records?wibble=1", UrlError::Form),
            ("postgres://aot@db/records", UrlError::Clear),
            ("postgres://aot@db/records?sslmode=prefer", UrlError::Clear),
            ("postgres://aot@10.0.0.1/records", UrlError::Clear),
            ("postgres://aot@localhost,db/records", UrlError::Clear),
            (
                "postgres://aot@db/records?sslmode=verify-full",
                UrlError::NoRoot,
            ),
            (
                "postgres://aot@localhost/records?sslmode=verify-full",
                UrlError::NoRoot,
            ),
            ("postgres://aot@db/records?sslmode=wibble", UrlError::Mode),
            ("postgres://aot@db/records?sslrootcert=/a", UrlError::Mode),
            ("postgres://aot@db/records?sslrootcert=%zz", UrlError::Form),
        ] {
            assert_eq!(read(text).err(), Some(why), "{text}");
        }
    }

    #[test]
    fn tls_is_as_libpq_names_it() {
        let root = || PathBuf::from("/etc/db ca.pem");
        for (options, tls) in [
            ("sslmode=disable", None),
            ("sslmode=require", Some(ServerCheck::Nothing)),
            (
                "sslmode=require&sslrootcert=/etc/db%20ca.pem",
                Some(ServerCheck::Authority(root())),
            ),
            (
                "sslmode=verify-ca&sslrootcert=/etc/db%20ca.pem",
                Some(ServerCheck::Authority(root())),
            ),
            (
                "connect_timeout=3&sslrootcert=/etc/db%20ca.pem&sslmode=verify-full",
                Some(ServerCheck::Host(root())),
            ),
        ] {
            let url = read(&format!("postgres://aot@db/records?{options}")).expect(options);
            assert_eq!(url.tls, tls, "{options}");
        }
        for here in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            let url = read(&format!("postgres://aot@{here}/records")).expect(here);
            assert_eq!(url.tls, None, "{here}");
        }
        let socket = "postgres://aot@%2Frun/records?sslmode=verify-full&sslrootcert=/a";
        assert_eq!(read(socket).expect("reads").tls, None);
        let asked = read("postgres://aot@localhost/records?sslmode=require").expect("reads");
        assert_eq!(asked.tls, Some(ServerCheck::Nothing));
    }
}
