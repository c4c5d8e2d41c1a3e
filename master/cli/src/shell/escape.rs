//! The escapes of a terminal: `~` at the start of a line, as in ssh(1). Pure.

/// What the escapes are, for `~?`.
pub(super) const HELP: &str = "\
Supported escapes:\r
  ~.   leave: what runs in the terminal is hung up\r
  ~?   this text\r
  ~~   a tilde\r
(Only at the start of a line.)\r
";

/// What typed bytes come to, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EscapeAction {
    /// To be sent.
    Send(Vec<u8>),
    /// `~?`
    Help,
    /// `~.`; what was typed behind it is dropped.
    Leave,
}

/// How far an escape has been typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EscapeState {
    LineStart,
    Tilde,
    Line,
}

/// Finds escapes among what is typed.
#[derive(Debug, Clone)]
pub(super) struct Escapes(EscapeState);

impl Default for Escapes {
    /// At the start of a line.
    fn default() -> Self {
        Self(EscapeState::LineStart)
    }
}

impl Escapes {
    /// Takes what was typed, however it is cut. A `~` at the start of a line is held back until the next byte.
    pub(super) fn step(&mut self, typed: &[u8]) -> Vec<EscapeAction> {
        let (mut steps, mut send) = (Vec::new(), Vec::new());
        for byte in typed.iter().copied() {
            let (at, step) = match (self.0, byte) {
                (EscapeState::LineStart, b'~') => (EscapeState::Tilde, None),
                (EscapeState::Tilde, b'.') => (EscapeState::LineStart, Some(EscapeAction::Leave)),
                (EscapeState::Tilde, b'?') => (EscapeState::LineStart, Some(EscapeAction::Help)),
                (EscapeState::Tilde, b'~') => {
                    send.push(b'~');
                    (EscapeState::Line, None)
                }
                (before, byte) => {
                    if before == EscapeState::Tilde {
                        send.push(b'~');
                    }
                    send.push(byte);
                    let ends = matches!(byte, b'\r' | b'\n');
                    (
                        if ends {
                            EscapeState::LineStart
                        } else {
                            EscapeState::Line
                        },
                        None,
                    )
                }
            };
            self.0 = at;
            if let Some(step) = step {
                flush(&mut send, &mut steps);
                let leaves = step == EscapeAction::Leave;
                steps.push(step);
                if leaves {
                    return steps;
                }
            }
        }
        flush(&mut send, &mut steps);
        steps
    }
}

fn flush(send: &mut Vec<u8>, steps: &mut Vec<EscapeAction>) {
    if !send.is_empty() {
        steps.push(EscapeAction::Send(std::mem::take(send)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(text: &str) -> EscapeAction {
        EscapeAction::Send(text.as_bytes().to_vec())
    }

    #[test]
    fn escapes_only_count_at_the_start_of_a_line() {
        let table: [(&str, Vec<EscapeAction>); 12] = [
            ("ls\r", vec![send("ls\r")]),
            ("~.", vec![EscapeAction::Leave]),
            ("a~.", vec![send("a~.")]),
            ("a\r~.rest", vec![send("a\r"), EscapeAction::Leave]),
            ("a\n~.", vec![send("a\n"), EscapeAction::Leave]),
            ("~~.", vec![send("~.")]),
            ("~~~.", vec![send("~~.")]),
            ("~?~.", vec![EscapeAction::Help, EscapeAction::Leave]),
            ("~/bin/x\r", vec![send("~/bin/x\r")]),
            ("~\r~.", vec![send("~\r"), EscapeAction::Leave]),
            ("~", vec![]),
            ("x\r~?y", vec![send("x\r"), EscapeAction::Help, send("y")]),
        ];
        for (typed, wanted) in table {
            assert_eq!(
                Escapes::default().step(typed.as_bytes()),
                wanted,
                "{typed:?}"
            );
        }
    }

    /// Steps with neighbours put together, so that how they were cut does not matter.
    fn all(escapes: &mut Escapes, pieces: &[Vec<u8>]) -> Vec<EscapeAction> {
        let mut steps: Vec<EscapeAction> = Vec::new();
        for step in pieces.iter().flat_map(|piece| escapes.step(piece)) {
            match (steps.last_mut(), step) {
                (Some(EscapeAction::Send(last)), EscapeAction::Send(more)) => last.extend(more),
                (_, step) => steps.push(step),
            }
        }
        steps
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(b'~'),
            Just(b'\r'),
            Just(b'\n'),
            Just(b'?'),
            any::<u8>()
        ]
    }

    proptest! {
        #[test]
        fn without_a_tilde_at_a_line_start_every_byte_passes(bytes in prop::collection::vec(byte(), 0..200)) {
            let mut plain = vec![b'x'];
            for byte in bytes {
                let starts = plain.last().is_some_and(|last| matches!(last, b'\r' | b'\n'));
                plain.push(if starts && byte == b'~' { b'x' } else { byte });
            }
            prop_assert_eq!(Escapes::default().step(&plain), vec![EscapeAction::Send(plain)]);
        }

        #[test]
        fn how_it_is_cut_does_not_matter(
            pieces in prop::collection::vec(prop::collection::vec(byte().prop_filter("it ends there", |b| *b != b'.'), 0..5), 0..30)
        ) {
            let whole = all(&mut Escapes::default(), &[pieces.concat()]);
            prop_assert_eq!(all(&mut Escapes::default(), &pieces), whole);
        }

        #[test]
        fn a_doubled_tilde_is_the_way_to_send_any_text(bytes in prop::collection::vec(byte(), 0..200)) {
            let (mut typed, mut starts) = (Vec::new(), true);
            for byte in &bytes {
                if starts && *byte == b'~' {
                    typed.push(b'~');
                }
                typed.push(*byte);
                starts = matches!(byte, b'\r' | b'\n');
            }
            let wanted = if bytes.is_empty() { vec![] } else { vec![EscapeAction::Send(bytes)] };
            prop_assert_eq!(Escapes::default().step(&typed), wanted);
        }
    }
}
