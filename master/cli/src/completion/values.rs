//! Which values are completed by which names: told by what the help calls the value, so that a new flag is completed as soon
//! as it is there.

use std::ffi::OsStr;
use std::sync::Arc;

use aot_proto::v1::BuiltinName;
use clap::Command;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};

use super::names::{KnownName, LiveNames};

/// Most names that are offered at once: a screen of them helps, ten thousand don't.
const MAX_OFFERED: usize = 500;

/// Characters of what is said of a name.
const MAX_ABOUT_CHARS: usize = 60;

/// The command and all below it, with completions.
pub(super) fn with_names(command: Command, names: &Arc<LiveNames>) -> Command {
    let of_command = command.get_name().to_owned();
    let command = command.mut_args(|arg| {
        let value = arg.get_value_names().and_then(|all| all.first());
        let completer =
            value.and_then(|value| completer(&of_command, value, arg.get_id().as_str(), names));
        match completer {
            Some(completer) => arg.add(completer),
            None => arg,
        }
    });
    command.mut_subcommands(|sub| with_names(sub, names))
}

fn completer(
    command: &str,
    value: &str,
    arg: &str,
    names: &Arc<LiveNames>,
) -> Option<ArgValueCompleter> {
    let names = Arc::clone(names);
    Some(match (command, value, arg) {
        ("logs", "TARGET", "target") => by(move |typed| {
            let mut all = targets(&names, typed);
            all.extend(of("last", &names, typed));
            all
        }),
        ("plan", "FILE|TARGET", _) => {
            let files = PathCompleter::any();
            ArgValueCompleter::new(move |typed: &OsStr| {
                let mut all = typed
                    .to_str()
                    .map_or_else(Vec::new, |typed| candidates(targets(&names, typed)));
                all.extend(files.complete(typed));
                all
            })
        }
        (_, "TARGET", _) => by(move |typed| targets(&names, typed)),
        (_, "ID", _) => by(move |typed| of("last", &names, typed)),
        (_, "STAGE", _) => by(move |typed| beginning(names.stages(), "", typed)),
        (_, "CLUSTER", _) | (_, "NAME", "cluster") => {
            by(move |typed| beginning(names.clusters(), "", typed))
        }
        ("shell", "NAME", "name") | ("inventory", "NAME", "host") => {
            by(move |typed| beginning(names.instances(), "", typed))
        }
        ("exec", "COMMAND", _) => by(|typed| beginning(builtins(), "", typed)),
        (_, "SRC... DST", _) => {
            let files = PathCompleter::any();
            ArgValueCompleter::new(move |typed: &OsStr| {
                let mut all = typed.to_str().map_or_else(Vec::new, |typed| {
                    candidates(beginning(operands(&names), "", typed))
                });
                all.extend(files.complete(typed));
                all
            })
        }
        _ => return None,
    })
}

/// Of a word that is text; nothing is completed of others.
fn by(find: impl Fn(&str) -> Vec<KnownName> + Send + Sync + 'static) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let found = typed.to_str().map(&find);
        candidates(found.unwrap_or_default())
    })
}

/// A shell shows them on its terminal as they are: names that could play with that are left out, and what is said of others is
/// made plain.
fn candidates(names: Vec<KnownName>) -> Vec<CompletionCandidate> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace();
    let is_plain = |it: &KnownName| !it.name.chars().any(is_odd) && it.name.is_ascii();
    let candidate = |name: KnownName| {
        let printable = name.about.chars().take(MAX_ABOUT_CHARS);
        let about: String = printable
            .map(|c| {
                if c == ' ' || c.is_ascii_graphic() {
                    c
                } else {
                    '?'
                }
            })
            .collect();
        let about = Some(about).filter(|about| !about.is_empty());
        CompletionCandidate::new(name.name).help(about.map(Into::into))
    };
    let plain = names.into_iter().filter(is_plain);
    plain.take(MAX_OFFERED).map(candidate).collect()
}

/// The names that begin as typed, behind what stands before them.
fn beginning(names: Vec<KnownName>, before: &str, typed: &str) -> Vec<KnownName> {
    let fit = names.into_iter().filter(|it| it.name.starts_with(typed));
    fit.map(|it| KnownName::new(format!("{before}{}", it.name), it.about))
        .collect()
}

/// The last part of a target: in a list behind its commas, and behind `pool:` or `name:`.
fn targets(names: &Arc<LiveNames>, typed: &str) -> Vec<KnownName> {
    let (before, part) = typed
        .rsplit_once(',')
        .map_or(("", typed), |(before, part)| {
            (&typed[..=before.len()], part)
        });
    let prefixed = |prefix: &str, all: Vec<KnownName>| {
        let rest = part.strip_prefix(prefix)?;
        Some(beginning(all, &format!("{before}{prefix}"), rest))
    };
    if part.starts_with("pool:") {
        return prefixed("pool:", names.pools()).unwrap_or_default();
    }
    if part.starts_with("name:") {
        return prefixed("name:", names.instances()).unwrap_or_default();
    }
    let all = [names.instances(), names.pools(), names.groups()].concat();
    beginning(all, before, part)
}

/// Jobs, by their ids with and without `job-`, and the word for the newest.
fn of(last: &str, names: &Arc<LiveNames>, typed: &str) -> Vec<KnownName> {
    let mut all = vec![KnownName::new(last, "the newest job")];
    let is_short = !typed.is_empty() && !"job-".starts_with(typed) && !typed.starts_with("job-");
    all.extend(names.jobs().iter().map(|job| {
        let id = job.name.strip_prefix("job-").filter(|_| is_short);
        KnownName::new(id.unwrap_or(&job.name), &job.about)
    }));
    beginning(all, "", typed)
}

/// The remote side of a copy, up to its path.
fn operands(names: &Arc<LiveNames>) -> Vec<KnownName> {
    let all = [names.instances(), names.pools()].concat();
    let operand = |it: KnownName| KnownName::new(format!("{}:/", it.name), it.about);
    all.into_iter().map(operand).collect()
}

fn builtins() -> Vec<KnownName> {
    let all = BuiltinName::ALL.iter().map(|name| name.as_str());
    all.map(|name| KnownName::new(name, "answered by the agent"))
        .collect()
}
