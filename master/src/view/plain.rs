//! One line an event, on standard error: for logs, CI and terminals that can't redraw.

use std::io::{self, Write};

use aot_proto::v1::Event;
use time::UtcOffset;

use super::words;
use super::{Streams, View};

/// The plain view.
#[derive(Debug, Clone)]
pub struct Plain {
    offset: UtcOffset,
    /// How far a wait was when that was printed last.
    progress: String,
}

impl Plain {
    /// For an operator whose clock is this far from UTC.
    pub fn new(offset: UtcOffset) -> Self {
        Self {
            offset,
            progress: String::new(),
        }
    }
}

/// `12:03:04 web1 stage 0 (prereq) ended ok in 3.2 s`; `None` for an event that says nothing new. More lines follow
/// where the event says where to look.
pub fn line(event: &Event, offset: UtcOffset) -> Option<String> {
    if event.event == "snapshot" || event.event == "receipt" {
        return None;
    }
    let about = [&event.instance, &event.cluster]
        .into_iter()
        .find(|name| !name.is_empty());
    let about = about.map(String::as_str).unwrap_or_default();
    let gap = if about.is_empty() { "" } else { " " };
    let mut text = format!(
        "{}{gap}{about} {}",
        words::clock(event.unix_ms, offset),
        words::sentence(event)
    );
    if let Some(look) = words::where_to_look(event) {
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
