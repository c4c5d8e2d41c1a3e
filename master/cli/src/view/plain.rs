//! One line an event, on standard error: for logs, CI and terminals that can't redraw.

use std::io::{self, Write as _};

use aot_proto::v1::Event;
use time::UtcOffset;

use super::{Streams, View, format, sentence};

/// The plain view.
#[derive(Debug, Clone)]
pub(crate) struct Plain {
    offset: UtcOffset,
    /// How far a wait was when that was printed last.
    progress: String,
}

impl Plain {
    /// For an operator whose clock is this far from UTC.
    pub(crate) fn new(offset: UtcOffset) -> Self {
        Self {
            offset,
            progress: String::new(),
        }
    }
}

/// `12:03:04 web1 stage 0 (prereq) ended ok in 3.2 s`; `None` for an event that says nothing new. More lines follow
/// where the event says where to look.
pub(super) fn line(event: &Event, offset: UtcOffset) -> Option<String> {
    if matches!(event.event.as_str(), "snapshot" | "receipt") || sentence::is_repetition(event) {
        return None;
    }
    let about = [&event.instance, &event.cluster]
        .into_iter()
        .find(|name| !name.is_empty());
    let about = about.map(String::as_str).unwrap_or_default();
    let gap = if about.is_empty() { "" } else { " " };
    let mut text = format!(
        "{}{gap}{about} {}",
        format::clock(event.unix_ms, offset),
        sentence::sentence(event)
    );
    for line in sentence::printed(event) {
        text.push_str(&format!("\n  | {line}"));
    }
    if let Some(look) = sentence::log_hint(event) {
        text.push_str(&format!("\n  {look}"));
    }
    Some(text)
}

impl View for Plain {
    fn show(&mut self, event: &Event, io: &mut Streams) -> io::Result<()> {
        // A wait tells how far it is after every event; here only a change is news.
        if event.event == "wait-progress" {
            if self.progress == event.message {
                return Ok(());
            }
            self.progress.clone_from(&event.message);
        }
        if let Some(line) = line(event, self.offset) {
            writeln!(io.stderr, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_launch_as_plain_lines() {
        let lines: Vec<String> = samples::launch()
            .iter()
            .filter_map(|event| line(event, UtcOffset::UTC))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
