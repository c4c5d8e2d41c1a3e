//! `12/50 done, 1 failed`: how far a job is, where its output is not shown as it comes.

use crate::view::bars::{Bar, Bars, Shows};

/// One line at the bottom of a terminal, taken away at the end.
pub(crate) struct TallyLine {
    bars: Bars,
    line: Option<Bar>,
    total: usize,
    done: usize,
    failed: usize,
}

impl TallyLine {
    /// On the process's standard error.
    pub(crate) fn new(total: usize) -> Self {
        Self::on(Bars::over_stderr(), total)
    }

    /// On any terminal.
    pub(crate) fn on(bars: Bars, total: usize) -> Self {
        Self {
            bars,
            line: None,
            total,
            done: 0,
            failed: 0,
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub(crate) fn bars(&self) -> Bars {
        self.bars.clone()
    }

    /// One more has ended.
    pub(crate) fn ended(&mut self, well: bool) {
        self.done += 1;
        self.failed += usize::from(!well);
        self.draw();
    }

    /// Shows it, also after [`TallyLine::hide`].
    pub(crate) fn draw(&mut self) {
        let add = || self.bars.add(Shows::Text);
        let line = self.line.get_or_insert_with(add);
        line.set_text(&tally_text(self.total, self.done, self.failed));
    }

    /// Takes it away, so that something else can be printed. Safe to repeat.
    pub(crate) fn hide(&mut self) {
        if let Some(line) = self.line.take() {
            self.bars.remove(&line);
        }
    }
}

/// `12/50 done, 1 failed`.
fn tally_text(total: usize, done: usize, failed: usize) -> String {
    match failed {
        0 => format!("{done}/{total} done"),
        _ => format!("{done}/{total} done, {failed} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_goes_away() {
        let (bars, term) = Bars::in_memory(10, 60);
        let mut tally = TallyLine::on(bars, 50);
        tally.draw();
        assert_eq!(term.contents(), "0/50 done");
        tally.ended(true);
        tally.ended(false);
        tally.hide();
        tally.hide();
        assert_eq!(term.contents(), "");
        tally.draw();
        assert_eq!(term.contents(), "2/50 done, 1 failed");
        tally.hide();
    }
}
