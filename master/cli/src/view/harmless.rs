//! What others say, made harmless for a terminal. Pure; called by the one writer of a stream, and for JSON.
//!
//! Neutralised are the control characters of ISO/IEC 6429 (C0, DEL, C1) and what Unicode calls format characters (general
//! category Cf: they order, join or hide other characters without being seen), with the line separators and the letters
//! that have no glyph. See also "Trojan Source" (CVE-2021-42574).

use std::borrow::Cow;

/// Whether a character is not seen itself and changes how others are seen, or moves the cursor. Line feed and tab do so
/// too, but as everybody expects.
pub(super) fn deceives(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Nearly all that is ever asked about.
        ' '..='~' => false,
        c if c.is_control() => true,
        '\u{ad}'
        | '\u{34f}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// Any text: C0 and DEL in caret notation, all else that deceives as the replacement character. Lines stay lines.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push(c, &mut out));
    Cow::Owned(out)
}

/// The same in one line: what is said of one thing can't look like what is said of another.
pub(super) fn one_line(said: &str) -> Cow<'_, str> {
    match text(said) {
        text if text.contains('\n') => Cow::Owned(text.replace('\n', "^J")),
        text => text,
    }
}

fn push(c: char, out: &mut String) {
    match c {
        '\n' | '\t' => out.push(c),
        '\0'..='\x1f' => out.extend(['^', char::from(c as u8 + 0x40)]),
        '\x7f' => out.push_str("^?"),
        c if deceives(c) => out.push(char::REPLACEMENT_CHARACTER),
        c => out.push(c),
    }
}

/// What a terminal would show of a line of output: after the last carriage return, without sequences that move the
/// cursor, all else as in [`text`]. Colours of the program that printed it stay when `colour`, and end with the line.
pub(super) fn line(line: &[u8], colour: bool) -> String {
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
            if colour && is_colour(sequence) {
                out.push_str(sequence);
                painted = true;
            }
            rest = &rest[sequence.len()..];
            continue;
        }
        match c {
            '\n' => out.push_str("^J"),
            c => push(c, &mut out),
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

/// Selects a colour or a weight (SGR, ECMA-48 section 8.3.117), and does not conceal: digits, `;` and `:` alone are its
/// parameters, `<`, `=`, `>`, `?` and intermediates make other functions of it (xterm's modifyOtherKeys is `CSI > m`).
fn is_colour(sequence: &str) -> bool {
    let Some(parameters) = sequence
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'))
    else {
        return false;
    };
    let plain = |c: char| c.is_ascii_digit() || matches!(c, ';' | ':');
    parameters.chars().all(plain) && !conceals(parameters)
}

/// Parameter 8, which hides text; as a part of a colour (`38;5;8`) it is a number.
fn conceals(parameters: &str) -> bool {
    let mut numbers = parameters.split(';').map(|it| it.trim_start_matches('0'));
    while let Some(number) = numbers.next() {
        let parts = match number {
            "8" => return true,
            "38" | "48" | "58" => match numbers.next() {
                Some("5") => 1,
                Some("2") => 3,
                _ => 0,
            },
            _ => 0,
        };
        numbers.by_ref().take(parts).for_each(|_| {});
    }
    false
}

/// A JSON text that holds the same, with everything that deceives written as `\uXXXX` (RFC 8259, section 7). Such
/// characters are nowhere in JSON but in strings.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !deceives(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_can_not_play_with_the_terminal() {
        for (given, plain) in [
            (&b"as it is \t\xc3\xa4"[..], "as it is \t\u{e4}"),
            (b"10%\r20%\r30%\r", "30%"),
            (b"dos\r", "dos"),
            (b"\r\r", ""),
            (b"a\x1b[2Jb\x1b[31mred\x1b[0m", "abred"),
            (b"\x1b]0;title\x07", "^[]0;title^G"),
            (b"\x00\x7f\x1b[", "^@^?^[["),
            (b"\xff\xc2\x9b", "\u{fffd}\u{fffd}"),
            ("a\u{202e}b".as_bytes(), "a\u{fffd}b"),
            ("w\u{200b}b\u{feff}".as_bytes(), "w\u{fffd}b\u{fffd}"),
        ] {
            assert_eq!(line(given, false), plain, "{given:?}");
        }
    }

    #[test]
    fn colours_of_a_program_stay_and_nothing_else_does() {
        for (given, shown) in [
            ("\x1b[31mred\x1b[2J", "\x1b[31mred\x1b[0m"),
            ("\x1b[1;38;5;8mx", "\x1b[1;38;5;8mx\x1b[0m"),
            ("\x1b[48;2;8;8;8;8mx", "x"),
            ("\x1b[8mhidden", "hidden"),
            ("\x1b[1;08mhidden", "hidden"),
            ("\x1b[>4;1mkeys", "keys"),
            ("\x1b[?4m", ""),
            ("\x1b[0 m", ""),
        ] {
            assert_eq!(line(given.as_bytes(), true), shown, "{given:?}");
        }
    }

    #[test]
    fn lines_of_a_text_stay_and_what_is_one_line_stays_one() {
        assert_eq!(text("a\n\tb\r\n\x1b[31m"), "a\n\tb^M\n^[[31m");
        assert_eq!(one_line("a\nweb2  pong"), "a^Jweb2  pong");
        assert!(matches!(text("plain \u{e4} \u{1f600}"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_says_the_same_in_other_letters() {
        let value = serde_json::json!({"k\u{9b}": "a\u{202e}b\u{7f}\u{e0041}\n\u{1b}\u{e4}"});
        let escaped = json(&value.to_string()).into_owned();
        assert_eq!(
            escaped,
            r#"{"k\u009b":"a\u202eb\u007f\udb40\udc41\n\u001bä"}"#
        );
        let back: serde_json::Value = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(back, value);
    }

    proptest! {
        #[test]
        fn nothing_that_deceives_is_left(bytes in prop::collection::vec(any::<u8>(), 0..80), said in "\\PC*|(\\p{Cf}|\\p{Cc}|\\p{Zl}|\\p{Zp}|a){0,20}") {
            prop_assert!(!line(&bytes, false).contains(deceives));
            prop_assert!(!text(&said).contains(deceives));
            prop_assert!(!one_line(&said).contains('\n'));
            prop_assert!(!text(&said).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            let value = serde_json::Value::from(said.clone());
            let escaped = json(&value.to_string()).into_owned();
            prop_assert!(!escaped.contains(deceives));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).expect("JSON"), value);
        }

        /// The regular expressions of the property know the Unicode database; this list must not fall behind it.
        #[test]
        fn every_format_character_deceives(said in "[\\p{Cf}\\p{Zl}\\p{Zp}]") {
            prop_assert!(said.contains(deceives), "{:?}", said);
        }
    }
}
