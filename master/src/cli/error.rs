//! Every way a command can end without a result, and the exit code of each. Raised by the command modules, printed by
//! `run`; never prints by itself.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use aot_proto::v1::Problem;
use tonic::{Code, Status};

use crate::view::{Style, problem_lines};

/// How a hint's line begins in a refused launch.
const HINT: &str = "  hint: ";

/// What the process ends with; the table is in the program's help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well,
    /// It ran, and something failed on some target.
    Failed,
    /// Bad usage or bad file.
    Usage,
    /// No instance matches.
    NoMatch,
    /// The master or the provider cannot be reached.
    Unreachable,
    /// Ctrl-C; the job goes on.
    Interrupted,
    /// What ran in a terminal says it: its exit status, or 128 and the signal that ended it or us.
    Remote(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoMatch => 3,
            Self::Unreachable => 4,
            Self::Interrupted => 130,
            Self::Remote(code) => code,
        }
    }

    /// From the number that a master sends; a number that is not in the table is a failure.
    pub fn from_wire(code: u32) -> Self {
        match code {
            0 => Self::Well,
            2 => Self::Usage,
            3 => Self::NoMatch,
            4 => Self::Unreachable,
            130 => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    /// The worse of two: the one that says less well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::Well { other } else { self }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line can't be followed.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// The way out.
        hint: String,
    },
    /// The cluster's file, or a file for `--stdin`, can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is to be copied can't be read, or changed meanwhile.
    #[error("{0}")]
    Pack(#[from] aot_proto::archive::PackError),
    /// Nothing can be copied to there.
    #[error("{0}")]
    Place(#[from] aot_proto::archive::PlaceError),
    /// A file that the command makes can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers on the socket.
    #[error("no master answers on {}", socket.display())]
    NoMaster {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A master could not be started in the background.
    #[error("cannot start a master in the background: {what}")]
    NotStarted {
        /// What happened, with the end of its log.
        what: String,
    },
    /// The handshake on the socket failed.
    #[error("what answers on {} is no master", socket.display())]
    NotAMaster {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The master refused, or the connection broke before it answered.
    #[error("{}", .0.message())]
    Refused(Status),
    /// What stands in the way of a launch.
    #[error("nothing was launched: {} in the way", stand(.0.len()))]
    Problems(Vec<Problem>),
    /// The connection broke while a job ran.
    #[error("lost the master; {goes_on}")]
    Lost {
        /// That it goes on, and how to look at it.
        goes_on: String,
        /// Why, when the connection said.
        source: Option<Box<Status>>,
    },
    /// The master named no instance.
    #[error("no instance matches {target}")]
    NoMatch {
        /// The target and what narrows it, quoted.
        target: String,
    },
    /// No job has this id, or an id that begins so.
    #[error("no job {given:?}")]
    NoJob {
        /// As given.
        given: String,
    },
    /// Ctrl-C.
    #[error("interrupted; {goes_on}")]
    Interrupted {
        /// That it goes on, and how to look at it.
        goes_on: String,
    },
    /// The operator was asked, and did not say yes.
    #[error("nothing was done")]
    Declined,
    /// Standard output or standard error can't be written to.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

impl Error {
    /// A command line that can't be followed.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// The exit code: the one table.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Read { .. } | Self::Pack(_) | Self::Place(_) => Exit::Usage,
            Self::NoMaster { .. }
            | Self::NotStarted { .. }
            | Self::NotAMaster { .. }
            | Self::Lost { .. } => Exit::Unreachable,
            Self::NoMatch { .. } | Self::NoJob { .. } => Exit::NoMatch,
            Self::Interrupted { .. } => Exit::Interrupted,
            // Whoever read our output has had enough: `aot-master list | head -1` went well.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Well,
            Self::Problems(problems) => exit_of(problems),
            Self::Output(_) | Self::Write { .. } | Self::Declined => Exit::Failed,
            Self::Refused(status) => match status.code() {
                Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
                Code::NotFound => Exit::NoMatch,
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::PermissionDenied
                | Code::Unauthenticated => Exit::Unreachable,
                _ if is_broken(status) => Exit::Unreachable,
                _ => Exit::Failed,
            },
        }
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::NoMaster { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("only root and the user that runs the master may ask it".to_owned())
            }
            Self::NoMatch { .. } => Some("aot-master list shows the names".to_owned()),
            Self::NoJob { .. } => Some("aot-master jobs lists them".to_owned()),
            Self::NoMaster { .. } => Some(
                "aot-master launch FILE starts one by itself; aot-master serve runs one here; --socket names another"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What is printed: one message with its causes, then the hint. A report of several lines is printed as it is.
    /// `None` when there is nothing to say.
    pub fn report(&self) -> Option<String> {
        if self.exit() == Exit::Well {
            return None;
        }
        if let Self::Refused(status) = self
            && status.message().contains('\n')
        {
            return match problems_of(status) {
                Some(problems) => Self::Problems(problems).report(),
                None => Some(status.message().trim_end().to_owned()),
            };
        }
        if let Self::Problems(problems) = self {
            let lines = problem_lines(problems, Style::default());
            return Some(format!("error: {self}\n{lines}"));
        }
        let mut text = match self {
            Self::Interrupted { .. } | Self::Declined => self.to_string(),
            Self::Refused(status) if is_broken(status) => {
                "error: lost the master before it answered".to_owned()
            }
            _ => format!("error: {self}"),
        };
        // A status prints all it holds: its message is enough.
        let mut source = match self {
            Self::Lost {
                source: Some(status),
                ..
            } => {
                text.push_str(&format!(": {}", status.message()));
                None
            }
            Self::Refused(_) => None,
            _ => self.source(),
        };
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        Some(text)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// `1 problem stands`, `2 problems stand`.
fn stand(count: usize) -> String {
    match count {
        1 => "1 problem stands".to_owned(),
        _ => format!("{count} problems stand"),
    }
}

/// The problems that a refused launch lists: a line each, with its hint on the next, indented one.
fn problems_of(status: &Status) -> Option<Vec<Problem>> {
    let text = status.message();
    if status.code() != Code::FailedPrecondition || !text.contains(HINT) {
        return None;
    }
    let mut problems: Vec<Problem> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix(HINT), problems.last_mut()) {
            (Some(hint), Some(last)) => last.hint = hint.to_owned(),
            (None, Some(last)) if line.starts_with(' ') => {
                last.message.push('\n');
                last.message.push_str(line.trim_start());
            }
            _ => problems.push(Problem {
                message: line.to_owned(),
                ..Problem::default()
            }),
        }
    }
    Some(problems)
}

/// Whether a status was made here because the connection broke; one that a master sent has no source.
pub fn is_broken(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().is_empty() || status.source().is_some()
}

/// What a file that can't be launched is: bad itself, or at odds with what is there.
pub fn exit_of(problems: &[Problem]) -> Exit {
    match problems.iter().any(|problem| problem.file) {
        true => Exit::Usage,
        false => Exit::Failed,
    }
}
