//! What a shell completes. `aot-master completion SHELL` prints a script that has the shell ask this program itself, with
//! [`VARIABLE`] set: it knows its own commands and flags, and asks the master that runs for names. It never starts one, and
//! without an answer in [`names::WITHIN`] it completes what it knows by itself.

mod names;
mod values;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::sync::Arc;

use clap_complete::env::{EnvCompleter, Shells};

use super::CliEnv;
use crate::args::CompletionShell;
use crate::view::Streams;
use names::LiveNames;

/// Set by the script, to the shell that asks.
const VARIABLE: &str = "AOT_COMPLETE";

/// The program, as people type it.
const PROGRAM: &str = "aot-master";

/// Flags that say which master is meant: they hold for a completion too.
const OF_MASTER: [&str; 4] = ["--socket", "--state-dir", "--config", "--cluster"];

/// The script for a shell, to be read by it when it starts.
///
/// # Errors
/// None that a text in memory has.
pub fn script(shell: CompletionShell) -> io::Result<String> {
    let mut script = Vec::new();
    let completer = of_shell(shell.as_str())?;
    completer.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Answers a shell that asks for completions, if one does: then this is all that the process is for. `find` says where the
/// master is that a command line means, and which cluster.
pub fn answered(
    words: impl Iterator<Item = OsString>,
    find: impl FnOnce(Vec<OsString>) -> Option<(CliEnv, Option<String>)>,
) -> bool {
    let Some(shell) = std::env::var_os(VARIABLE).filter(|it| !it.is_empty()) else {
        return false;
    };
    let words: Vec<OsString> = words.skip_while(|word| word != "--").skip(1).collect();
    // Whatever is wrong, a line that is being typed is no place to say it.
    let _ = of_shell(&shell.to_string_lossy()).and_then(|completer| {
        let mut command = command(find(of_master(&words)));
        let mut answer = Vec::new();
        let folder = std::env::current_dir().ok();
        completer.write_complete(&mut command, words, folder.as_deref(), &mut answer)?;
        let mut out = Streams::of_process().stdout;
        out.write_all(&answer).and_then(|()| out.flush())
    });
    true
}

/// The parser, with completions of names where values are names.
fn command(master: Option<(CliEnv, Option<String>)>) -> clap::Command {
    let names = master.map(|(env, cluster)| LiveNames::new(env, cluster));
    values::with_names(super::command(), &Arc::new(names.unwrap_or_default()))
}

fn of_shell(name: &str) -> io::Result<&'static dyn EnvCompleter> {
    const SHELLS: Shells<'static> = Shells::builtins();
    let found = SHELLS.0.iter().copied().find(|shell| shell.is(name));
    found.ok_or_else(|| io::Error::other("a shell that is not known"))
}

/// A whole command line that means the same master as this unfinished one.
fn of_master(words: &[OsString]) -> Vec<OsString> {
    let mut found = vec![OsString::from(PROGRAM), "status".into()];
    let mut rest = words.iter().skip(1).take_while(|word| *word != "--");
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy();
        let (flag, has_value) = text
            .split_once('=')
            .map_or((&*text, false), |(flag, _)| (flag, true));
        if !OF_MASTER.contains(&flag) {
            continue;
        }
        if has_value {
            found.push(word.clone());
        } else if let Some(value) = rest.next().filter(|value| !value.is_empty()) {
            found.extend([word.clone(), value.clone()]);
        }
    }
    found
}

#[cfg(test)]
mod tests;
