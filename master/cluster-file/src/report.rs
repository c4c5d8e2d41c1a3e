//! Problems of a file, shown where they are. Made by `config`; printed by the command line, sent by the daemon.

use std::fmt;
use std::ops::Range;

use aot_proto::plural;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

/// Room for the last line of a report, besides the file's name.
const LAST_LINE_BYTES: usize = 120;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the text that are meant.
    pub span: Range<usize>,
    /// Where in the document, `pools[1].size`; empty at the top.
    pub path: String,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// Another place that matters, and why.
    pub other: Option<Box<(Range<usize>, String)>>,
}

impl Mistake {
    /// A problem without help.
    pub fn new(span: Range<usize>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            span,
            path: path.into(),
            message: message.into(),
            help: None,
            other: None,
        }
    }

    /// With a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With another place that matters.
    #[must_use]
    pub fn other(mut self, span: Range<usize>, why: impl Into<String>) -> Self {
        self.other = Some(Box::new((span, why.into())));
        self
    }

    /// Path and message in one line.
    pub fn line(&self) -> String {
        if self.path.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.path, self.message)
        }
    }
}

/// Everything that is wrong with one file, in the file's order; never empty. `Display` is one line per problem.
#[derive(Debug, Clone)]
pub struct Report {
    file: String,
    text: String,
    problems: Vec<Mistake>,
}

impl Report {
    /// From problems in any order, of the text of a file called `file`.
    pub fn new(
        file: impl Into<String>,
        text: impl Into<String>,
        mut problems: Vec<Mistake>,
    ) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        problems.dedup();
        Self {
            file: file.into(),
            text: text.into(),
            problems,
        }
    }

    /// The problems.
    pub fn problems(&self) -> &[Mistake] {
        &self.problems
    }

    /// Line and column of a problem, both from 1; the column counts characters.
    pub fn position(&self, problem: &Mistake) -> (usize, usize) {
        position(&self.text, problem.span.start)
    }

    /// With the lines of the file and carets under them, for a person.
    pub fn render(&self, color: bool) -> String {
        self.render_some(color, usize::MAX)
    }

    /// [`Report::render`] without colours, in at most this many bytes: the last line counts the problems that were left
    /// out.
    pub fn render_within(&self, bytes: usize) -> String {
        self.render_some(false, bytes)
    }

    fn render_some(&self, color: bool, bytes: usize) -> String {
        let theme = if color {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(100)
            .with_links(false)
            .with_context_lines(1)
            .without_syntax_highlighting();
        let mut out = String::new();
        let mut shown = 0;
        for problem in &self.problems {
            let before = out.len();
            let one = ShownProblem {
                problem,
                source: NamedSource::new(&self.file, self.text.clone()),
            };
            // Writing to a string fails only when a span lies outside of the text.
            if handler.render_report(&mut out, &one).is_err() {
                out.push_str(&problem.line());
            }
            out.push('\n');
            if out.len() + self.file.len() + LAST_LINE_BYTES > bytes {
                out.truncate(before);
                if shown == 0 {
                    // Its line of the file is very long: without it, it is there all the same.
                    let (line, column) = self.position(problem);
                    out = format!("{}:{line}:{column}: {}\n", self.file, problem.line());
                    shown = 1;
                }
                break;
            }
            shown += 1;
        }
        let count = plural::count(self.problems.len(), "problem");
        let left_out = match self.problems.len() - shown {
            0 => String::new(),
            more => format!(", {more} of them not shown; aot-master check shows all"),
        };
        out.push_str(&format!("{count} in {}{left_out}\n", self.file));
        out
    }

    /// As data: `{"file","problems":[{"line","column","path","message","help"}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self
            .problems
            .iter()
            .map(|problem| {
                let (line, column) = self.position(problem);
                serde_json::json!({
                    "line": line,
                    "column": column,
                    "path": problem.path,
                    "message": problem.message,
                    "help": problem.help,
                })
            })
            .collect();
        serde_json::json!({"file": self.file, "problems": problems})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let (line, column) = self.position(problem);
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{line}:{column}: {}", self.file, problem.line())?;
            if let Some(help) = &problem.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Line and column of a byte, both from 1.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

/// One problem with its text, as miette wants it.
struct ShownProblem<'a> {
    problem: &'a Mistake,
    source: NamedSource<String>,
}

impl fmt::Debug for ShownProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl fmt::Display for ShownProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.line())
    }
}

impl std::error::Error for ShownProblem<'_> {}

impl Diagnostic for ShownProblem<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = LabeledSpan::new_primary_with_span(
            Some("here".to_owned()),
            first_line(&self.source, &self.problem.span),
        );
        let other = self.problem.other.iter().map(|other| {
            LabeledSpan::new_with_span(Some(other.1.clone()), first_line(&self.source, &other.0))
        });
        Some(Box::new(std::iter::once(main).chain(other)))
    }
}

/// The part of a span on its first line: a caret under a whole mapping tells nothing.
fn first_line(source: &NamedSource<String>, span: &Range<usize>) -> Range<usize> {
    let text = source.inner().get(span.clone()).unwrap_or("");
    let len = text.split('\n').next().unwrap_or("").trim_end().len();
    span.start..span.start + len
}
