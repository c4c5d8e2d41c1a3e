//! Arguments of `exec`, and the rule that tells a built-in from a command. Pure.

use std::path::PathBuf;
use std::time::Duration;

use aot_proto::builtin::{Builtin, NAMES};
use clap::Args;

use super::args::Narrow;
use super::error::Error;
use super::shape::OutputArgs;

/// Arguments of `exec`.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecArgs {
    /// Which instances: '*', 'web*', web1,web2, 'pool:web and not name:web3', state:failed
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Less than that.
    #[command(flatten)]
    pub narrow: Narrow,
    /// A built-in (ping, facts, version, stat PATH, tail PATH [LINES]), or what to run: words, or one quoted shell line
    #[arg(value_name = "COMMAND")]
    pub words: Vec<String>,
    /// What to run on the host, exactly as written here
    #[arg(value_name = "COMMAND ARGS", last = true)]
    pub after: Vec<String>,
    /// Run the words, joined by blanks, as one line of /bin/sh
    #[arg(long)]
    pub shell: bool,
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
    /// What the command reads, at most 1 MiB: a file, or this command's own input with `-` or without a value
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub stdin: Option<PathBuf>,
    /// Output that is kept of each instance (500K, 10MiB, 2G); what is past it is counted [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub output_cap: Option<u64>,
    /// Print the job's id and return; the job goes on
    #[arg(short, long)]
    pub detach: bool,
    /// How it goes over them.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Keep it this long for instances that are absent, instead of settling them at once (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub queue: Option<Duration>,
    /// How output is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How a job goes over its targets.
#[derive(Debug, Clone, Default, Args)]
pub struct PaceArgs {
    /// At most so many at a time: a number, or a percentage of the targets
    #[arg(long, value_name = "N|P%", value_parser = at_least_one)]
    pub concurrency: Option<String>,
    /// Start nothing more once more than so many have not succeeded
    #[arg(long, value_name = "N|P%", value_parser = amount)]
    pub max_errors: Option<String>,
    /// The first so many alone, and nothing more unless all of them succeed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub canary: Option<u32>,
    /// Time between the end of one batch of --concurrency and the start of the next
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "concurrency")]
    pub batch_wait: Option<Duration>,
}

/// `KEY=VALUE` with a key.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted".to_owned()),
    }
}

/// `10`, `25%`.
fn amount(text: &str) -> Result<String, String> {
    let good = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<u8>().is_ok_and(|percent| percent <= 100),
        None => text.parse::<u32>().is_ok(),
    };
    match good {
        true => Ok(text.to_owned()),
        false => Err("a number, or a percentage up to 100%, is wanted".to_owned()),
    }
}

/// `1`, `1%`; not `0`.
fn at_least_one(text: &str) -> Result<String, String> {
    match amount(text)?.trim_end_matches('%').parse::<u32>() {
        Ok(0) => Err("at least 1, or 1%, is wanted".to_owned()),
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
        _ => return Err("a size like 500K, 10MiB or 2GiB is wanted".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok();
    match bytes.and_then(|bytes| bytes.checked_mul(1 << shift)) {
        None => Err("a size like 500K, 10MiB or 2GiB is wanted".to_owned()),
        Some(0) => Err("at least 1 byte is wanted".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

/// What `exec` was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The agent answers by itself; its arguments.
    Builtin(String, Vec<String>),
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
    pub fn what(&self) -> Result<What, Error> {
        if !self.words.is_empty() && !self.after.is_empty() {
            return Err(Error::usage(
                format!(
                    "exec: {:?} stands before --, and a command after it",
                    self.words.join(" ")
                ),
                "put the whole command after --",
            ));
        }
        if self.words.is_empty() && self.after.is_empty() {
            return Err(self.missing());
        }
        if self.shell {
            let line = [&self.words[..], &self.after[..]].concat().join(" ");
            return Ok(What::Run(sh(&line)));
        }
        match (&self.words[..], &self.after[..]) {
            ([], after) => Ok(What::Run(after.to_vec())),
            ([name, args @ ..], _) if is_builtin(name, args.len()) => self.builtin(name, args),
            ([line], _) if needs_shell(line) => Ok(What::Run(sh(line))),
            (words, _) => Ok(What::Run(words.to_vec())),
        }
    }

    fn missing(&self) -> Error {
        let hint = match &self.stdin {
            Some(path) if path.as_os_str() != "-" => {
                "--stdin has taken the word after it; say --stdin=- or put the command after --"
            }
            _ => "aot-master exec TARGET ping, or aot-master exec TARGET -- COMMAND ARGS",
        };
        Error::usage("exec: what to run is missing", hint)
    }

    fn builtin(&self, name: &str, args: &[String]) -> Result<What, Error> {
        if let Some(flag) = self.flag_of_a_command() {
            return Err(Error::usage(
                format!("exec: {flag} means nothing for {name}, which the agent answers by itself"),
                format!(
                    "leave it out, or put the command after --: exec TARGET {flag} ... -- {name}"
                ),
            ));
        }
        Builtin::parse(name, args).map_err(|bad| {
            let shape = match name {
                "stat" => "aot-master exec TARGET stat /etc/hosts",
                _ => "aot-master exec TARGET tail /var/log/syslog 50",
            };
            let hint = format!("{shape}; what stands after -- is run on the host instead");
            Error::usage(format!("exec: {name}: {bad}"), hint)
        })?;
        Ok(What::Builtin(name.to_owned(), args.to_vec()))
    }

    /// A flag that is only for what runs on the host.
    fn flag_of_a_command(&self) -> Option<&'static str> {
        let pace = &self.pace;
        let given = [
            (!self.env.is_empty(), "--env"),
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

/// Whether this word with so many after it names a built-in: `ping` only alone, `stat` with whatever follows.
fn is_builtin(word: &str, args: usize) -> bool {
    match word {
        "stat" | "tail" => true,
        _ => args == 0 && NAMES.contains(&word),
    }
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
