//! `name | line`, live: of exec and of logs.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use aot_proto::v1::{JobEnded, JobNotice, JobOutput, JobStarted, Outcome};

use super::JobView;
use crate::view::{Streams, Style};

/// A line longer than this is broken.
const MAX_LINE_BYTES: usize = 64 << 10;

/// What is held back of all lines that have not ended yet; past it the line that grows is broken.
const MAX_HELD_BYTES: usize = 16 << 20;

/// Names longer than this stick out of their column.
const MAX_NAME_CHARS: usize = 32;

/// `name | line`, live.
#[derive(Debug, Default)]
pub(crate) struct JobLines {
    style: Style,
    width: usize,
    partial: BTreeMap<(String, bool), Vec<u8>>,
    held_bytes: usize,
}

impl JobLines {
    /// An empty one.
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            ..Self::default()
        }
    }

    /// Makes room for a name, so that lines stand under one another from now on.
    pub(crate) fn make_room(&mut self, name: &str) {
        if name.len() <= MAX_NAME_CHARS {
            self.width = self.width.max(name.len());
        }
    }

    fn write(&self, name: &str, stderr: bool, line: &[u8], io: &mut Streams) -> io::Result<()> {
        let to = if stderr { &io.stderr } else { &io.stdout };
        let padded = format!("{name:<width$}", width = self.width);
        let name = self.style.name(name, &padded);
        let bar = super::bar(self.style, stderr, to.seen().terminal);
        to.line(&format!("{name} {bar} "), line)
    }

    fn flush(&mut self, only: Option<&str>, io: &mut Streams) -> io::Result<()> {
        let keys: Vec<(String, bool)> = match only {
            None => self.partial.keys().cloned().collect(),
            Some(name) => [false, true].map(|stderr| (name.to_owned(), stderr)).into(),
        };
        for key in keys {
            let bytes = self.partial.remove(&key).unwrap_or_default();
            self.held_bytes -= bytes.len();
            if !bytes.is_empty() {
                self.write(&key.0, key.1, &bytes, io)?;
            }
        }
        io.stdout.flush()
    }
}

impl JobView for JobLines {
    fn started(&mut self, started: &JobStarted, _io: &mut Streams) -> io::Result<()> {
        for name in &started.instances {
            self.make_room(name);
        }
        Ok(())
    }

    fn output(&mut self, output: &JobOutput, io: &mut Streams) -> io::Result<()> {
        let key = (output.instance.clone(), output.stderr);
        let mut held = self.partial.remove(&key).unwrap_or_default();
        self.held_bytes -= held.len();
        for piece in output.data.split_inclusive(|byte| *byte == b'\n') {
            held.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            let full =
                held.len() >= MAX_LINE_BYTES || self.held_bytes + held.len() > MAX_HELD_BYTES;
            if piece.ends_with(b"\n") || full && !held.is_empty() {
                self.write(&output.instance, output.stderr, &held, io)?;
                held.clear();
            }
        }
        if !held.is_empty() {
            self.held_bytes += held.len();
            self.partial.insert(key, held);
        }
        io.stdout.flush()
    }

    fn ended(&mut self, ended: &JobEnded, io: &mut Streams) -> io::Result<()> {
        self.flush(Some(&ended.instance), io)?;
        // What failed is told with its reason at the end.
        if ended.outcome() == Outcome::Succeeded && !ended.detail.is_empty() {
            let notice = JobNotice {
                instance: ended.instance.clone(),
                text: ended.detail.clone(),
            };
            self.notice(&notice, io)?;
        }
        Ok(())
    }

    fn notice(&mut self, notice: &JobNotice, io: &mut Streams) -> io::Result<()> {
        io.stdout.flush()?;
        let text = self.style.dim(&super::notice_line(notice));
        writeln!(io.stderr, "{text}")
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        self.flush(None, io)
    }
}

#[cfg(test)]
impl JobLines {
    pub(super) fn held_bytes(&self) -> usize {
        assert_eq!(
            self.held_bytes,
            self.partial.values().map(Vec::len).sum::<usize>()
        );
        self.held_bytes
    }
}
