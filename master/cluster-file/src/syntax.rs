//! YAML as a stream of events, before it becomes values: mistakes of syntax at their true place, and tags, which are lost in
//! values. Decides nothing about a cluster.

use std::ops::Range;

use granit_parser::{Event, Marker, Parser, Tag};
use serde_saphyr::Location;

use super::report::Mistake;

/// Tags of other programs that are met in cluster files, and what there is instead.
const KNOWN: [(&[&str], &str); 5] = [
    (
        &[
            "Ref",
            "Sub",
            "GetAtt",
            "Join",
            "ImportValue",
            "FindInMap",
            "If",
            "Base64",
            "Select",
            "Split",
            "GetAZs",
            "Cidr",
        ],
        "it belongs to CloudFormation and is not evaluated here: write the value itself",
    ),
    (
        &["include", "include_dir_list", "import"],
        "files cannot be included: use `defaults`, `extends` and YAML anchors (&name, *name)",
    ),
    (
        &["vault", "vault-encrypted", "unsafe"],
        "it belongs to Ansible and is not decrypted here: secrets do not belong in this file",
    ),
    (
        &["env", "ENV", "env_var", "secret"],
        "write ${env:NAME} for a variable of the environment",
    ),
    (
        &["reference"],
        "it belongs to GitLab: use YAML anchors (&name, *name)",
    ),
];

/// Reads all events of the text.
///
/// # Errors
/// The first mistake of syntax, or the first tag that means nothing here.
pub(super) fn check(text: &str) -> Result<(), Mistake> {
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = range(text, *error.marker());
            if let Some(tab) = tab_near(text, at.start) {
                return tab;
            }
            let is_bare = has_bare_variable(text, at.start);
            let mistake = Mistake::new(at, "", format!("invalid YAML: {}", error.info()));
            match is_bare {
                true => {
                    mistake.help("between `{}` or `[]`, quote what has a variable: \"${name}\"")
                }
                false => mistake,
            }
        })?;
        if let Some(tag) = event.tag().filter(|tag| !is_standard(tag)) {
            let start = range(text, span.tag_start.unwrap_or(span.start)).start;
            let word = text[start..].split(|c: char| c.is_whitespace() || ",]}".contains(c));
            let len = word.map(str::len).next().unwrap_or(0);
            return Err(unknown(tag, start..start + len));
        }
        if matches!(event, Event::StreamEnd) {
            break;
        }
    }
    Ok(())
}

/// Those of YAML's core schema (YAML 1.2.2, 10.3), and `!`, which says that a value is text.
fn is_standard(tag: &Tag) -> bool {
    let (handle, suffix) = tag.original_parts();
    tag.is_yaml_core_schema() || matches!((handle, suffix), ("", "!") | ("!", ""))
}

fn unknown(tag: &Tag, span: Range<usize>) -> Mistake {
    let name = tag.original();
    let bare = tag.suffix().rsplit([':', '!']).next().unwrap_or_default();
    let known = KNOWN.iter().find(|(names, _)| {
        names
            .iter()
            .any(|known| bare == *known || bare.starts_with(&format!("{known}.")))
    });
    let help = known.map_or(
        "only YAML's own tags are known here, such as !!str and !!int; in quotes it is text",
        |(_, help)| help,
    );
    let shown: String = name.chars().take(60).collect();
    Mistake::new(span, "", format!("the tag {shown} is not known here")).help(help)
}

/// The range of a mark; an empty range where there is no character to point at.
fn range(text: &str, mark: Marker) -> Range<usize> {
    let start = mark
        .byte_offset()
        .filter(|at| text.is_char_boundary(*at))
        .or_else(|| text.char_indices().nth(mark.index()).map(|(at, _)| at));
    let start = start.unwrap_or(text.len()).min(last_character(text));
    let len = text[start..]
        .chars()
        .next()
        .filter(|c| *c != '\n')
        .map_or(0, char::len_utf8);
    start..start + len
}

/// A tab that indents the line of a mistake, or the next one: it is the mistake, whatever it was taken for.
fn tab_near(text: &str, at: usize) -> Option<Mistake> {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let next = text[line..].find('\n').map(|end| line + end + 1);
    let tab = [Some(line), next].into_iter().flatten().find_map(|start| {
        let rest = &text[start..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        rest[..blanks].find('\t').map(|tab| start + tab)
    })?;
    let problem = Mistake::new(tab..tab + 1, "", "invalid YAML: a tab indents this line");
    Some(problem.help("indent with spaces"))
}

/// Whether the line of a mistake has `${` without quotes in front of it, whose brace YAML takes for a mapping's.
fn has_bare_variable(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line..].lines().next().unwrap_or_default();
    let quoted = |at: usize| line[..at].matches(['"', '\'']).count() % 2 == 1;
    line.match_indices("${").any(|(at, _)| !quoted(at))
}

/// Where the last character that is not a space begins: a mistake that shows only at the end of the file is put there.
fn last_character(text: &str) -> usize {
    let last = text.char_indices().rev().find(|(_, c)| !c.is_whitespace());
    last.map_or(0, |(at, _)| at)
}

/// A place that is known by line and column only.
pub(super) fn at_line(text: &str, at: Location) -> Range<usize> {
    let number = |given: u64| usize::try_from(given).unwrap_or(usize::MAX).max(1) - 1;
    let (line, column) = (number(at.line()), number(at.column()));
    let mut start = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        if index == line {
            let inside = whole.char_indices().nth(column).map_or(0, |(byte, _)| byte);
            return start + inside..start + inside;
        }
        start += whole.len();
    }
    let end = last_character(text);
    end..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::position;

    fn at(text: &str) -> (usize, usize, String) {
        let problem = check(text).expect_err(text);
        let (line, column) = position(text, problem.span.start);
        (line, column, problem.message)
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let mut wrong = Vec::new();
        let head = "cluster: c\nprovider: local\npools:\n";
        for (text, line) in [
            ("  - name: w\n    size: 2\n\towner: me\n", 6),
            ("  - name: w\n    size: 1\n    owner: a: b\n", 6),
            ("  - name: w\n   size: 1\n", 5),
            ("  - {name: w, size: 1, owner: *nope}\n", 4),
            ("  - {name: w, owner: é, x: *nope}\n", 4),
            ("  - name: \"w\n    size: 1\n", 5),
            ("  - {name: w\n  - name: b\n", 4),
            ("  - name: w\n  size: 1\n", 5),
            ("  - name: @x\n", 4),
            ("  - name: [a, b\n\n\n", 4),
        ] {
            let text = format!("{head}{text}");
            let crlf = text.replace('\n', "\r\n");
            for text in [&text, &crlf, &format!("\u{feff}{text}")] {
                let (found, column, message) = at(text);
                if found != line || message.contains(" at line ") {
                    wrong.push(format!(
                        "{text:?}: {message} at {found}:{column}, not {line}"
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn tags_of_other_programs_are_refused_with_a_way_out() {
        for (text, place, hint) in [
            ("a: !Ref web\n", (1, 4), "CloudFormation"),
            ("a: 1\nb: !Sub \"${X}\"\n", (2, 4), "CloudFormation"),
            ("a: {b: !GetAtt.x [1]}\n", (1, 8), "CloudFormation"),
            ("a: !include f\n", (1, 4), "anchors"),
            ("a:\n  - !vault |\n    xyz\n", (2, 5), "Ansible"),
            ("a: !env HOME\n", (1, 4), "environment"),
            ("a: !<tag:example.com,2000:x> 1\n", (1, 4), "text"),
            ("a: !!timestamp 2001-01-01\n", (1, 4), "text"),
            ("!mine {a: 1}\n", (1, 1), "text"),
            ("!mine a: 1\n", (1, 1), "text"),
        ] {
            let problem = check(text).expect_err(text);
            assert_eq!(position(text, problem.span.start), place, "{text}");
            let help = problem.help.expect("a way out");
            assert!(help.contains(hint), "{text}: {help}");
        }
        for good in [
            "a: !!str 1\n",
            "a: !!int \"3\"\n",
            "a: ! x\n",
            "a: !!seq [1]\n",
            "a: \"!Ref x\"\n",
            "",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
    }
}
