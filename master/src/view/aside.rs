//! One error stream for a command and for what is said beside it: a line of the other never tears a live view. Called
//! by `cli` for `-v`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use indicatif::MultiProgress;

use super::Streams;

/// Standard error, shared. Clones write to the same stream.
#[derive(Clone)]
pub struct Aside(Rc<Inner>);

struct Inner {
    stderr: RefCell<Box<dyn Write>>,
    /// The live view that is on the screen now.
    live: RefCell<Option<MultiProgress>>,
}

impl Aside {
    /// Takes the error stream of `io`, and leaves one there that shares it.
    pub fn of(io: &mut Streams) -> Self {
        let stderr = std::mem::replace(&mut io.stderr, Box::new(io::sink()));
        let aside = Self(Rc::new(Inner {
            stderr: RefCell::new(stderr),
            live: RefCell::new(None),
        }));
        io.stderr = Box::new(aside.clone());
        aside
    }

    /// Puts the lines to come above a live view; `None` once it is closed.
    pub fn set_live(&self, bars: Option<MultiProgress>) {
        *self.0.live.borrow_mut() = bars;
    }

    /// Prints one line: above the live view, where there is one.
    ///
    /// # Errors
    /// As the stream.
    pub fn line(&self, text: &str) -> io::Result<()> {
        match &*self.0.live.borrow() {
            Some(bars) if !bars.is_hidden() => bars.println(text),
            _ => writeln!(self.0.stderr.borrow_mut(), "{text}"),
        }
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stderr.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.stderr.borrow_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Live, Style, View, samples};
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    #[derive(Clone, Default)]
    struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_goes_above_the_live_view_and_else_to_the_stream() {
        let kept = Kept::default();
        let mut io = Streams {
            stdin: Box::new(io::empty()),
            stdout: Box::new(io::sink()),
            stderr: Box::new(kept.clone()),
        };
        let aside = Aside::of(&mut io);
        writeln!(io.stderr, "before").expect("written");
        aside.line("call 1").expect("written");

        let term = InMemoryTerm::new(30, 90);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        let mut live = Live::on(target, Style::default());
        aside.set_live(Some(live.bars()));
        for event in &samples::launch()[..4] {
            live.show(event, &mut io).expect("drawn");
        }
        aside.line("call 2").expect("drawn");
        let picture = term.contents();
        assert!(
            picture.starts_with("call 2\nhadoop  3 planned") && picture.contains("web2"),
            "{picture}"
        );
        live.close();
        aside.set_live(None);
        aside.line("call 3").expect("written");
        assert_eq!(
            String::from_utf8_lossy(&kept.0.borrow()),
            "before\ncall 1\ncall 3\n"
        );
    }
}
