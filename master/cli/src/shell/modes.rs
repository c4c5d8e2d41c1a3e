//! What a program has switched on in the operator's terminal, so that it can be switched off for one that was cut off: a
//! program that ends by itself does that itself. Pure.

use std::collections::BTreeSet;

/// Modes of DEC private mode set and reset (xterm's ctlseqs, "DECSET") that make a terminal unusable when they stay:
/// cursor keys, the mouse, the alternate screen, bracketed paste.
const TRACKED: [u16; 10] = [1, 47, 1000, 1002, 1003, 1006, 1015, 1047, 1049, 2004];
/// The cursor is shown: the one mode that is on by itself.
const CURSOR: u16 = 25;
/// Longest sequence that is looked at.
const MOST_BYTES: usize = 64;

/// Follows what is shown.
#[derive(Debug, Default)]
pub(super) struct Modes {
    on: BTreeSet<u16>,
    hidden_cursor: bool,
    /// A sequence that has begun, its ESC too.
    begun: Vec<u8>,
}

impl Modes {
    /// Takes what is shown, however it is cut.
    pub(super) fn step(&mut self, shown: &[u8]) {
        for byte in shown.iter().copied() {
            match (self.begun.len(), byte) {
                (_, 0x1b) => self.begun = vec![byte],
                (0, _) => {}
                (1, b'[') | (2, b'?') => self.begun.push(byte),
                (3.., b'0'..=b'9' | b';') if self.begun.len() < MOST_BYTES => self.begun.push(byte),
                (3.., b'h' | b'l') => self.switched(byte == b'h'),
                _ => self.begun.clear(),
            }
        }
    }

    fn switched(&mut self, on: bool) {
        let begun = std::mem::take(&mut self.begun);
        let numbers = begun[3..].split(|byte| *byte == b';');
        for mode in numbers.filter_map(|number| std::str::from_utf8(number).ok()?.parse().ok()) {
            match (mode, on) {
                (CURSOR, on) => self.hidden_cursor = !on,
                (mode, true) if TRACKED.contains(&mode) => drop(self.on.insert(mode)),
                (mode, _) => drop(self.on.remove(&mode)),
            }
        }
    }

    /// What switches all of it off again.
    pub(super) fn undo(&self) -> String {
        let off = self.on.iter().map(|mode| format!("\x1b[?{mode}l"));
        let mut undo: String = off.collect();
        if self.hidden_cursor {
            undo.push_str("\x1b[?25h");
        }
        if !undo.is_empty() {
            // Colours and the keypad have no such list; both are harmless where nothing is switched on.
            undo.push_str("\x1b[0m\x1b>");
        }
        undo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(shown: &[&str]) -> String {
        let mut modes = Modes::default();
        for piece in shown {
            modes.step(piece.as_bytes());
        }
        modes.undo()
    }

    #[test]
    fn what_is_on_is_switched_off_and_nothing_else() {
        let off = "\x1b[0m\x1b>";
        let table = [
            (
                &["plain \x1b[31mred\x1b[0m ?1049h [?1049h"][..],
                String::new(),
            ),
            (&["\x1b[?1049h\x1b[?1049l"], String::new()),
            (&["\x1b[?1049h"], format!("\x1b[?1049l{off}")),
            (&["\x1b[?10", "49h"], format!("\x1b[?1049l{off}")),
            (
                &["\x1b", "[?1000;1006h\x1b[?1006l"],
                format!("\x1b[?1000l{off}"),
            ),
            (&["\x1b[?25l"], format!("\x1b[?25h{off}")),
            (&["\x1b[?25l\x1b[?25h"], String::new()),
            (&["\x1b[?7h\x1b[?99999999h"], String::new()),
            (&["\x1b[?10\x1b[?2004h"], format!("\x1b[?2004l{off}")),
        ];
        for (shown, wanted) in table {
            assert_eq!(undo(shown), wanted, "{shown:?}");
        }
    }

    #[test]
    fn a_sequence_without_an_end_takes_no_memory() {
        let mut modes = Modes::default();
        modes.step(b"\x1b[?");
        modes.step(&[b'1'; 10_000]);
        assert!(modes.begun.len() <= MOST_BYTES);
    }
}
