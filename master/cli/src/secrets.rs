//! Values of secrets that the file has this command read: variables, files, what commands print. They go to the master in the request,
//! and nowhere else. Which there are, the reader of the file says.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aot_proto::limits::MAX_SECRET_BYTES;
use aot_proto::secret::check_value;
use aot_proto::v1::{SecretValue, Variables};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::Error;

/// How long a command may take, which may ask a person.
const PATIENCE: Duration = Duration::from_secs(300);

/// A secret whose value the command line reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSecret {
    /// Its name.
    pub name: String,
    /// Where its value is.
    pub origin: SecretOrigin,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretOrigin {
    /// In this variable of the environment.
    Env(String),
    /// In this file, byte for byte.
    File(PathBuf),
    /// What a command prints, without line ends behind it.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Where it is run.
        dir: PathBuf,
    },
}

/// The secrets of a file by its text, its path and what is given beside it: none where it can't be read, which the master then
/// says.
pub type ReadSecrets = fn(&str, &Path, &Variables) -> Vec<OperatorSecret>;

/// Of the environment of this process: a value need not be text.
pub(crate) fn variable_of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Reads the values, one after the other, as a person may be asked for each; `env` is the environment.
///
/// # Errors
/// For the first that can't be had or used, by its name and without its value.
pub(crate) async fn read_all(
    secrets: Vec<OperatorSecret>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<SecretValue>, Error> {
    let mut values = Vec::with_capacity(secrets.len());
    for OperatorSecret { name, origin } in secrets {
        let value = read(&origin, &env).await;
        let value = value.and_then(|value| {
            let checked = check_value(&value, false).map_err(|error| error.to_string());
            checked.map(|()| value)
        });
        let value = value.map_err(|why| {
            let what = format!("cannot read the secret {name:?}: {why}");
            Error::usage(what, hint(&origin))
        })?;
        values.push(SecretValue {
            name,
            value,
            env: String::new(),
        });
    }
    Ok(values)
}

async fn read(
    origin: &SecretOrigin,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<u8>, String> {
    match origin {
        SecretOrigin::Env(variable) => {
            let value = env(variable).map(OsString::into_vec);
            value.ok_or_else(|| format!("the environment variable {variable} is not set"))
        }
        SecretOrigin::File(path) => {
            let failed = |error| format!("cannot read {}: {error}", path.display());
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            bounded(file).await.map_err(failed)
        }
        SecretOrigin::Command { argv, dir } => printed(argv, dir).await,
    }
}

/// What a command prints. Its standard input and standard error are this command's: it may ask whoever is there.
async fn printed(argv: &[String], dir: &Path) -> Result<Vec<u8>, String> {
    let (program, args) = argv.split_first().ok_or("its command is empty")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let failed = |error| format!("cannot run {program} in {}: {error}", dir.display());
    let mut child = command.spawn().map_err(failed)?;
    let stdout = child.stdout.take().ok_or("its command has no output")?;
    let work = async {
        let value = bounded(stdout).await?;
        Ok::<_, std::io::Error>((value, child.wait().await?))
    };
    let late = |_| format!("its command took longer than {} s", PATIENCE.as_secs());
    let (mut value, status) = timeout(PATIENCE, work)
        .await
        .map_err(late)?
        .map_err(failed)?;
    // One that prints too much is ended by our not reading on: its length says more.
    if !status.success() && value.len() <= MAX_SECRET_BYTES {
        return Err(format!("its command ended with {status}"));
    }
    while value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value)
}

/// One byte more than a secret may have, so that one that is too long is not taken for a shorter one.
async fn bounded(from: impl AsyncReadExt + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_SECRET_BYTES as u64 + 1;
    from.take(most).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn hint(origin: &SecretOrigin) -> String {
    match origin {
        SecretOrigin::Env(variable) => {
            format!("export {variable}=...; `sudo` passes few variables on")
        }
        SecretOrigin::File(_) => "a relative path starts at the folder of the file".to_owned(),
        SecretOrigin::Command { .. } => {
            "it is run in the folder of the file, and its output is the value".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(origin: SecretOrigin) -> Vec<OperatorSecret> {
        let name = "db".to_owned();
        vec![OperatorSecret { name, origin }]
    }

    fn command(line: &str, dir: &Path) -> SecretOrigin {
        SecretOrigin::Command {
            argv: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            dir: dir.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_value_is_read_as_it_is_where_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        std::fs::write(&path, b"\xff\x00key\n").expect("written");
        let env = |name: &str| match name {
            "DB" => Some("from env ".into()),
            "BYTES" => Some(OsString::from_vec(b"\xff\xfe key\n".to_vec())),
            _ => None,
        };
        for (origin, want) in [
            (SecretOrigin::Env("DB".to_owned()), &b"from env "[..]),
            (SecretOrigin::Env("BYTES".to_owned()), b"\xff\xfe key\n"),
            (SecretOrigin::File(path), b"\xff\x00key\n"),
            (command("cat key; echo", dir.path()), b"\xff\x00key"),
        ] {
            let read = read_all(of(origin), env).await.expect("reads");
            assert_eq!((&*read[0].name, &*read[0].value), ("db", want));
        }
    }

    #[tokio::test]
    async fn what_can_not_be_had_is_told_by_name_and_without_any_of_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = dir.path().join("long");
        std::fs::write(&long, vec![b'x'; MAX_SECRET_BYTES + 1]).expect("written");
        let env = |name: &str| (name == "SHORT").then(|| "abc".into());
        for (origin, said) in [
            (
                SecretOrigin::Env("GONE".to_owned()),
                "variable GONE is not set",
            ),
            (SecretOrigin::Env("SHORT".to_owned()), "fewer than 4 bytes"),
            (SecretOrigin::File(dir.path().join("none")), "No such file"),
            (SecretOrigin::File(long), "more than 64 KiB"),
            (
                command("echo hunter2; exit 3", dir.path()),
                "exit status: 3",
            ),
            (command("true", dir.path()), "fewer than 4 bytes"),
            (command("yes hunter2", dir.path()), "more than 64 KiB"),
            (command("true", Path::new("/nonexistent")), "cannot run"),
        ] {
            let error = read_all(of(origin), env).await.expect_err(said).to_string();
            assert!(
                error.starts_with("cannot read the secret \"db\": "),
                "{error}"
            );
            assert!(
                error.contains(said) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
