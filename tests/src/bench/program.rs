//! A bench as several processes: it starts itself with a role, and talks to that by lines. The other end of each role
//! is in [`super::bare`], [`super::agents`], [`super::copy`] and [`super::operator`].

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// This program in another role, or another program; ends when it is dropped.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(role: &[&str]) -> Self {
        let own = std::env::current_exe().expect("a program has a path");
        Self::of(&own, role)
    }

    /// Another program that is talked to by lines and ends with its input.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn of(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::by(command)
    }

    /// The same by a command that starts it somewhere else.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn by(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        Self {
            child,
            input,
            output,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a line.
    ///
    /// # Panics
    /// When it is gone.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("taken by the drop only");
        writeln!(input, "{line}").expect("it reads");
    }

    /// The next line that it prints.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("it prints text");
        assert!(read > 0, "the program in another role ended early");
        line.trim_end().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take()); // every role ends with its input
        let _ = self.child.wait();
    }
}
