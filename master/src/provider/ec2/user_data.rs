//! User-data: what a fresh machine runs to fetch the agent. Pure; the script is `packaging/user-data/boot.sh`.

use aot_proto::limits::MAX_USER_DATA_BYTES;

use crate::provider::BootSpec;

const SCRIPT: &str = include_str!("../../../../packaging/user-data/boot.sh");
/// As packages install it; its comments stay there.
const UNIT: &str = include_str!("../../../../packaging/systemd/aot-agent.service");

/// Between the parts; may not occur in them.
const BOUNDARY: &str = "==aot-user-data==";
/// Ends the texts inside the script; may not occur in them.
const HERE_END: &str = "AOT_END";

/// Why there is no user-data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Over EC2's limit.
    #[error(
        "the user-data has {0} bytes, and EC2 takes {MAX_USER_DATA_BYTES}: shorten cloud_config, or move what it does \
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
}

/// The user's cloud-config with the cluster's name put in. `$instance_name` and addresses differ from machine to
/// machine, so they stay as they are.
pub struct UserPart<'a> {
    /// The file's text.
    pub text: &'a str,
    /// For `$cluster_name`.
    pub cluster: &'a str,
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
        let body = user.text.replace("$cluster_name", user.cluster);
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
        "master = [{}]\ntoken = \"{}\"\nprovider = \"ec2\"\nca_pem = \"\"\"\n{}\n\"\"\"\n",
        masters.join(", "),
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
        return Err(Error::Unsafe("there is no agent with a SHA-256"));
    }
    Ok(())
}

/// The unit without its comments: user-data has little room.
fn unit() -> String {
    let lines = UNIT.lines().filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::contract::sample_spec;

    fn boot() -> BootSpec {
        sample_spec("c", "u", 1).boot
    }

    fn text(user: Option<&str>) -> Result<String, Error> {
        let user = user.map(|text| UserPart {
            text,
            cluster: "hadoop",
        });
        render(&boot(), user.as_ref()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_script_has_no_placeholder_left_and_is_a_shell_script() {
        let script = script(&boot()).unwrap();
        assert!(script.starts_with("#!/bin/sh\n"));
        for name in ["@MASTERS@", "@CA@", "@TOKEN@", "@SHAS@", "@TOML@", "@UNIT@"] {
            assert!(SCRIPT.contains(name) && !script.contains(name), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.sh");
        std::fs::write(&path, script).unwrap();
        for shell in ["sh", "bash", "dash"] {
            if let Ok(output) = std::process::Command::new(shell)
                .arg("-n")
                .arg(&path)
                .output()
            {
                assert!(
                    output.status.success(),
                    "{shell}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }

    #[test]
    fn the_settings_are_toml() {
        let table: toml::Table = format!("{}machine_id = \"i-1\"\n", toml(&boot()))
            .parse()
            .unwrap();
        assert_eq!(table["provider"].as_str(), Some("ec2"));
        assert_eq!(table["token"].as_str(), Some("00ff"));
        assert_eq!(table["master"][0].as_str(), Some("127.0.0.1:7440"));
        assert_eq!(
            table["ca_pem"].as_str().map(str::trim),
            Some(boot().ca_pem.trim())
        );
    }

    #[test]
    fn the_users_part_lies_beside_ours() {
        let plain = text(None).unwrap();
        assert!(plain.contains("text/x-shellscript") && !plain.contains("text/cloud-config"));
        assert!(
            plain.len() < 10_000,
            "{} bytes leave too little for the user",
            plain.len()
        );
        let both = text(Some(
            "#cloud-config\nfqdn: $cluster_name.example\nx: $private_ipv4\n",
        ))
        .unwrap();
        assert!(
            both.contains("Content-Type: text/cloud-config") && both.contains("filename=\"user\"")
        );
        assert!(both.contains("fqdn: hadoop.example\nx: $private_ipv4\n"));
        assert_eq!(both.matches(&format!("\n--{BOUNDARY}\n")).count(), 2);
        assert!(both.ends_with(&format!("\n--{BOUNDARY}--\n")));
        assert!(
            text(Some("#!/bin/sh\n"))
                .unwrap()
                .matches("text/x-shellscript")
                .count()
                == 2
        );
        assert_eq!(text(Some("hello")), Err(Error::UnknownPart));
    }

    #[test]
    fn the_limit_is_exact_and_names_the_way_out() {
        let start = "#cloud-config\n#";
        let room = MAX_USER_DATA_BYTES - text(Some(start)).unwrap().len();
        let fits = format!("{start}{}", "x".repeat(room));
        assert_eq!(text(Some(&fits)).unwrap().len(), MAX_USER_DATA_BYTES);
        let error = text(Some(&format!("{fits}x"))).unwrap_err();
        assert_eq!(error, Error::TooBig(MAX_USER_DATA_BYTES + 1));
        assert!(error.to_string().contains("16385") && error.to_string().contains("cloud_config"));
    }

    #[test]
    fn nothing_that_a_shell_would_read_gets_in() {
        let bad: [fn(&mut BootSpec); 8] = [
            |boot| boot.master = vec!["a'; reboot #".into()],
            |boot| boot.master.clear(),
            |boot| boot.join_token = "$(x)".into(),
            |boot| boot.join_token = String::new(),
            |boot| boot.ca_pem = "AOT_END".into(),
            |boot| boot.ca_pem = "@TOKEN@".into(),
            |boot| boot.agent_sha256.clear(),
            |boot| drop(boot.agent_sha256.insert("x;y".into(), "ab".repeat(32))),
        ];
        for (index, spoil) in bad.iter().enumerate() {
            let mut boot = boot();
            spoil(&mut boot);
            assert!(
                matches!(render(&boot, None), Err(Error::Unsafe(_))),
                "case {index}"
            );
        }
        assert_eq!(
            text(Some("#cloud-config\n==aot-user-data==")),
            Err(Error::Unsafe("a part has the MIME boundary in it"))
        );
    }
}
