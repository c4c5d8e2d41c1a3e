//! What comes from other machines, made fit for a terminal. Pure; used by the views of output.

use super::style::Style;

/// How lines of output are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Colours, when there are any.
    pub style: Style,
    /// Someone looks at standard output: nothing in a line may move the cursor or hide what it says.
    pub terminal: bool,
}

impl Look {
    /// What stands between a name and a line. On a terminal, where both streams meet, errors are told apart.
    pub fn bar(self, stderr: bool) -> String {
        match (stderr, self.terminal) {
            (true, true) => self.style.bad("!"),
            (true, false) => self.style.bad("|"),
            (false, _) => self.style.dim("|"),
        }
    }

    /// One line without its end: as it is, or harmless for a terminal.
    pub fn line(self, line: &[u8]) -> Vec<u8> {
        if self.terminal {
            harmless(line, self.style.colour).into_bytes()
        } else {
            line.to_vec()
        }
    }
}

/// What a terminal would show of a line: after the last carriage return, without sequences that move the cursor, other
/// control characters in caret notation (ECMA-48). Colours stay when `colour`, and end with the line.
fn harmless(line: &[u8], colour: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let seen = text
        .split('\r')
        .rfind(|part| !part.is_empty())
        .unwrap_or_default();
    let mut out = String::with_capacity(seen.len());
    let mut rest = seen;
    let mut painted = false;
    while let Some(c) = rest.chars().next() {
        if let Some(sequence) = control_sequence(rest) {
            if colour && sequence.ends_with('m') {
                out.push_str(sequence);
                painted = true;
            }
            rest = &rest[sequence.len()..];
            continue;
        }
        match c {
            '\t' => out.push(c),
            '\0'..='\x1f' => out.extend(['^', char::from(c as u8 + 0x40)]),
            '\x7f' => out.push_str("^?"),
            _ if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            // Text that turns the direction of what follows can make a line read as another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            _ => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    if painted {
        out.push_str("\x1b[0m");
    }
    out
}

/// The control sequence (CSI, ECMA-48 section 5.4) at the beginning of a text.
fn control_sequence(text: &str) -> Option<&str> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.find(|c: char| !matches!(c, ' '..='?'))?;
    matches!(body.as_bytes()[end], b'@'..=b'~').then(|| &text[..2 + end + 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_can_not_play_with_the_terminal() {
        for (line, plain) in [
            (&b"as it is \t\xc3\xa4"[..], "as it is \t\u{e4}"),
            (b"10%\r20%\r30%\r", "30%"),
            (b"dos\r", "dos"),
            (b"\r\r", ""),
            (b"a\x1b[2Jb\x1b[31mred\x1b[0m", "abred"),
            (b"\x1b]0;title\x07", "^[]0;title^G"),
            (b"\x00\x7f\x1b[", "^@^?^[["),
            (b"\xff\xc2\x9b", "\u{fffd}\u{fffd}"),
            ("a\u{202e}b".as_bytes(), "a\u{fffd}b"),
        ] {
            assert_eq!(harmless(line, false), plain, "{line:?}");
        }
        assert_eq!(harmless(b"\x1b[31mred\x1b[2J", true), "\x1b[31mred\x1b[0m");
    }

    #[test]
    fn where_nobody_looks_bytes_stay_as_they_are() {
        assert_eq!(Look::default().line(b"\xff\r\x1b[2J"), b"\xff\r\x1b[2J");
        assert_eq!(Look::default().bar(true), "|");
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let shown = harmless(&line, false);
            prop_assert!(shown.chars().all(|c| c == '\t' || !c.is_control()), "{:?}", shown);
        }
    }
}
