//! Arguments of `exec`, and the rule that tells a built-in from a command. Pure.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::Narrow;
use super::error::Error;

/// Arguments of `exec`.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecArgs {
    /// Which instances: '*', 'web*', web1,web2, 'pool:web and not name:web3', state:failed
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Less than that.
    #[command(flatten)]
    pub narrow: Narrow,
    /// A built-in (ping, facts, version), or what to run: one word or one quoted shell line
    #[arg(value_name = "COMMAND")]
    pub words: Vec<String>,
    /// What to run on the host, exactly as written here
    #[arg(value_name = "COMMAND ARGS", last = true)]
    pub after: Vec<String>,
    /// Stop the command after this long (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// One more variable; can be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Folder to run in
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// User to run as [default: root]
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// File that the command reads as its input, at most 1 MiB; `-` is this command's own input
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Print the job's id and return; the job goes on
    #[arg(short, long)]
    pub detach: bool,
}

/// `KEY=VALUE` with a key.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted".to_owned()),
    }
}

/// What the agents answer by themselves.
pub const BUILTINS: [&str; 3] = ["ping", "facts", "version"];

/// What `exec` was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The agent answers by itself.
    Builtin(String),
    /// A program with its arguments is run on the host.
    Run(Vec<String>),
}

impl ExecArgs {
    /// After `--` all is a command; one word that is a built-in's name is that built-in; one word with blanks or shell
    /// signs in it is a line for `sh -c`; other words are a program and its arguments.
    ///
    /// # Errors
    /// When there is no command, or one on both sides of `--`.
    pub fn what(&self) -> Result<What, Error> {
        match (&self.words[..], &self.after[..]) {
            ([], []) => Err(Error::usage(
                "exec: what to run is missing",
                "aot-master exec TARGET ping, or aot-master exec TARGET -- COMMAND ARGS",
            )),
            ([], after) => Ok(What::Run(after.to_vec())),
            ([word], []) if BUILTINS.contains(&word.as_str()) => Ok(What::Builtin(word.clone())),
            ([line], []) if needs_shell(line) => Ok(What::Run(
                ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            )),
            (words, []) => Ok(What::Run(words.to_vec())),
            (words, _) => Err(Error::usage(
                format!(
                    "exec: {:?} stands before --, and a command after it",
                    words.join(" ")
                ),
                "put the whole command after --",
            )),
        }
    }
}

/// Whether a single word is more than the name of a program.
fn needs_shell(line: &str) -> bool {
    !line
        .chars()
        .all(|c| c.is_alphanumeric() || "_./+:@%,-".contains(c))
}
