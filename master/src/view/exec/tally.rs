//! `12/50 done, 1 failed`: how far a job is, where its output is not shown as it comes.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One line at the bottom of a terminal, taken away at the end.
pub struct Tally {
    bars: MultiProgress,
    line: Option<ProgressBar>,
    total: usize,
    done: usize,
    failed: usize,
}

impl Tally {
    /// On the process's standard error.
    pub fn new(total: usize) -> Self {
        Self::on(ProgressDrawTarget::stderr(), total)
    }

    /// On any terminal.
    pub fn on(target: ProgressDrawTarget, total: usize) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(target),
            line: None,
            total,
            done: 0,
            failed: 0,
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// One more has ended.
    pub fn ended(&mut self, well: bool) {
        self.done += 1;
        self.failed += usize::from(!well);
        self.draw();
    }

    /// Shows it, also after [`Tally::hide`].
    pub fn draw(&mut self) {
        let line = self.line.get_or_insert_with(|| {
            // Not as wide as the terminal: where Ctrl-C is echoed as ^C, that stays on this line and goes with it.
            let style = ProgressStyle::with_template("{msg} ")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bars.add(ProgressBar::new(0).with_style(style))
        });
        line.set_message(tally_words(self.total, self.done, self.failed));
    }

    /// Takes it away, so that something else can be printed. Safe to repeat.
    pub fn hide(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
            self.bars.remove(&line);
        }
    }
}

/// `12/50 done, 1 failed`.
fn tally_words(total: usize, done: usize, failed: usize) -> String {
    match failed {
        0 => format!("{done}/{total} done"),
        _ => format!("{done}/{total} done, {failed} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    #[test]
    fn it_counts_and_goes_away() {
        let term = InMemoryTerm::new(10, 60);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        let mut tally = Tally::on(target, 50);
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
