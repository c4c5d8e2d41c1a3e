//! Equal outputs folded: what most instances printed is shown once, the odd ones first. Of exec and `jobs show`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};

use aot_proto::v1::{JobEnded, JobNotice, JobOutput, Outcome};
use aws_lc_rs::digest::{Context, SHA256};

use super::{JobView, notice_line, why};
use crate::view::format::{bytes, outcome_text};
use crate::view::{Streams, Style, ranges};

/// Output of one stream of one instance that can be shown; all of it is compared.
const MAX_SHOWN_BYTES: usize = 256 << 10;

/// Output that is kept of all groups and of all that have not ended.
const MAX_BUFFERED_BYTES: usize = 128 << 20;

/// The longest output that stands on the line of its instance.
const ONE_LINE_BYTES: usize = 200;

/// Gathers everything and prints it at the end, one block for all that are equal in output and outcome.
#[derive(Debug, Default)]
pub(crate) struct JobFold {
    style: Style,
    running: HashMap<String, Gathered>,
    groups: BTreeMap<Alike, Group>,
    kept_bytes: usize,
}

#[derive(Debug, Default)]
struct Gathered {
    stdout: Side,
    stderr: Side,
}

/// One stream of one instance.
#[derive(Clone)]
struct Side {
    sum: Context,
    bytes: u64,
    shown: Vec<u8>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl Default for Side {
    fn default() -> Self {
        Self {
            sum: Context::new(&SHA256),
            bytes: 0,
            shown: Vec::new(),
        }
    }
}

/// What is equal in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    /// Not of what still runs when it is shown.
    ended: bool,
    outcome: i32,
    exit_code: Option<i32>,
    detail: String,
    cut_bytes: Option<u64>,
    sums: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Group {
    names: Vec<String>,
    ended: bool,
    end: JobEnded,
    stdout: Side,
    stderr: Side,
}

impl JobFold {
    /// An empty one.
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            ..Self::default()
        }
    }

    /// Instances in the fewest first; those that did not succeed before those that did.
    fn sorted(&self) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_by_key(|group| {
            let well = group.end.outcome() == Outcome::Succeeded;
            let first = group.names.iter().map(|name| ranges::by_number(name)).min();
            (group.names.len(), well, first)
        });
        groups
    }

    /// The line of one instance that printed nothing else and succeeded: twenty of these are read more easily than twenty
    /// blocks of two lines.
    fn only_line(group: &Group) -> Option<&[u8]> {
        let end = &group.end;
        let is_plain = end.outcome() == Outcome::Succeeded
            && end.detail.is_empty()
            && end.cut_bytes == 0
            && !end.truncated;
        let line = group.stdout.shown.strip_suffix(b"\n")?;
        let is_all = group.names.len() == 1
            && group.stderr.bytes == 0
            && group.stdout.bytes == group.stdout.shown.len() as u64;
        let fits = line.len() <= ONE_LINE_BYTES && !line.contains(&b'\n');
        (is_plain && is_all && fits).then_some(line)
    }

    fn show(&self, group: &Group, io: &mut Streams) -> io::Result<()> {
        if let (Some(line), Some(name)) = (Self::only_line(group), group.names.first()) {
            let bar = format!("{} | ", self.style.name(name, name));
            return io.stdout.line(&bar, line);
        }
        writeln!(io.stdout, "{}", self.heading(group))?;
        for (stderr, side) in [(false, &group.stdout), (true, &group.stderr)] {
            let gutter = if stderr {
                self.style.bad("!")
            } else {
                " ".to_owned()
            };
            let whole = side.shown.strip_suffix(b"\n").unwrap_or(&side.shown);
            if !side.shown.is_empty() {
                for line in whole.split(|byte| *byte == b'\n') {
                    let blank = if line.is_empty() { "" } else { " " };
                    io.stdout.line(&format!("{gutter}{blank}"), line)?;
                }
            }
            let left_out = side.bytes - side.shown.len() as u64;
            if left_out > 0 {
                let text = format!(
                    "[{} more; --no-fold shows them, --out DIR saves them]",
                    bytes(left_out)
                );
                writeln!(io.stdout, "{gutter} {}", self.style.dim(&text))?;
            }
        }
        if group.end.cut_bytes > 0 || group.end.truncated {
            let text = super::cut_text(&group.end);
            writeln!(io.stdout, "  {}", self.style.dim(&format!("[{text}]")))?;
        }
        Ok(())
    }

    /// `web[1-9]: 9 succeeded`, `web10: failed (exit code 17), no output`.
    fn heading(&self, group: &Group) -> String {
        let names = ranges::ranges(group.names.iter().map(String::as_str));
        let count = match group.names.len() {
            1 => String::new(),
            many => format!("{many} "),
        };
        let well = group.end.outcome() == Outcome::Succeeded;
        let outcome = match well {
            true if group.end.detail.is_empty() => format!("{count}succeeded"),
            true => format!("{count}succeeded, {}", group.end.detail),
            false if !group.ended => format!("{count}running"),
            false => {
                let word = outcome_text(group.end.outcome);
                match why(&group.end) {
                    reason if reason == word => format!("{count}{word}"),
                    reason => {
                        let reason = reason.strip_prefix(&format!("{word}: ")).unwrap_or(&reason);
                        format!("{count}{word} ({reason})")
                    }
                }
            }
        };
        let outcome = match well {
            true => self.style.good(&outcome),
            false => self.style.bad(&outcome),
        };
        let ran = match group.end.outcome() {
            Outcome::Absent | Outcome::Rejected => false,
            Outcome::Cancelled => group.end.seconds > 0.0,
            _ => true,
        };
        let nothing = ran && group.stdout.bytes + group.stderr.bytes == 0;
        let silent = if nothing { ", no output" } else { "" };
        format!("{}: {outcome}{silent}", self.style.bold(&names))
    }

    /// Puts a target with what it printed among those that are like it.
    fn group(&mut self, ended: &JobEnded, has_ended: bool) {
        let Gathered { stdout, stderr } = self.running.remove(&ended.instance).unwrap_or_default();
        let sum = |side: &Side| side.sum.clone().finish().as_ref().to_vec();
        let alike = Alike {
            ended: has_ended,
            outcome: ended.outcome,
            exit_code: ended.exit_code,
            detail: ended.detail.clone(),
            cut_bytes: ended.truncated.then_some(ended.cut_bytes),
            sums: [sum(&stdout), sum(&stderr)],
        };
        let group = self.groups.entry(alike).or_insert_with(|| Group {
            names: Vec::new(),
            ended: has_ended,
            end: ended.clone(),
            stdout: Side::default(),
            stderr: Side::default(),
        });
        group.names.push(ended.instance.clone());
        for (kept, new) in [(&mut group.stdout, stdout), (&mut group.stderr, stderr)] {
            let (more, less) = match new.shown.len() > kept.shown.len() || kept.bytes == 0 {
                true => (new, std::mem::take(kept)),
                false => (std::mem::take(kept), new),
            };
            self.kept_bytes -= less.shown.len();
            *kept = more;
        }
    }
}

impl JobView for JobFold {
    fn output(&mut self, output: &JobOutput, _io: &mut Streams) -> io::Result<()> {
        let gathered = self.running.entry(output.instance.clone()).or_default();
        let side = match output.stderr {
            true => &mut gathered.stderr,
            false => &mut gathered.stdout,
        };
        side.sum.update(&output.data);
        // Once something was left out, nothing after it is shown: what is shown has no holes.
        let whole = side.bytes == side.shown.len() as u64;
        let room = match whole {
            true => (MAX_SHOWN_BYTES - side.shown.len()).min(MAX_BUFFERED_BYTES - self.kept_bytes),
            false => 0,
        };
        let taken = &output.data[..output.data.len().min(room)];
        side.shown.extend_from_slice(taken);
        side.bytes += output.data.len() as u64;
        self.kept_bytes += taken.len();
        Ok(())
    }

    fn ended(&mut self, ended: &JobEnded, _io: &mut Streams) -> io::Result<()> {
        self.group(ended, true);
        Ok(())
    }

    fn notice(&mut self, notice: &JobNotice, io: &mut Streams) -> io::Result<()> {
        let text = self.style.dim(&notice_line(notice));
        writeln!(io.stderr, "{text}")
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        // What never ended (the connection broke, or someone looks at a job that still runs) is shown as it is.
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            let open = JobEnded {
                instance: name,
                ..JobEnded::default()
            };
            self.group(&open, false);
        }
        let groups = std::mem::take(&mut self.groups);
        let done = Self {
            groups,
            style: self.style,
            ..Self::default()
        };
        let mut before = None;
        for group in done.sorted() {
            let is_line = Self::only_line(group).is_some();
            if before.is_some_and(|was_line| !(was_line && is_line)) {
                writeln!(io.stdout)?;
            }
            done.show(group, io)?;
            before = Some(is_line);
        }
        self.kept_bytes = 0;
        io.stdout.flush()
    }
}

#[cfg(test)]
impl JobFold {
    pub(super) fn kept_bytes(&self) -> usize {
        let sides = |stdout: &Side, stderr: &Side| stdout.shown.len() + stderr.shown.len();
        let running = self.running.values().map(|g| sides(&g.stdout, &g.stderr));
        let groups = self.groups.values().map(|g| sides(&g.stdout, &g.stderr));
        assert_eq!(self.kept_bytes, running.chain(groups).sum::<usize>());
        self.kept_bytes
    }
}
