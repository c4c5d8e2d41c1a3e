//! `agent.toml` to checked settings. Read once at start; never written by the agent.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aot_host::environment::{self, NotText};
use aot_proto::route::Route;
use serde::Deserialize;

use crate::aws::endpoint::{AwsEndpoint, AwsEndpoints};

/// Where user-data writes the settings.
pub const DEFAULT_PATH: &str = "/etc/aot/agent.toml";

/// Who made the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Amazon EC2: identity and facts come from IMDSv2.
    Ec2,
    /// A clone of the master's machine.
    Local,
}

/// Where connections that operators forward may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardPolicy {
    /// Nowhere.
    None,
    /// To ports and sockets of the machine itself.
    #[default]
    Machine,
    /// To every host that the machine reaches.
    Any,
}

/// A text that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"...\"")
    }
}

/// The settings, with every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where they were read.
    pub file: PathBuf,
    /// Masters as `host:port`, tried in turn.
    pub master: Vec<String>,
    /// Names the cluster to the masters, which lead connections to the one that has it; `None` = by the certificate.
    pub route: Option<Route>,
    /// The only authority whose certificates are believed.
    pub ca_pem: String,
    /// Join token; needed until the machine has its certificate.
    pub token: Option<Secret>,
    /// The provider's id of this machine; `None` asks IMDS.
    pub machine_id: Option<String>,
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// `/etc` of this machine; elsewhere in tests.
    pub etc_dir: PathBuf,
    /// Home of root: its ssh keys are there.
    pub root_home: PathBuf,
    /// Where runs' secrets are, in memory.
    pub secrets_dir: PathBuf,
    /// Who made the machine.
    pub provider: Platform,
    /// Holds the boot id where clones share a kernel.
    pub boot_id_file: Option<PathBuf>,
    /// Address of IMDS, `http://host[:port]`.
    pub imds: String,
    /// Where services of AWS answer; what is not said is at AWS's own addresses.
    pub(crate) aws: AwsEndpoints,
    /// Where connections that operators forward may lead to.
    pub forward: ForwardPolicy,
    /// Reboots the machine; `None` = systemctl, or reboot(2) where there is no systemd.
    pub reboot: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    master: Vec<String>,
    route: Option<String>,
    ca_pem: Option<String>,
    ca_file: Option<PathBuf>,
    token: Option<Secret>,
    machine_id: Option<String>,
    #[serde(default = "state_dir")]
    state_dir: PathBuf,
    #[serde(default = "etc_dir")]
    etc_dir: PathBuf,
    #[serde(default = "root_home")]
    root_home: PathBuf,
    #[serde(default = "secrets_dir")]
    secrets_dir: PathBuf,
    #[serde(default = "provider")]
    provider: Platform,
    boot_id_file: Option<PathBuf>,
    #[serde(default = "imds")]
    imds: String,
    ssm_endpoint: Option<String>,
    secrets_manager_endpoint: Option<String>,
    reboot: Option<Vec<String>>,
    #[serde(default)]
    forward: ForwardPolicy,
}

fn state_dir() -> PathBuf {
    "/var/lib/aot".into()
}
fn etc_dir() -> PathBuf {
    "/etc".into()
}
fn root_home() -> PathBuf {
    "/root".into()
}
fn secrets_dir() -> PathBuf {
    "/run/aot/secrets".into()
}
fn provider() -> Platform {
    Platform::Ec2
}
fn imds() -> String {
    "http://169.254.169.254".to_owned()
}

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The text is not TOML, or has a key of the wrong type. The source's own text quotes lines, which may hold the
    /// token: only its message is kept.
    #[error("{}: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    /// A setting that can't be.
    #[error("{}: {why}", path.display())]
    Bad {
        path: PathBuf,
        /// What is wrong, and what is wanted.
        why: String,
    },
}

impl Config {
    /// Reads and checks `path`; warns when others can read it.
    ///
    /// # Errors
    /// When the file, or the `ca_file` that it names, can't be read or used.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        if let Ok(meta) = fs::metadata(path)
            && meta.permissions().mode() & 0o077 != 0
        {
            tracing::warn!(path = %path.display(), "the settings hold a token and others can read them: chmod 600 them");
        }
        Self::parse(&text, path)?.with_environment(environment::text)
    }

    /// With what these variables say, which the SDKs of AWS read too: they go before the file.
    fn with_environment(
        mut self,
        env: impl Fn(&str) -> Result<Option<String>, NotText>,
    ) -> Result<Self, Error> {
        let places = [
            ("AWS_ENDPOINT_URL_SSM", &mut self.aws.ssm),
            (
                "AWS_ENDPOINT_URL_SECRETS_MANAGER",
                &mut self.aws.secrets_manager,
            ),
        ];
        for (name, place) in places {
            let bad = |why: String| Error::Bad {
                path: self.file.clone(),
                why,
            };
            let text = env(name).map_err(|error| bad(error.to_string()))?;
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                continue;
            };
            let place_of = text.parse();
            *place = Some(place_of.map_err(|error| bad(format!("{name}: {error}")))?);
        }
        Ok(self)
    }

    /// Checks the text of `path`.
    ///
    /// # Errors
    /// As for [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            message: error.message().to_owned(),
        })?;
        let bad = |why: &str| Error::Bad {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        if raw.master.is_empty() {
            return Err(bad(
                "master is empty: list at least one address, [\"host:port\"]",
            ));
        }
        if let Some(wrong) = raw
            .master
            .iter()
            .find(|address| split_address(address).is_none())
        {
            return Err(bad(&format!("master {wrong:?} is not host:port")));
        }
        let route = raw.route.map(|text| text.parse::<Route>());
        let route = route.transpose().map_err(|error| bad(&error.to_string()))?;
        let ca_pem = match (raw.ca_pem, raw.ca_file) {
            (Some(pem), None) => pem,
            (None, Some(file)) => read(&file)?,
            _ => return Err(bad("give exactly one of ca_pem and ca_file")),
        };
        if raw.reboot.as_ref().is_some_and(Vec::is_empty) {
            return Err(bad("reboot is an empty command"));
        }
        if raw.provider == Platform::Local && raw.machine_id.is_none() {
            return Err(bad("machine_id is required when provider is local"));
        }
        let endpoint =
            |said: Option<String>| said.map(|text| text.parse::<AwsEndpoint>()).transpose();
        let aws = AwsEndpoints {
            ssm: endpoint(raw.ssm_endpoint).map_err(|error| bad(&error.to_string()))?,
            secrets_manager: endpoint(raw.secrets_manager_endpoint)
                .map_err(|error| bad(&error.to_string()))?,
        };
        Ok(Self {
            file: path.to_owned(),
            master: raw.master,
            route,
            ca_pem,
            token: raw.token,
            machine_id: raw.machine_id,
            state_dir: raw.state_dir,
            etc_dir: raw.etc_dir,
            root_home: raw.root_home,
            secrets_dir: raw.secrets_dir,
            provider: raw.provider,
            boot_id_file: raw.boot_id_file,
            imds: raw.imds,
            aws,
            reboot: raw.reboot,
            forward: raw.forward,
        })
    }
}

/// `host:port` or `[v6]:port` in its parts.
pub(crate) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port.parse().ok()?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// Whether it is an address that a connection can be made to: a name or an address of a machine, and a port.
pub(crate) fn is_dialable(address: &str) -> bool {
    let Some((host, _)) = split_address(address) else {
        return false;
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified(),
        Err(_) => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "master = [\"10.0.0.1:7440\"]\nca_pem = \"x\"\ntoken = \"5ec4e7\"\nprovider = \"local\"\nmachine_id = \"local-1\"\n";

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(text, Path::new("agent.toml"))
    }

    #[test]
    fn the_defaults_are_those_of_a_machine() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/aot"));
        assert_eq!(config.etc_dir, Path::new("/etc"));
        assert_eq!(config.forward, ForwardPolicy::Machine);
        let any = parse(&format!("{GOOD}forward = \"any\"\n")).unwrap();
        assert_eq!(any.forward, ForwardPolicy::Any);
        assert!(
            !format!("{config:?}").contains("5ec4e7"),
            "the token is printed"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, text, word) in [
            ("no master", GOOD.replace("\"10.0.0.1:7440\"", ""), "master"),
            ("no port", GOOD.replace(":7440", ""), "host:port"),
            ("no route", format!("{GOOD}route = \"web\"\n"), "route"),
            ("no ca", GOOD.replace("ca_pem = \"x\"", ""), "ca_pem"),
            ("two cas", format!("{GOOD}ca_file = \"/y\"\n"), "ca_pem"),
            ("unknown key", format!("{GOOD}mastr = 1\n"), "mastr"),
            ("no policy", format!("{GOOD}forward = \"all\"\n"), "machine"),
            ("no reboot", format!("{GOOD}reboot = []\n"), "reboot"),
            (
                "no endpoint",
                format!("{GOOD}ssm_endpoint = \"vpce-1\"\n"),
                "https://HOST",
            ),
            (
                "no machine",
                GOOD.replace("machine_id = \"local-1\"", ""),
                "machine_id",
            ),
        ] {
            let error = parse(&text).expect_err(name).to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
        let error = parse(&GOOD.replace("token = \"5ec4e7\"", "token = 5ec4e7"))
            .expect_err("no string")
            .to_string();
        assert!(!error.contains("5ec4e7"), "the token is in {error}");
    }

    #[test]
    fn where_aws_answers_is_said_by_the_file_and_by_the_variables_that_its_sdks_read() {
        let text = format!("{GOOD}ssm_endpoint = \"https://of.file\"\n");
        let said = |variables: &'static [(&str, &str)]| {
            let env = move |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                let value = found.map(|(_, value)| (*value).to_owned());
                match value.as_deref() {
                    Some("not text") => Err(NotText {
                        name: name.to_owned(),
                    }),
                    _ => Ok(value),
                }
            };
            parse(&text).unwrap().with_environment(env)
        };
        let of_file: AwsEndpoint = "https://of.file".parse().unwrap();
        let of_shell: AwsEndpoint = "https://of.shell".parse().unwrap();
        let empty = said(&[("AWS_ENDPOINT_URL_SSM", "")]).unwrap().aws;
        assert_eq!(
            (empty.ssm, empty.secrets_manager),
            (Some(of_file.clone()), None)
        );
        let manager = said(&[("AWS_ENDPOINT_URL_SECRETS_MANAGER", "https://of.shell")]);
        let manager = manager.unwrap().aws;
        assert_eq!(manager.ssm, Some(of_file));
        assert_eq!(manager.secrets_manager, Some(of_shell.clone()));
        let ssm = said(&[("AWS_ENDPOINT_URL_SSM", "https://of.shell")]);
        assert_eq!(ssm.unwrap().aws.ssm, Some(of_shell));
        let bad = said(&[("AWS_ENDPOINT_URL_SSM", "not text")]).expect_err("not UTF-8");
        let bad = bad.to_string();
        assert!(bad.ends_with("AWS_ENDPOINT_URL_SSM is not UTF-8"), "{bad}");
        let bad = said(&[("AWS_ENDPOINT_URL_SSM", "of.shell")]).expect_err("no address");
        assert!(bad.to_string().contains("AWS_ENDPOINT_URL_SSM"), "{bad}");
    }

    #[test]
    fn addresses_split() {
        assert_eq!(split_address("[::1]:7440"), Some(("::1", 7440)));
        assert_eq!(split_address("m.example:1"), Some(("m.example", 1)));
        for bad in ["", "m", "m:", ":1", "m:0", "m:65536"] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
        for (address, wanted) in [
            ("[fd00::1]:7440", true),
            ("10.0.0.1:7440", true),
            ("a-b_c.example:1", true),
            ("0.0.0.0:7440", false),
            ("[::]:7440", false),
            ("a:b:1", false),
            ("a b:1", false),
            ("http://a:1", false),
        ] {
            assert_eq!(is_dialable(address), wanted, "{address}");
        }
    }
}
