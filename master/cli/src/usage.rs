//! What the parser says of a wrong command line, made true: its tips are written for other programs, and its usage lines
//! ask for what is only set in the environment. Pure, but for looking whether words are files here.

use std::ffi::OsString;

use clap::builder::{StyledStr, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::star;

/// Commands behind whose first word another program's command line may stand.
const RUN_PROGRAMS: [&str; 2] = ["exec", "shell"];

/// What people type who come from other programs, and what they mean by it.
const OF_OTHERS: [(&str, &str); 9] = [
    ("ping", "exec '*' ping"),
    ("get", "list"),
    ("ps", "list"),
    ("describe", "status TARGET"),
    ("destroy", "cleanup"),
    ("delete", "terminate TARGET"),
    ("kill", "jobs cancel"),
    ("top", "status"),
    ("upgrade", "restart"),
];

fn of_others(word: &str) -> Option<(&'static str, &'static str)> {
    OF_OTHERS.into_iter().find(|(theirs, _)| *theirs == word)
}

/// The error with a usage line of what the command takes, and with a tip that works.
pub(crate) fn made_true(
    mut error: clap::Error,
    command: &mut clap::Command,
    words: &[OsString],
    is_file: impl Fn(&str) -> bool,
) -> clap::Error {
    command.build();
    let words: Vec<String> = words
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut at = command;
    let mut name = None;
    let mut rest = words.as_slice();
    while let Some(place) = rest
        .iter()
        .position(|word| at.find_subcommand(word).is_some())
    {
        let word = rest[place].clone();
        rest = &rest[place + 1..];
        at = at
            .find_subcommand_mut(&word)
            .expect("it was found just now");
        name.get_or_insert(word);
        if !at.has_subcommands() {
            break;
        }
    }
    if error.get(ContextKind::Usage).is_some() {
        let usage = ContextValue::StyledStr(at.render_usage());
        error.insert(ContextKind::Usage, usage);
    }
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some((_, meant)) = words.first().and_then(|word| of_others(word))
    {
        let tip =
            ContextValue::StyledStrs(vec![StyledStr::from(format!("use aot-master {meant}"))]);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, tip);
    }
    if error.kind() == ErrorKind::UnknownArgument {
        correct_tip(&mut error, name.as_deref(), rest);
        if let Some(star) = star::hint(rest, is_file).filter(|star| star.is_sure) {
            let tip = ContextValue::StyledStrs(vec![StyledStr::from(star.text)]);
            error.insert(ContextKind::Suggested, tip);
        }
    }
    error
}

/// clap says `to pass '-c' as a value, use '-- -c'`, which is right for a file's name and wrong for a command.
fn correct_tip(error: &mut clap::Error, name: Option<&str>, rest: &[String]) {
    let Some(ContextValue::StyledStrs(tips)) = error.remove(ContextKind::Suggested) else {
        return;
    };
    let of_values = |tip: &StyledStr| tip.to_string().contains("as a value, use");
    let mut kept: Vec<StyledStr> = tips.iter().filter(|tip| !of_values(tip)).cloned().collect();
    if let Some(name) = name.filter(|name| RUN_PROGRAMS.contains(name))
        && kept.len() < tips.len()
    {
        let valid = Styles::styled();
        let valid = valid.get_valid();
        let line = with_dashes(name, rest);
        let tip = format!("the command's own options go after '--': {valid}{line}{valid:#}");
        kept.push(StyledStr::from(tip));
    }
    if !kept.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(kept));
    }
}

/// `aot-master exec node1 -- ping -c1 node2`, where the words let one know what was meant.
fn with_dashes(name: &str, rest: &[String]) -> String {
    match rest {
        [target, program, more @ ..] if !target.starts_with('-') && !program.starts_with('-') => {
            let more = more.iter().filter(|word| *word != "--");
            let words: Vec<String> = std::iter::once(program)
                .chain(more)
                .map(|word| quoted(word))
                .collect();
            format!(
                "aot-master {name} {} -- {}",
                quoted(target),
                words.join(" ")
            )
        }
        _ => format!("aot-master {name} TARGET -- COMMAND ARGS"),
    }
}

/// As a shell reads one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    fn said(words: &[&str]) -> String {
        let words = ["aot-master"].iter().chain(words).map(Into::into);
        let error = super::super::parse(words).expect_err("a wrong command line");
        error.render().to_string()
    }

    #[test]
    fn the_tip_for_a_programs_own_options_works() {
        let text = said(&["exec", "node1", "ping", "-c1", "it's"]);
        assert!(
            text.contains(r"aot-master exec node1 -- ping -c1 'it'\''s'"),
            "{text}"
        );
        assert!(!text.contains("as a value"), "{text}");
        let text = said(&["exec", "*", "--wrong", "x", "--", "ls"]);
        assert!(!text.contains("as a value"), "{text}");
        let text = said(&["list", "-x"]);
        assert!(
            text.contains("unexpected argument '-x'") && !text.contains("as a value"),
            "{text}"
        );
    }

    #[test]
    fn files_in_the_place_of_a_target_were_a_star() {
        let words = ["aot-master", "list", "Cargo.toml", "src"].map(OsString::from);
        let error = crate::command().try_get_matches_from_mut(&words);
        let error = error.expect_err("one word too many");
        let said = |is_file: fn(&str) -> bool| {
            let error = crate::command().try_get_matches_from_mut(&words);
            let error = error.expect_err("one word too many");
            let error = super::made_true(error, &mut crate::command(), &words, is_file);
            error.render().to_string()
        };
        assert!(said(|_| true).contains("quote it: '*'"), "{error}");
        assert!(!said(|word| word == "src").contains("quote it"));
    }

    #[test]
    fn words_of_other_programs_have_a_tip() {
        let text = said(&["ping"]);
        assert!(text.contains("use aot-master exec '*' ping"), "{text}");
        for (_, ours) in super::OF_OTHERS {
            let words = ours.split(' ').map(|word| word.trim_matches('\''));
            let words = std::iter::once("aot-master").chain(words);
            assert!(crate::parse(words.map(Into::into)).is_ok(), "{ours}");
        }
    }

    #[test]
    fn usage_names_what_is_wanted_and_nothing_else() {
        let text = said(&["facts", "--state-dir", "/x", "--socket", "/y"]);
        assert!(
            text.contains("Usage: aot-master facts [OPTIONS] <TARGET>"),
            "{text}"
        );
        let text = said(&["jobs", "follow", "--wrong"]);
        assert!(text.contains("Usage: aot-master jobs follow"), "{text}");
    }
}
