//! Colours, when there are any.
//!
//! A style is put into a text as a *mark*: characters that stand for a control sequence (ECMA-48, SGR) and become one only
//! in the writer of a stream ([`super::Out`]), after everything else in the text was made harmless. So control sequences
//! come from here and never out of data. A mark is drawn anew by each process, 64 bits: nobody else can say one.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use aot_proto::v1::Phase;

/// Where the characters of a mark come from: a plane for private use (Unicode, section 23.5), in which no other text is.
const PRIVATE: u32 = 0xF_0000;

/// What begins a mark; digits and an `m` follow.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        // Keyed by the system's random numbers. The library for cryptography would gather entropy of its own first, 30 ms of
        // a processor for every command.
        let bytes = RandomState::new().build_hasher().finish().to_le_bytes();
        let pair = |pair: &[u8]| PRIVATE + u32::from(pair[0]) * 256 + u32::from(pair[1]);
        let character = |pair_of: &[u8]| char::from_u32(pair(pair_of)).expect("planes are whole");
        bytes.chunks(2).map(character).collect()
    })
}

/// The text with its marks as control sequences, or without them.
pub(super) fn drawn(text: &str, colour: bool) -> Cow<'_, str> {
    let mark = mark();
    if !text.contains(mark) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').unwrap_or((part, ""));
        if colour {
            out.push_str(&format!("\x1b[{code}m"));
        }
        out.push_str(rest);
    }
    Cow::Owned(out)
}

/// What a library drew in colours, with marks in place of its control sequences. `plain` is the same without colours: when
/// there is an escape character even in that, it came out of data, and the plain text is taken.
pub(super) fn adopted(plain: &str, drawn: &str) -> String {
    if plain.contains('\x1b') {
        return plain.to_owned();
    }
    let mut parts = drawn.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end.map(|end| part.split_at(end)) {
            Some((code, rest)) if rest.starts_with('m') => {
                out.push_str(&format!("{}{code}{rest}", mark()));
            }
            _ => return plain.to_owned(),
        }
    }
    out
}

/// Whether and how words are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// False leaves every text as it is.
    pub colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            let mark = mark();
            format!("{mark}{code}m{text}{mark}0m")
        } else {
            text.to_owned()
        }
    }

    /// Well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Under way.
    pub fn busy(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// Waits for someone to step in.
    pub fn held(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// As it is.
    pub fn plain(self, text: &str) -> String {
        text.to_owned()
    }

    /// A text in the colour of a name: always the same one for the same name, and never red or dim.
    pub fn name(self, name: &str, text: &str) -> String {
        const CODES: [&str; 10] = ["32", "33", "34", "35", "36", "92", "93", "94", "95", "96"];
        // FNV-1a: cheap, and the same on every machine and in every version.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.paint(CODES[(hash % CODES.len() as u64) as usize], text)
    }

    /// A phase of aot, padded to `width` before it is coloured.
    pub fn phase(self, phase: i32, width: usize) -> String {
        phase_paint(phase)(self, &format!("{:<width$}", Phase::name_of(phase)))
    }
}

/// How a text is painted.
pub(super) type Paint = fn(Style, &str) -> String;

/// The colour of a phase.
pub(super) fn phase_paint(phase: i32) -> Paint {
    match Phase::try_from(phase).unwrap_or_default() {
        Phase::Ready => Style::good,
        Phase::Failed => Style::bad,
        Phase::Blocked => Style::held,
        Phase::Gone | Phase::Planned => Style::dim,
        _ => Style::busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_a_text_stays_as_it_is() {
        let plain = Style { colour: false };
        assert_eq!(plain.phase(Phase::Ready.into(), 7), "ready  ");
        assert_eq!(plain.bad("x"), "x");
        assert_eq!(plain.name("web1", "web1"), "web1");
        let failed = Style { colour: true }.phase(Phase::Failed.into(), 6);
        assert_eq!(drawn(&failed, true), "\x1b[31mfailed\x1b[0m");
        assert_eq!(drawn(&failed, false), "failed");
    }

    #[test]
    fn nobody_else_says_a_mark() {
        let style = Style { colour: true };
        let said = style.bad("\u{f0000}\u{f0001}\u{f0002}\u{f0003}32mgreen\x1b[32m");
        assert_eq!(
            drawn(&said, true),
            "\x1b[31m\u{f0000}\u{f0001}\u{f0002}\u{f0003}32mgreen\x1b[32m\x1b[0m",
            "what is data stays data"
        );
        assert!(!said.contains("\x1b[31m"));
        assert_eq!(mark().chars().count(), 4);
    }

    #[test]
    fn colours_of_a_library_are_taken_over_unless_data_may_have_made_them() {
        let taken = adopted("error: x", "\x1b[1;31merror:\x1b[0m x");
        assert_eq!(drawn(&taken, true), "\x1b[1;31merror:\x1b[0m x");
        assert_eq!(drawn(&taken, false), "error: x");
        for (plain, drawn) in [
            ("error: \x1b[32mx", "\x1b[31merror:\x1b[0m \x1b[32mx"),
            ("error: x", "\x1b[2Jerror: x"),
            ("error: x", "\x1b[31"),
        ] {
            assert_eq!(adopted(plain, drawn), plain);
        }
    }

    #[test]
    fn a_name_keeps_its_colour_and_neighbours_differ() {
        let style = Style { colour: true };
        assert_eq!(style.name("web1", "x"), style.name("web1", "x"));
        let colours: std::collections::BTreeSet<String> = (1..10)
            .map(|n| style.name(&format!("web{n}"), "x"))
            .collect();
        assert!(colours.len() > 4, "{colours:?}");
    }
}
