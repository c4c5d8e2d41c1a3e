//! Who is logged in to a terminal, and what runs in it: decided by the agent, handed to the keeper and to the process that
//! becomes it as one argument.

use std::collections::BTreeMap;
use std::path::Path;

use aot_proto::ids::SpiffeId;
use aot_proto::v1::OpenShell;
use serde::{Deserialize, Serialize};

use crate::runner::command::Become;
use crate::runner::environment;
use crate::users;

/// Where no shell is known, or root's is not there.
const SHELL: &str = "/bin/sh";
/// Names of terminals are short (term(7)).
const MOST_TERM_BYTES: usize = 64;

/// What runs in a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Login {
    pub argv: Vec<String>,
    /// What the program gets as its name: `-bash` for a login shell. `None` = as it is called.
    pub arg0: Option<String>,
    /// Working folder; `/` when it can't be entered.
    pub cwd: String,
    /// Another user than the agent's.
    pub become_user: Option<Become>,
    /// The whole environment; not part of the argument.
    #[serde(skip)]
    pub env: BTreeMap<String, String>,
}

impl Login {
    /// What `open` asks for, on this machine; `name` is who the agent is. Reads passwd(5), or asks getent(1).
    ///
    /// # Errors
    /// A line for a person, when there is no such user.
    pub(super) fn of(
        open: &OpenShell,
        name: Option<&SpiffeId>,
        etc: &Path,
        root_home: &Path,
    ) -> Result<Self, String> {
        let (mut env, become_user) = environment::login(&open.user, etc, root_home)?;
        let user = if open.user.is_empty() {
            "root"
        } else {
            &open.user
        };
        let shell = users::find(user, etc)
            .map(|found| found.shell)
            .filter(|shell| Path::new(shell).exists())
            .unwrap_or_else(|| SHELL.to_owned());
        env.insert("SHELL".to_owned(), shell.clone());
        env.insert("TERM".to_owned(), term(&open.term).to_owned());
        environment::own_variables(&mut env, name, etc);
        env.extend(
            open.env
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        let (argv, arg0) = match open.argv.as_slice() {
            [] => login_shell(&shell),
            argv => (argv.to_vec(), None),
        };
        let cwd = env.get("HOME").cloned().unwrap_or_default();
        Ok(Self {
            argv,
            arg0,
            cwd,
            become_user,
            env,
        })
    }
}

/// Told twice that it is a login shell, by its name and by `-l`: some heed only one of them.
fn login_shell(shell: &str) -> (Vec<String>, Option<String>) {
    let file = shell.rsplit('/').next().unwrap_or(shell);
    (
        vec![shell.to_owned(), "-l".to_owned()],
        Some(format!("-{file}")),
    )
}

/// A name that can be in an environment, else one that every machine knows.
fn term(asked: &str) -> &str {
    let good = !asked.is_empty()
        && asked.len() <= MOST_TERM_BYTES
        && asked.bytes().all(|byte| byte.is_ascii_graphic());
    if good { asked } else { "dumb" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etc() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nadmin:x:1000:1000::/home/admin:/no/such/shell\n";
        std::fs::write(dir.path().join("passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("group"), "sudo:x:27:admin\n").unwrap();
        dir
    }

    fn login(open: &OpenShell) -> Result<Login, String> {
        Login::of(open, None, etc().path(), Path::new("/root"))
    }

    #[test]
    fn without_a_command_the_login_shell_is_started_as_one() {
        let login = login(&OpenShell::default()).unwrap();
        assert_eq!(login.argv, ["/bin/sh", "-l"]);
        assert_eq!(login.arg0.as_deref(), Some("-sh"));
        assert_eq!((login.cwd.as_str(), login.become_user), ("/root", None));
        assert_eq!(login.env["SHELL"], "/bin/sh");
    }

    #[test]
    fn another_user_has_its_home_and_groups_and_a_shell_that_exists() {
        let open = OpenShell {
            user: "admin".to_owned(),
            ..OpenShell::default()
        };
        let login = login(&open).unwrap();
        let user = login.become_user.unwrap();
        assert_eq!((user.uid, user.groups), (1000, vec![1000, 27]));
        assert_eq!(
            (login.cwd.as_str(), &login.argv[0][..]),
            ("/home/admin", SHELL)
        );
        assert_eq!(login.env["LOGNAME"], "admin");
    }

    #[test]
    fn an_unknown_user_is_refused_by_name() {
        let open = OpenShell {
            user: "nobody-here".to_owned(),
            ..OpenShell::default()
        };
        assert!(login(&open).unwrap_err().contains("nobody-here"));
    }

    #[test]
    fn a_command_is_run_as_it_is() {
        let open = OpenShell {
            argv: vec!["htop".to_owned(), "-d".to_owned()],
            ..OpenShell::default()
        };
        let login = login(&open).unwrap();
        assert_eq!((login.argv, login.arg0), (open.argv, None));
    }

    #[test]
    fn a_terminal_name_that_could_do_harm_is_dropped() {
        assert_eq!(term("xterm-256color"), "xterm-256color");
        for bad in ["", "a b", "x\0", "\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(term(bad), "dumb", "{bad:?}");
        }
    }
}
