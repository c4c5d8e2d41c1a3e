//! `ssh-config`: Host blocks for ssh, and the file of host keys that they name.

use std::path::{Path, PathBuf};

use aot_host::files;
use serde_json::json;

use super::Ctx;
use super::args::{MaybeTarget, SshConfigArgs};
use super::error::{Error, Exit};
use super::hosts::{LiveHost, find};

/// `aot-master ssh-config [TARGET]`. The file holds the keys of the whole cluster, whatever the target: blocks that were
/// printed before keep working.
///
/// # Errors
/// When nothing matches, the master can't be asked, or the file can't be written.
pub(crate) async fn ssh_config(ctx: &mut Ctx<'_>, args: SshConfigArgs) -> Result<Exit, Error> {
    let found = find(ctx, &args.which).await?;
    let all = match args.which.is_all() {
        true => found.instances.clone(),
        false => find(ctx, &MaybeTarget::default()).await?.instances,
    };
    let path = match args.known_hosts {
        Some(path) => path,
        None => ctx
            .env
            .state_dir
            .join(format!("known_hosts.{}", found.cluster)),
    };
    let path = std::path::absolute(&path).map_err(|source| Error::Write {
        path: path.clone(),
        source,
    })?;
    let named = in_config(&path)?;
    let way = match args.direct {
        true => None,
        false => Some(ProxyWay::of(ctx, &found.cluster)?),
    };
    write(&path, &known_hosts(&all))?;
    for live in &found.instances {
        let name = live.view.name.as_str();
        let address = live.address().or(way.as_ref().map(|_| name));
        let Some(address) = address else {
            ctx.message(&format!("{name} has no address yet"))?;
            continue;
        };
        let proxy = way.as_ref().map(|way| way.to(name));
        if live.host_keys().is_empty() {
            let text = "has not reported a host key: ssh will refuse it";
            ctx.message(&format!("{} {text}", live.view.name))?;
        }
        if ctx.json {
            let object = json!({
                "instance": live.view.name, "host_name": address, "user": live.user(),
                "host_keys": live.host_keys(), "known_hosts": path.display().to_string(),
                "proxy_command": proxy,
            });
            ctx.print(&object.to_string())?;
        } else {
            ctx.print(&block(live, address, proxy.as_deref(), &named))?;
        }
    }
    Ok(Exit::Well)
}

/// ssh_config(5). `HostKeyAlias` makes ssh look the key up by the instance's name, whatever its address is today.
fn block(live: &LiveHost, address: &str, proxy: Option<&str>, known_hosts: &str) -> String {
    let name = &live.view.name;
    let proxy = proxy.map_or_else(String::new, |command| format!("  ProxyCommand {command}\n"));
    let user = live
        .user()
        .map_or_else(String::new, |user| format!("  User {user}\n"));
    format!(
        "Host {name}\n  HostName {address}\n{user}{proxy}  HostKeyAlias {name}\n  UserKnownHostsFile {known_hosts}\n  \
         StrictHostKeyChecking yes\n"
    )
}

/// sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": a line for each key of each instance, by the instance's name.
fn known_hosts(all: &[LiveHost]) -> String {
    let mut text = String::new();
    for live in all {
        for key in live.host_keys() {
            text.push_str(&format!("{} {key}\n", live.view.name));
        }
    }
    text
}

/// How ssh gets to machines through their agents: this very program, asking this very master, whatever shell it is started from.
struct ProxyWay(String);

impl ProxyWay {
    fn of(ctx: &Ctx<'_>, cluster: &str) -> Result<Self, Error> {
        let program = std::env::current_exe().unwrap_or_else(|_| "aot-master".into());
        let (state_dir, socket) = (&ctx.env.state_dir, &ctx.env.socket);
        Ok(Self(format!(
            "{} --cluster {cluster} --state-dir {} --socket {} connect",
            in_command(&program)?,
            in_command(state_dir)?,
            in_command(socket)?
        )))
    }

    /// ssh_config(5), `ProxyCommand`. The name of an instance is a word that neither ssh nor a shell reads anything into.
    fn to(&self, name: &str) -> String {
        format!("{} {name} %p", self.0)
    }
}

/// A path as a shell has it, which ssh has expand `%` before.
fn in_command(path: &Path) -> Result<String, Error> {
    let bad = |c: char| c.is_control() || c == '\'';
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@=:".contains(c);
    match path.to_str().filter(|text| !text.contains(bad)) {
        Some(text) if text.chars().all(plain) => Ok(text.to_owned()),
        Some(text) => Ok(format!("'{}'", text.replace('%', "%%"))),
        None => Err(Error::usage(
            format!("ssh cannot use the path {}", path.display()),
            "use paths without quotes and line breaks, or --direct",
        )),
    }
}

/// The path as ssh_config(5) has it: in quotes, with `%` doubled. What ssh would read as something else is refused.
fn in_config(path: &Path) -> Result<String, Error> {
    let bad = |c: char| c.is_control() || matches!(c, '"' | '\\' | '$');
    match path.to_str().filter(|text| !text.contains(bad)) {
        Some(text) => Ok(format!("\"{}\"", text.replace('%', "%%"))),
        None => Err(Error::usage(
            format!("ssh cannot use the path {}", path.display()),
            "give --known-hosts FILE a path without quotes, backslashes, dollar signs and line breaks",
        )),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    files::write_atomic(path, text.as_bytes(), 0o600).map_err(|source| Error::Write {
        path: PathBuf::from(path),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::tests::key_of;
    use aot_proto::v1::InstanceView;
    use proptest::prelude::*;
    use serde_json::json;

    fn live(name: &str, user: &str, keys: &[String]) -> LiveHost {
        LiveHost {
            view: InstanceView {
                name: name.into(),
                public_ip: "192.0.2.1".into(),
                ..InstanceView::default()
            },
            facts: json!({"main_user": user, "ssh_host_keys": keys, "node": {"hostname": "x\nHost *"}}),
        }
    }

    #[test]
    fn a_path_in_a_command_is_one_word_of_it() {
        let word = |path: &str| in_command(Path::new(path));
        assert_eq!(
            word("/usr/bin/aot-master").expect("fine"),
            "/usr/bin/aot-master"
        );
        assert_eq!(word("/a b/%h;x").expect("fine"), "'/a b/%%h;x'");
        for bad in ["/a'b", "/a\nb"] {
            assert!(word(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_told_so_that_ssh_reads_them_back() {
        assert_eq!(
            in_config(Path::new("/a b/%h")).expect("fine"),
            "\"/a b/%%h\""
        );
        for bad in ["/a\"b", "/a\nb", "/${HOME}/x", "/a\\b"] {
            assert!(in_config(Path::new(bad)).is_err(), "{bad}");
        }
    }

    /// What ssh(1) itself makes of a block, where it is installed: `ssh -G` prints its settings and connects to nothing.
    #[test]
    fn ssh_reads_a_block_as_it_is_meant() {
        let dir = tempfile::tempdir().expect("a folder");
        let hosts = dir.path().join("known hosts");
        let named = in_config(&hosts).expect("fine");
        let web1 = live("web1", "admin", &[key_of("ssh-ed25519")]);
        let config = dir.path().join("config");
        let way = ProxyWay("/opt/a --cluster c connect".to_owned());
        let proxy = way.to("web1");
        let text = block(&web1, "192.0.2.1", Some(&proxy), &named);
        std::fs::write(&config, text).expect("written");
        write(&hosts, &known_hosts(&[web1])).expect("written");
        let ssh = |program: &str, args: &[&str]| {
            let output = std::process::Command::new(program)
                .args(args)
                .output()
                .ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let Some(read) = ssh("ssh", &["-G", "-F", &config.display().to_string(), "web1"]) else {
            eprintln!("no ssh here: the text alone is tested");
            return;
        };
        for line in [
            "hostname 192.0.2.1",
            "user admin",
            "hostkeyalias web1",
            "proxycommand /opt/a --cluster c connect web1 %p",
            &format!("userknownhostsfile {}", hosts.display()),
            "stricthostkeychecking true",
        ] {
            assert!(read.lines().any(|it| it == line), "{line} in:\n{read}");
        }
        let found = ssh(
            "ssh-keygen",
            &["-F", "web1", "-f", &hosts.display().to_string()],
        );
        assert!(found.is_none_or(|text| text.contains(&key_of("ssh-ed25519"))));
    }

    proptest! {
        #[test]
        fn no_claim_makes_a_line_of_its_own(
            user in "[ -~\n\r\t]{0,20}",
            keys in prop::collection::vec("(ssh-rsa|@cert-authority|\\*|\n)[ -~\n\r]{0,30}", 0..4),
        ) {
            let mut keys = keys;
            keys.push(format!("{}{user}", key_of("ssh-rsa")));
            let web1 = live("web1", &user, &keys);
            let text = block(&web1, "192.0.2.1", Some("p"), "\"/k\"");
            let words: Vec<&str> = text.lines().map(|line| line.trim().split(' ').next().unwrap_or("")).collect();
            let without: Vec<&str> = words.iter().copied().filter(|word| *word != "User").collect();
            prop_assert_eq!(
                without,
                [
                    "Host", "HostName", "ProxyCommand", "HostKeyAlias", "UserKnownHostsFile",
                    "StrictHostKeyChecking"
                ]
            );
            prop_assert!(words.len() <= 7);
            for line in known_hosts(&[web1]).lines() {
                let words: Vec<&str> = line.split(' ').collect();
                prop_assert!(words.len() == 3 && words[0] == "web1" && words[1] == "ssh-rsa", "{:?}", line);
            }
        }
    }
}
