//! Texts that machines say, made harmless for logs, tables and terminals.

use std::borrow::Cow;

/// Longest text of a machine that is kept, in bytes of UTF-8. What is past it is cut, and the cut is shown.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Longest version, boot id or architecture.
pub const MAX_NAME_BYTES: usize = 128;

/// Whether a character moves the cursor, ends a line, turns the direction of what follows, or is not seen at all: C0 and
/// C1 controls (ECMA-48), the line and paragraph separators, and Unicode's bidirectional controls (UAX #9, table 3) and
/// byte order mark.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One harmless line of at most `most` bytes, and `…` where it was cut. Line ends and tabs become spaces, other harmful
/// characters `\u{fffd}`.
pub fn cleaned(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len().min(most) + '…'.len_utf8());
    for c in text.chars() {
        let c = match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            c if is_harmful(c) => '\u{fffd}',
            c => c,
        };
        if clean.len() + c.len_utf8() > most {
            clean.push('…');
            break;
        }
        clean.push(c);
    }
    Cow::Owned(clean)
}

/// [`cleaned`], of a text that is owned, at [`MAX_TEXT_BYTES`]; one that is harmless stays as it is.
pub fn clean(text: &mut String) {
    clean_to(text, MAX_TEXT_BYTES);
}

/// [`clean`], at another length.
pub fn clean_to(text: &mut String, most: usize) {
    if let Cow::Owned(clean) = cleaned(text, most) {
        *text = clean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_one_line_that_moves_nothing() {
        let table = [
            ("disk failure", "disk failure"),
            ("naïve ☃ 漢字", "naïve ☃ 漢字"),
            ("\x1b]0;x\x07", "\u{fffd}]0;x\u{fffd}"),
            ("a\nb\r\tc\u{2028}d", "a b  c d"),
            (
                "\u{9b}2J\u{202e}txt\u{2066}\u{feff}\x7f",
                "\u{fffd}2J\u{fffd}txt\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("", ""),
        ];
        for (text, clean) in table {
            assert_eq!(cleaned(text, MAX_TEXT_BYTES), clean, "{text:?}");
        }
        assert_eq!(cleaned("ééé", 5), "éé…");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_harmless(text in ".{0,200}", raw in prop::collection::vec(any::<char>(), 0..200), most in 0usize..300) {
            for text in [text, raw.into_iter().collect()] {
                let clean = cleaned(&text, most);
                prop_assert!(clean.len() <= most + '…'.len_utf8());
                prop_assert!(!clean.contains(is_harmful));
                let again = cleaned(&clean, most + '…'.len_utf8());
                prop_assert_eq!(&again, &clean);
            }
        }
    }
}
