//! Arguments of `exec`, and the rule that tells a built-in from a command. Pure.

use std::path::PathBuf;
use std::time::Duration;

use aot_proto::builtin::Builtin;
use aot_proto::secret::{is_secret_name, is_secret_variable};
use aot_proto::v1::{BuiltinName, SecretUse};
use clap::Args;

use super::target::{Narrow, not_empty};
use crate::error::Error;
use crate::output_mode::OutputArgs;

/// Arguments of `exec`.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecArgs {
    /// Which instances: '*', 'web*', web1,web2, 'pool:web and not name:web3', state:failed
    #[arg(value_name = "TARGET", value_parser = not_empty)]
    pub target: String,
    /// What narrows it.
    #[command(flatten)]
    pub narrow: Narrow,
    /// A built-in (ping, facts, version, stat PATH, tail PATH [LINES]), a program with arguments, or one quoted shell line
    #[arg(value_name = "COMMAND")]
    pub words: Vec<String>,
    /// Program and arguments to run on the host, exactly as given
    #[arg(value_name = "COMMAND ARGS", last = true)]
    pub after: Vec<String>,
    /// Join the words with spaces and run them as one line of /bin/sh
    #[arg(long)]
    pub shell: bool,
    /// Stop the command after this long (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Environment variable; can be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Secret of the cluster, as the file $AOT_SECRETS/NAME, and as a variable where one is named; can be repeated
    #[arg(long, value_name = "NAME[=VAR]", value_parser = secret)]
    pub secret: Vec<SecretUse>,
    /// Folder to run in
    #[arg(long, value_name = "DIR", value_parser = not_empty)]
    pub cwd: Option<String>,
    /// User to run as [default: root]
    #[arg(short, long, value_name = "NAME", value_parser = not_empty)]
    pub user: Option<String>,
    /// Input of the command, at most 1 MiB: a file, or the standard input with `-` or without a value
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub stdin: Option<PathBuf>,
    /// Output to keep per instance (500K, 10MiB, 2G); the rest is only counted [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub output_cap: Option<u64>,
    /// Print the job's id and return; the job continues
    #[arg(short, long)]
    pub detach: bool,
    /// How it goes over them.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Wait this long for absent instances, instead of reporting them absent at once (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub queue: Option<Duration>,
    /// How output is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How a job goes over its targets.
#[derive(Debug, Clone, Default, Args)]
pub struct PaceArgs {
    /// At most this many at a time: a number, or a percentage of the targets
    #[arg(long, value_name = "N|P%", value_parser = at_least_one)]
    pub concurrency: Option<String>,
    /// Stop starting targets after more than this many have not succeeded
    #[arg(long, value_name = "N|P%", value_parser = amount)]
    pub max_errors: Option<String>,
    /// Run the first N alone; continue only if all of them succeed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub canary: Option<u32>,
    /// Wait this long between batches of --concurrency
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "concurrency")]
    pub batch_wait: Option<Duration>,
}

/// `NAME`, or `NAME=VARIABLE`.
fn secret(text: &str) -> Result<SecretUse, String> {
    let (name, env) = text.split_once('=').unwrap_or((text, ""));
    if !is_secret_name(name) {
        return Err("expected the name of a secret, or NAME=VARIABLE".to_owned());
    }
    if text.contains('=') && !is_secret_variable(env) {
        return Err(format!("{env:?} can't be a variable of a secret"));
    }
    Ok(SecretUse {
        name: name.to_owned(),
        env: env.to_owned(),
    })
}

/// `KEY=VALUE` with a key.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `10`, `25%`.
pub(super) fn amount(text: &str) -> Result<String, String> {
    let good = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<u8>().is_ok_and(|percent| percent <= 100),
        None => text.parse::<u32>().is_ok(),
    };
    match good {
        true => Ok(text.to_owned()),
        false => Err("expected a number, or a percentage up to 100%".to_owned()),
    }
}

/// `1`, `1%`; not `0`.
pub(super) fn at_least_one(text: &str) -> Result<String, String> {
    match amount(text)?.trim_end_matches('%').parse::<u32>() {
        Ok(0) => Err("expected at least 1, or 1%".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// `100`, `500K`, `500KiB`, `10M`, `2GiB`: bytes; the units are powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("expected a size like 500K, 10MiB or 2GiB".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok();
    match bytes.and_then(|bytes| bytes.checked_mul(1 << shift)) {
        None => Err("expected a size like 500K, 10MiB or 2GiB".to_owned()),
        Some(0) => Err("expected at least 1 byte".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

/// What `exec` was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecAction {
    /// The agent answers by itself; its arguments.
    Builtin(BuiltinName, Vec<String>),
    /// A program with its arguments is run on the host.
    Run(Vec<String>),
}

impl ExecArgs {
    /// After `--` all is a command. Before it, a built-in's name alone is that built-in, and what follows the name of one
    /// that takes arguments are these; one word with blanks or shell signs in it is a line for `sh -c`; other words are
    /// a program and its arguments. With `--shell` all is one line for `sh -c`.
    ///
    /// # Errors
    /// When there is no command, one on both sides of `--`, or a flag or an argument that a built-in does not take.
    pub fn what(&self) -> Result<ExecAction, Error> {
        if !self.words.is_empty() && !self.after.is_empty() {
            return Err(Error::usage(
                format!(
                    "exec: {:?} is before --, and a command after it",
                    self.words.join(" ")
                ),
                "put the whole command after --",
            ));
        }
        if self.words.is_empty() && self.after.is_empty() {
            return Err(self.missing());
        }
        if self
            .words
            .iter()
            .chain(&self.after)
            .next()
            .is_some_and(String::is_empty)
        {
            return Err(Error::usage(
                "exec: what to run is empty",
                "name a command, or leave out the quotes around a variable that may be empty",
            ));
        }
        if self.shell {
            let line = [&self.words[..], &self.after[..]].concat().join(" ");
            return Ok(ExecAction::Run(sh(&line)));
        }
        match (&self.words[..], &self.after[..]) {
            ([], after) => Ok(ExecAction::Run(after.to_vec())),
            ([name, args @ ..], _) if let Some(name) = builtin_name(name, args.len()) => {
                self.builtin(name, args)
            }
            ([line], _) if needs_shell(line) => Ok(ExecAction::Run(sh(line))),
            (words, _) => Ok(ExecAction::Run(words.to_vec())),
        }
    }

    fn missing(&self) -> Error {
        let hint = match &self.stdin {
            Some(path) if path.as_os_str() != "-" => {
                "--stdin used the word after it as its value; write --stdin=- or put the command after --"
            }
            _ => "aot-master exec TARGET ping, or aot-master exec TARGET -- COMMAND ARGS",
        };
        Error::usage("exec: what to run is missing", hint)
    }

    fn builtin(&self, name: BuiltinName, args: &[String]) -> Result<ExecAction, Error> {
        if let Some(flag) = self.flag_of_a_command() {
            return Err(Error::usage(
                format!("exec: {flag} has no effect on {name}, which the agent answers itself"),
                format!(
                    "leave it out, or put the command after --: exec TARGET {flag} ... -- {name}"
                ),
            ));
        }
        Builtin::parse(name.as_str(), args).map_err(|bad| {
            let shape = match name {
                BuiltinName::Stat => "aot-master exec TARGET stat /etc/hosts",
                _ => "aot-master exec TARGET tail /var/log/syslog 50",
            };
            let hint = format!("{shape}; what comes after -- is run on the host instead");
            Error::usage(format!("exec: {name}: {bad}"), hint)
        })?;
        Ok(ExecAction::Builtin(name, args.to_vec()))
    }

    /// A flag that is only for what runs on the host.
    fn flag_of_a_command(&self) -> Option<&'static str> {
        let pace = &self.pace;
        let given = [
            (!self.env.is_empty(), "--env"),
            (!self.secret.is_empty(), "--secret"),
            (self.cwd.is_some(), "--cwd"),
            (self.user.is_some(), "--user"),
            (self.stdin.is_some(), "--stdin"),
            (self.output_cap.is_some(), "--output-cap"),
            (self.detach, "--detach"),
            (self.queue.is_some(), "--queue"),
            (pace.concurrency.is_some(), "--concurrency"),
            (pace.max_errors.is_some(), "--max-errors"),
            (pace.canary.is_some(), "--canary"),
            (self.output.out.is_some(), "--out"),
            (self.output.fold, "--fold"),
            (self.output.no_fold, "--no-fold"),
        ];
        given
            .into_iter()
            .find(|(given, _)| *given)
            .map(|(_, flag)| flag)
    }
}

/// The built-in that a word with this many after it names: `ping` only alone, `stat` with whatever follows.
fn builtin_name(word: &str, args: usize) -> Option<BuiltinName> {
    let name = BuiltinName::from_name(word)?;
    let takes_more = matches!(name, BuiltinName::Stat | BuiltinName::Tail);
    (args == 0 || takes_more).then_some(name)
}

fn sh(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

/// Whether a single word is more than the name of a program.
fn needs_shell(line: &str) -> bool {
    !line
        .chars()
        .all(|c| c.is_alphanumeric() || "_./+:@%,-".contains(c))
}
