//! User-data: what a fresh machine runs to fetch the agent. Pure; the script is `packaging/user-data/boot.sh`.

#![warn(unreachable_pub)]

mod stand_in;
pub mod variables;

pub use stand_in::{check_part, stand_in};

use aot_proto::limits::MAX_USER_DATA_BYTES;

use aot_model::spec::MemberSpec;
use aot_provider::BootSpec;

const SCRIPT: &str = include_str!("../../../packaging/user-data/boot.sh");
/// As packages install it; its comments stay there.
const UNIT: &str = include_str!("../../../packaging/systemd/aot-agent.service");

/// Between the parts; may not occur in them.
const BOUNDARY: &str = "==aot-user-data==";
/// Ends the texts inside the script; may not occur in them.
const HERE_END: &str = "AOT_END";

/// Why there is no user-data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Over EC2's limit.
    #[error(
        "the user-data has {0} bytes, and EC2 accepts {MAX_USER_DATA_BYTES}: shorten cloud_config, or move what it does \
         into a stage of bootstrap_sequence"
    )]
    TooBig(usize),
    /// Something to be put into the script that could break it.
    #[error("the user-data cannot be made: {0}")]
    Unsafe(&'static str),
    /// The user's part is of no kind that cloud-init knows.
    #[error(
        "cloud_config must start with #cloud-config, #!, #include, #cloud-boothook or ## template: jinja"
    )]
    UnknownPart,
    /// It names what each machine has of its own, where nothing can fill it in.
    #[error(
        "cloud_config uses {0}, which differs from machine to machine: that works in #cloud-config (not with `coreos:`), \
         #! and ## template: jinja; a stage has $AOT_INSTANCE"
    )]
    Differs(String),
    /// It wants a token that was not fetched.
    #[error("cloud_config uses $discovery_token, but no token was fetched: run launch again")]
    NoToken,
}

/// As long as a real token, to know beforehand whether all will fit.
pub const SAMPLE_TOKEN: &str = "https://discovery.etcd.io/00000000000000000000000000000000";

/// The user's cloud-config, and what is put in for its variables.
pub struct UserPart<'a> {
    /// The file's text.
    pub text: &'a str,
    /// For `$cluster_name`.
    pub cluster: &'a str,
    /// For `$discovery_token`.
    pub discovery_token: Option<&'a str>,
    /// For `$instance_name`: the machine with launch index N is member N.
    pub members: &'a [MemberSpec],
}

/// The whole for one batch, with the user's part of `boot`.
///
/// # Errors
/// Those of [`render`].
pub fn for_batch(
    boot: &BootSpec,
    cluster: &str,
    members: &[MemberSpec],
    discovery_token: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let user = boot.user_part.as_deref().map(|text| UserPart {
        text,
        cluster,
        discovery_token,
        members,
    });
    render(boot, user.as_ref())
}

/// The whole, as bytes before base64.
///
/// # Errors
/// When it is over 16,384 bytes (EC2 User Guide, "Work with instance user data"), or a part is unusable.
pub fn render(boot: &BootSpec, user: Option<&UserPart<'_>>) -> Result<Vec<u8>, Error> {
    let mut text =
        format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n");
    let mut part = |kind: &str, name: &str, body: &str| {
        if body.contains(BOUNDARY) {
            return Err(Error::Unsafe("a part has the MIME boundary in it"));
        }
        text.push_str(&format!(
            "\n--{BOUNDARY}\nContent-Type: {kind}; charset=\"utf-8\"\nContent-Disposition: attachment; filename=\"{name}\"\n\n{body}"
        ));
        Ok(())
    };
    part("text/x-shellscript", "aot-boot.sh", &script(boot)?)?;
    if let Some(user) = user {
        kind_of(user.text)?;
        let values = variables::Values {
            cluster: user.cluster,
            token: user.discovery_token,
            members: user.members,
        };
        let body = variables::fill(user.text, values)?;
        part(kind_of(&body)?, "user", &body)?;
    }
    text.push_str(&format!("\n--{BOUNDARY}--\n"));
    if text.len() > MAX_USER_DATA_BYTES {
        return Err(Error::TooBig(text.len()));
    }
    Ok(text.into_bytes())
}

/// MIME type of a part by its first line (cloud-init, "User data formats").
fn kind_of(body: &str) -> Result<&'static str, Error> {
    let kinds = [
        ("#cloud-config", "text/cloud-config"),
        ("#!", "text/x-shellscript"),
        ("#include", "text/x-include-url"),
        ("#cloud-boothook", "text/cloud-boothook"),
        ("## template: jinja", "text/jinja2"),
    ];
    let found = kinds.iter().find(|(start, _)| body.starts_with(start));
    found.map(|(_, kind)| *kind).ok_or(Error::UnknownPart)
}

/// The script with everything put in.
fn script(boot: &BootSpec) -> Result<String, Error> {
    check(boot)?;
    let masters = format!("'{}'", boot.master.join(" "));
    let shas: Vec<String> = boot
        .agent_sha256
        .iter()
        .map(|(arch, sha)| format!("{arch}) sha={sha} ;;"))
        .collect();
    let toml = toml(boot);
    let values = [
        ("@MASTERS@", masters.as_str()),
        ("@CA@", boot.ca_pem.trim_end()),
        ("@TOKEN@", &boot.join_token),
        ("@ROUTE@", &boot.route.to_string()),
        ("@SHAS@", &shas.join("\n")),
        ("@TOML@", toml.trim_end()),
        ("@UNIT@", &unit()),
    ];
    let mut text = SCRIPT.to_owned();
    for (name, value) in values {
        // Values can't hold a placeholder: `check` allows no @ in them.
        text = text.replace(name, value);
    }
    Ok(text)
}

/// agent.toml but for `machine_id`, which only the machine knows.
fn toml(boot: &BootSpec) -> String {
    let masters: Vec<String> = boot
        .master
        .iter()
        .map(|master| format!("\"{master}\""))
        .collect();
    format!(
        "master = [{}]\nroute = \"{}\"\ntoken = \"{}\"\nprovider = \"ec2\"\nca_pem = \"\"\"\n{}\n\"\"\"\n",
        masters.join(", "),
        boot.route,
        boot.join_token,
        boot.ca_pem.trim_end(),
    )
}

/// Only characters that mean nothing to a shell, to TOML, or to MIME.
fn check(boot: &BootSpec) -> Result<(), Error> {
    let all = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if boot.master.is_empty() || !boot.master.iter().all(|master| all(master, ".:-_[]")) {
        return Err(Error::Unsafe("an address of the master is not host:port"));
    }
    if !all(&boot.join_token, "-_.") {
        return Err(Error::Unsafe("the join token is not plain text"));
    }
    if !all(&boot.ca_pem, "+/= \n-") || boot.ca_pem.contains(HERE_END) {
        return Err(Error::Unsafe("the CA is not PEM"));
    }
    let hash = |sha: &str| sha.len() == 64 && sha.chars().all(|c| c.is_ascii_hexdigit());
    if boot.agent_sha256.is_empty()
        || !boot
            .agent_sha256
            .iter()
            .all(|(arch, sha)| all(arch, "_") && hash(sha))
    {
        return Err(Error::Unsafe("no agent with a SHA-256 was given"));
    }
    Ok(())
}

/// The unit without its comments: user-data has little room.
fn unit() -> String {
    let lines = UNIT.lines().filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
