//! What comes on a connection that has a time-out, for tests of the ways in between.

use std::io::{ErrorKind, Read};
use std::time::Duration;

/// How long what must come may take on a busy machine; a way that is cut ends at once, and is not waited for.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// How long it is listened whether something comes that must not.
pub(crate) const WHILE: Duration = Duration::from_millis(400);

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Byte(u8),
    /// The end, or a break.
    End,
    /// Nothing in the stream's time-out.
    Silence,
}

/// Listens once. A read with a time-out is not begun again by itself after a signal (signal(7)), and programs that tests start end
/// with one.
pub(crate) fn heard(stream: &mut impl Read) -> Heard {
    let mut byte = [0];
    loop {
        return match stream.read(&mut byte) {
            Ok(1) => Heard::Byte(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Silence,
            _ => Heard::End,
        };
    }
}
