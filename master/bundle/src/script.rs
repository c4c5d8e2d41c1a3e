//! Whether bash can run a bundle's script as it was meant, seen by how the script begins. Pure.

use std::path::{Path, PathBuf};

use super::BundleError;

/// Shells whose scripts bash runs, or nearly.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];
/// Bytes of an interpreter's name that an error quotes.
const SHOWN_BYTES: usize = 60;

/// What bash would make something else of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptFault {
    what: String,
    hint: &'static str,
}

impl ScriptFault {
    /// As the error of a bundle at `path`, whose script is `file` in it.
    pub(crate) fn of(self, path: &Path, file: &Path) -> BundleError {
        let mut script = PathBuf::from(path);
        script.push(file);
        BundleError::Script {
            path: script,
            what: self.what,
            hint: self.hint,
        }
    }
}

/// Looks at the first bytes of a script.
pub(super) fn check(head: &[u8]) -> Result<(), ScriptFault> {
    let bad = |what: &str, hint| {
        Err(ScriptFault {
            what: what.to_owned(),
            hint,
        })
    };
    if head.starts_with(b"\xef\xbb\xbf") {
        return bad(
            "begins with a byte order mark, which bash reads as part of the first command",
            "save it as UTF-8 without BOM",
        );
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return bad(
            "is UTF-16, which bash can't read",
            "save it as UTF-8 without BOM",
        );
    }
    if head.starts_with(b"\x7fELF") {
        return bad(
            "is a program, and bash runs it as a script",
            "start the program from a bootstrap.sh",
        );
    }
    if has_windows_line_ends(head) {
        return bad(
            "has Windows line endings (CRLF): bash reads the carriage return as part of each line, so that even `set -e` \
             fails",
            "convert it with `dos2unix` or `sed -i 's/\\r$//'`; with git, `*.sh text eol=lf` in .gitattributes keeps it so",
        );
    }
    match interpreter(head) {
        Some(name) if !SHELLS.contains(&name.as_str()) => Err(ScriptFault {
            what: format!("asks for {name:?} in its first line, but it is run by bash"),
            hint: "call the other script from a bootstrap.sh",
        }),
        _ => Ok(()),
    }
}

/// In the first line, or in most lines: a few in a here-document may be meant.
fn has_windows_line_ends(head: &[u8]) -> bool {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n').peekable();
    let first = lines.peek().is_some_and(|line| line.ends_with(b"\r\n"));
    let (mut windows, mut all) = (0, 0);
    for line in lines.filter(|line| line.ends_with(b"\n")) {
        all += 1;
        windows += usize::from(line.ends_with(b"\r\n"));
    }
    first || windows * 2 > all
}

/// The program that the first line asks for, without its folder and arguments; of `env`, the one that it starts.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(&line[..line.len().min(1024)]).into_owned();
    let mut words = line.split_ascii_whitespace().map(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        name.chars().take(SHOWN_BYTES).collect::<String>()
    });
    let first = words.next()?;
    match first.as_str() {
        "env" => words.find(|word| !word.starts_with('-') && !word.contains('=')),
        "busybox" => words.next().or(Some(first)),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_bash_runs_as_they_are_meant_pass() {
        for good in [
            "",
            "true",
            "set -e\necho\n",
            "#!/bin/sh\ntrue\n",
            "#! /usr/bin/env bash\n",
            "#!/usr/bin/env -S LANG=C bash -e\n",
            "#!/bin/busybox sh\n",
            "cat <<X\nGET / HTTP/1.1\r\n\r\nX\ntrue\ntrue\n",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn scripts_that_bash_makes_something_else_of_are_named() {
        for (bad, what) in [
            (&b"set -e\r\ncd /no\r\n"[..], "CRLF"),
            (b"#!/bin/bash\r\ntrue\n", "CRLF"),
            (b"true\na\r\nb\r\nc\r\n", "CRLF"),
            (b"\xef\xbb\xbf#!/bin/bash\n", "byte order mark"),
            (b"\xff\xfes\0e\0", "UTF-16"),
            (b"\x7fELF\x02", "program"),
            (b"#!/usr/bin/env python3\nimport os\n", "python3"),
            (b"#!/usr/bin/perl -w\n", "perl"),
        ] {
            let bad = check(bad).expect_err(what);
            assert!(bad.what.contains(what) && !bad.hint.is_empty(), "{bad:?}");
        }
    }
}
