//! What an operator is called in records: the login name of whoever connects to the operators' socket, and behind sudo that of
//! the person. The kernel says who has connected and as whom that process logged in; [`person`] decides. Found out once for each
//! connection, when it is taken.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aot_host::users::name_in;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::UCred;
use tokio::process::Command;

/// Longest name that goes on record, in signs.
const MOST_SIGNS: usize = 64;

/// How much of a process's environment is read: more than any shell has, and what is beyond it counts as not set.
const MOST_ENVIRONMENT: u64 = 1 << 20;

/// A directory of users may be asked over the network; who has no name by then is called by the number.
const WITHIN: Duration = Duration::from_secs(2);

/// What the kernel has as the login of a process that nobody logged in for, such as a service.
const NOBODY_LOGGED_IN: u32 = u32::MAX;

/// An operator's name, as it goes on record: of ASCII signs without spaces, but for a number behind it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorName(Arc<str>);

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a process that has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SocketPeer {
    uid: u32,
    /// As whom somebody logged in, whose process this is, whatever it became by sudo or su since.
    login_uid: Option<u32>,
    /// `SUDO_USER` of its environment.
    sudo_user: Option<String>,
}

/// Who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Person {
    Number(u32),
    Named(String),
}

/// The one who logged in; where nobody did, whom sudo names to root; else the process's own user.
fn person(caller: SocketPeer) -> Person {
    match (caller.login_uid, caller.sudo_user) {
        (Some(uid), _) => Person::Number(uid),
        (None, Some(name)) if caller.uid == 0 && !name.is_empty() => Person::Named(name),
        (None, _) => Person::Number(caller.uid),
    }
}

/// A name as it can stand in a header, a table and a shell. One that had to be changed is not unique any more, so the number goes
/// with it.
fn recorded(name: &str, uid: Option<u32>) -> String {
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || "._-@+$\\".contains(sign);
    let plain: String = name
        .chars()
        .map(|sign| if is_plain(sign) { sign } else { '_' })
        .take(MOST_SIGNS)
        .collect();
    match uid {
        Some(uid) if plain != name => format!("{plain} (uid {uid})"),
        _ => plain,
    }
}

/// Where the kernel and the machine are asked.
#[derive(Debug, Clone)]
struct NameSources {
    proc: PathBuf,
    passwd: PathBuf,
}

impl NameSources {
    fn own() -> Self {
        Self {
            proc: "/proc".into(),
            passwd: "/etc/passwd".into(),
        }
    }

    async fn caller(&self, uid: u32, pid: Option<i32>) -> SocketPeer {
        // A process of another pid namespace has no number here.
        let folder = pid.filter(|pid| *pid > 0);
        let folder = folder.map(|pid| self.proc.join(pid.to_string()));
        let login_uid = match &folder {
            Some(folder) => login_uid(folder).await,
            None => None,
        };
        let sudo_user = match &folder {
            Some(folder) if uid == 0 && login_uid.is_none() => sudo_user(folder).await,
            _ => None,
        };
        SocketPeer {
            uid,
            login_uid,
            sudo_user,
        }
    }

    /// The login name of a user: by the file, else by getent(1), which asks what the machine's NSS does.
    async fn login_name(&self, uid: u32) -> Option<String> {
        let text = tokio::fs::read_to_string(&self.passwd).await;
        if let Some(name) = text
            .ok()
            .and_then(|text| name_in(uid, &text).map(str::to_owned))
        {
            return Some(name);
        }
        let mut getent = Command::new("getent");
        getent
            .args(["passwd", &uid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let output = getent.output().await.ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        name_in(uid, &text).map(str::to_owned)
    }

    async fn name(&self, uid: u32, pid: Option<i32>) -> Option<String> {
        match person(self.caller(uid, pid).await) {
            Person::Named(name) => Some(recorded(&name, None)),
            Person::Number(uid) => {
                let name = self.login_name(uid).await;
                let name = name.filter(|name| !name.is_empty());
                Some(name.map_or_else(|| by_number(uid), |name| recorded(&name, Some(uid))))
            }
        }
    }
}

fn by_number(uid: u32) -> String {
    format!("uid {uid}")
}

/// See proc_pid_loginuid(5).
async fn login_uid(process: &Path) -> Option<u32> {
    let text = tokio::fs::read_to_string(process.join("loginuid")).await;
    let uid = text.ok()?.trim().parse().ok()?;
    (uid != NOBODY_LOGGED_IN).then_some(uid)
}

/// See proc_pid_environ(5): the environment that the process began with.
async fn sudo_user(process: &Path) -> Option<String> {
    let file = tokio::fs::File::open(process.join("environ")).await.ok()?;
    let mut all = Vec::new();
    let read = file.take(MOST_ENVIRONMENT).read_to_end(&mut all).await;
    read.ok()?;
    let all = String::from_utf8_lossy(&all);
    let set = all.split('\0').find_map(|it| it.strip_prefix("SUDO_USER="));
    set.map(str::to_owned)
}

/// The name of whoever has this end of a connection. Takes two seconds at most.
pub(crate) async fn of(peer: UCred) -> OperatorName {
    let named = NameSources::own();
    let named = tokio::time::timeout(WITHIN, named.name(peer.uid(), peer.pid()));
    let name = named.await.ok().flatten();
    OperatorName(name.unwrap_or_else(|| by_number(peer.uid())).into())
}

/// The name of whoever runs a test.
#[cfg(test)]
pub(crate) async fn own() -> String {
    let (one, _other) = tokio::net::UnixStream::pair().expect("a pair");
    of(one.peer_cred().expect("credentials")).await.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_is_who_logged_in_whatever_the_process_became() {
        let caller = |uid, login_uid, sudo_user: Option<&str>| SocketPeer {
            uid,
            login_uid,
            sudo_user: sudo_user.map(str::to_owned),
        };
        let named = |name: &str| Person::Named(name.to_owned());
        for (caller, wanted) in [
            (caller(0, Some(1000), None), Person::Number(1000)),
            (caller(0, Some(1000), Some("bob")), Person::Number(1000)),
            (caller(0, Some(0), Some("bob")), Person::Number(0)),
            (caller(0, None, Some("bob")), named("bob")),
            (caller(0, None, Some("")), Person::Number(0)),
            (caller(0, None, None), Person::Number(0)),
            (caller(99, None, Some("root")), Person::Number(99)),
            (caller(99, Some(1000), None), Person::Number(1000)),
        ] {
            assert_eq!(person(caller.clone()), wanted, "{caller:?}");
        }
    }

    #[test]
    fn a_name_can_stand_anywhere_and_is_nobody_elses() {
        let long = "x".repeat(MOST_SIGNS + 1);
        for (name, wanted) in [
            ("alice", "alice"),
            ("a.b-c_d@example.com", "a.b-c_d@example.com"),
            ("CORP\\alice", "CORP\\alice"),
            ("jörg", "j_rg (uid 7)"),
            ("bob at b", "bob_at_b (uid 7)"),
            ("a\u{1b}[31m\n", "a__31m_ (uid 7)"),
            (&long, &format!("{} (uid 7)", "x".repeat(MOST_SIGNS))),
        ] {
            assert_eq!(recorded(name, Some(7)), wanted);
        }
        assert_eq!(recorded("bob at b", None), "bob_at_b");
    }

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, NameSources) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("5")).expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("writes");
        }
        let machine = NameSources {
            proc: dir.path().to_owned(),
            passwd: dir.path().join("passwd"),
        };
        (dir, machine)
    }

    const PASSWD: (&str, &str) = (
        "passwd",
        "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\naot:x:99:99::/:/bin/false\n",
    );

    #[tokio::test]
    async fn a_process_is_named_by_what_the_kernel_says_of_it() {
        let unset = ("5/loginuid", "4294967295");
        let sudo = ("5/environ", "A=1\0XSUDO_USER=eve\0SUDO_USER=bob\0B=2\0");
        for (files, uid, pid, wanted) in [
            (
                vec![PASSWD, ("5/loginuid", "1000"), sudo],
                0,
                Some(5),
                "alice",
            ),
            (vec![PASSWD, unset, sudo], 0, Some(5), "bob"),
            (vec![PASSWD, sudo], 0, Some(5), "bob"),
            (vec![PASSWD, unset, sudo], 99, Some(5), "aot"),
            (
                vec![PASSWD, unset, ("5/environ", "A=1\0")],
                0,
                Some(5),
                "root",
            ),
            (vec![PASSWD, sudo], 0, Some(0), "root"),
            (vec![PASSWD, sudo], 0, None, "root"),
            (vec![PASSWD], 0, Some(6), "root"),
            // Nobody has a name for it, neither the file nor getent.
            (vec![PASSWD], 4_000_000_123, Some(6), "uid 4000000123"),
        ] {
            let (_dir, machine) = machine(&files);
            let name = machine.name(uid, pid).await;
            assert_eq!(name.as_deref(), Some(wanted), "{files:?} {uid} {pid:?}");
        }
    }

    #[tokio::test]
    async fn the_own_process_has_a_name() {
        let name = own().await;
        assert!(!name.is_empty() && name.len() <= MOST_SIGNS + 17, "{name}");
    }
}
