//! Lines on standard error, for logs, CI and terminals that can't redraw: one for each event that matters, and counts for the
//! steps of instances.

use std::io::{self, Write as _};

use aot_proto::v1::Event;
use time::UtcOffset;

use super::failure::InstanceFailure;
use super::launch_board::Board;
use super::style::Style;
use super::{Streams, View, format, sentence};

/// Between two lines of counts.
const COUNTS_EVERY_MS: u64 = 10_000;

/// Between two that say the same: whoever reads sees that it still runs.
const SAME_EVERY_MS: u64 = 60_000;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Failures alone.
    Failures,
    /// The steps of each instance are counted.
    Counts,
    /// Every step.
    Steps,
}

/// The plain view.
#[derive(Debug)]
pub(crate) struct Plain {
    offset: UtcOffset,
    detail: Detail,
    /// How far a wait was when that was printed last.
    progress: String,
    board: Board,
    /// What was counted last, and when.
    counted: (String, u64),
}

impl Plain {
    /// For an operator whose clock is this far from UTC.
    pub(crate) fn new(offset: UtcOffset, detail: Detail) -> Self {
        Self {
            offset,
            detail,
            progress: String::new(),
            board: Board::default(),
            counted: (String::new(), 0),
        }
    }

    /// Whether an event has a line of its own. Those that failed alike share theirs.
    fn shows(&self, event: &Event) -> bool {
        if InstanceFailure::of_event(event).is_some() {
            return false;
        }
        match self.detail {
            Detail::Steps => true,
            Detail::Counts => !is_step(event),
            Detail::Failures => false,
        }
    }

    /// Says what is to be said of those that failed.
    fn say_failures(&mut self, now_ms: Option<u64>, io: &mut Streams) -> io::Result<()> {
        for report in self.board.due(now_ms, Style::default()) {
            let clock = format::clock(report.at_ms, self.offset);
            writeln!(io.stderr, "{clock} {}", report.lines.join("\n"))?;
        }
        Ok(())
    }

    /// The counts, if it is time for them.
    fn counts(&mut self, now_ms: u64) -> Option<String> {
        // A wait says by itself how far it is.
        if self.detail != Detail::Counts || self.board.is_empty() || !self.progress.is_empty() {
            return None;
        }
        let since = now_ms.saturating_sub(self.counted.1.max(self.board.started_ms));
        let counts = self.board.phase_counts();
        let wait = match counts == self.counted.0 {
            true => SAME_EVERY_MS,
            false => COUNTS_EVERY_MS,
        };
        if since < wait {
            return None;
        }
        self.counted = (counts.clone(), now_ms);
        let clock = format::clock(now_ms, self.offset);
        Some(format!("{clock} {} {counts}", self.board.cluster))
    }
}

/// What each instance goes through when all is well: nine lines for each, and mostly nobody reads one.
fn is_step(event: &Event) -> bool {
    match event.event.as_str() {
        "stage-ended" => sentence::fields_of(event)
            .get("outcome")
            .is_some_and(|outcome| outcome == "succeeded"),
        "instance-planned"
        | "instance-requested"
        | "instance-launched"
        | "instance-enrolled"
        | "instance-ready"
        | "instance-state"
        | "boot-step"
        | "agent-connected"
        | "facts-reported"
        | "address-given"
        | "volumes-mounted"
        | "cluster-facts-applied"
        | "stage-started"
        | "stage-skipped"
        | "stage-waits"
        | "update-started"
        | "health-check-started"
        | "health-check-failed"
        | "stage-output" => true,
        _ => false,
    }
}

/// `12:03:04 web1 stage prereq ended ok in 3.2 s`; `None` for an event that says nothing new.
fn line(event: &Event, offset: UtcOffset) -> Option<String> {
    line_at(format::clock(event.unix_ms, offset), event)
}

/// The same with the day: it may have been another one. A failure has its last lines below it, and where to read more.
pub(crate) fn event_line(event: &Event, offset: UtcOffset) -> Option<String> {
    let when = format::day_and_clock(event.unix_ms, offset);
    match InstanceFailure::of_event(event) {
        Some((failure, took)) => {
            let who = &event.instance;
            let lines = failure.lines(who, &took, who, Style::default());
            Some(format!("{when} {}", lines.join("\n")))
        }
        None => line_at(when, event),
    }
}

fn line_at(when: String, event: &Event) -> Option<String> {
    if matches!(event.event.as_str(), "snapshot" | "receipt") || sentence::is_repetition(event) {
        return None;
    }
    let about = [&event.instance, &event.cluster]
        .into_iter()
        .find(|name| !name.is_empty());
    let about = about.map(String::as_str).unwrap_or_default();
    let gap = if about.is_empty() { "" } else { " " };
    Some(format!("{when}{gap}{about} {}", sentence::sentence(event)))
}

impl View for Plain {
    fn show(&mut self, event: &Event, io: &mut Streams) -> io::Result<()> {
        self.board.step(event);
        // A wait tells how far it is after every event; here only a change is news.
        if event.event == "wait-progress" {
            if self.progress == event.message {
                return Ok(());
            }
            self.progress.clone_from(&event.message);
        }
        let line = line(event, self.offset).filter(|_| self.shows(event));
        // What comes after a failure does not stand before it.
        if line.is_some() || event.last || self.detail == Detail::Steps {
            self.say_failures(None, io)?;
        }
        if let Some(line) = line {
            writeln!(io.stderr, "{line}")?;
        }
        Ok(())
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        self.say_failures(None, io)
    }

    fn tick(&mut self, now_ms: u64, io: &mut Streams) -> io::Result<()> {
        self.say_failures(Some(now_ms), io)?;
        match self.counts(now_ms) {
            Some(line) => writeln!(io.stderr, "{line}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    /// The lines of a launch that lasts as long as its events say, with a tick each second and three minutes more.
    fn lines(detail: Detail) -> String {
        let out = crate::view::Kept::default();
        let mut io = Streams {
            stdin: Box::new(io::empty()),
            stdout: crate::view::Out::new(io::sink()),
            stderr: crate::view::Out::new(out.clone()),
        };
        let mut view = Plain::new(UtcOffset::UTC, detail);
        let events = samples::launch();
        let mut now_ms = events[0].unix_ms;
        for event in &events {
            while now_ms < event.unix_ms {
                view.tick(now_ms, &mut io).expect("written");
                now_ms += 1000;
            }
            view.show(event, &mut io).expect("written");
        }
        for _ in 0..180 {
            view.tick(now_ms, &mut io).expect("written");
            now_ms += 1000;
        }
        out.text()
    }

    #[test]
    fn steps_are_counted_and_failures_told() {
        insta::assert_snapshot!("counts", lines(Detail::Counts));
        let quiet = lines(Detail::Failures);
        assert!(
            quiet.starts_with("00:03:30Z web2 failed in prereq (exit 17, 4.0 s)\n"),
            "{quiet}"
        );
        assert_eq!(quiet.lines().count(), 5, "{quiet}");
        insta::assert_snapshot!("a_launch_as_plain_lines", lines(Detail::Steps));
    }

    #[test]
    fn twenty_that_fail_alike_are_one_block() {
        let out = crate::view::Kept::default();
        let mut io = Streams {
            stdin: Box::new(io::empty()),
            stdout: crate::view::Out::new(io::sink()),
            stderr: crate::view::Out::new(out.clone()),
        };
        let mut view = Plain::new(UtcOffset::UTC, Detail::Counts);
        for n in 1..=20 {
            let event = samples::failed_event(&format!("web{n}"), "web", "no disk");
            view.show(&event, &mut io).expect("written");
        }
        view.close(&mut io).expect("written");
        assert_eq!(
            out.text(),
            "00:03:04Z web[1-20] failed in mount (exit 17): ! no disk\n  see: aot-master logs web1 --stage mount\n"
        );
    }
}
