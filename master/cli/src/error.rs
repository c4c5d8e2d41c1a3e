//! Every way a command can end without a result, and the exit code of each. Raised by the command modules, printed by
//! `run`; never prints by itself.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use aot_host::environment::NotText;
use aot_proto::fault::{self, What};
use aot_proto::plural;
use aot_proto::v1::{Problem, Problems, TargetFault};
use tonic::{Code, Status};

use super::CLUSTER_FILE;
use super::star::StarHint;
use super::variables::UnreadVariables;
use crate::view::{Style, problem_lines, target_fault};

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
    /// Ctrl-C; the job continues.
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
    #[error(transparent)]
    Pack(#[from] aot_archive::PackError),
    /// Nothing can be copied to there.
    #[error(transparent)]
    Place(#[from] aot_archive::DestinationError),
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
    /// Nobody answers, and a service is to serve this state.
    #[error("no master answers: {} belongs to a service that is not running", state_dir.display())]
    ServiceIsDown {
        /// The state.
        state_dir: PathBuf,
    },
    /// The handshake on the socket failed.
    #[error("{} is not served by an aot master", socket.display())]
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
    #[error("not launched: {}", plural::count(.0.problems.len() + .0.more as usize, "problem"))]
    Problems(Problems),
    /// An expression that names instances is wrong.
    #[error("{}: {}", .0.what, .0.message)]
    Target(Box<TargetFault>),
    /// cluster.yml is wrong: the master's report, of several lines.
    #[error("{}", .0.trim_end())]
    File(String),
    /// The connection broke while a job ran.
    #[error("lost the master; {goes_on}")]
    Lost {
        /// That it continues, and how to look at it.
        goes_on: String,
        /// Why, when the connection said.
        source: Option<Box<Status>>,
    },
    /// The master says that an expression means no instance.
    #[error("{}", .0.message)]
    Nobody(Box<TargetFault>),
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
        /// That it continues, and how to look at it.
        goes_on: String,
    },
    /// The operator was asked, and did not say yes.
    #[error("nothing was done")]
    Declined,
    /// The machine does not connect to where a forward leads, or is not asked to.
    #[error("{instance}: not connected: {why}")]
    NotConnected {
        /// Which machine.
        instance: String,
        /// What it says.
        why: String,
    },
    /// A connection to a machine did not come to its end.
    #[error("{instance}: the connection broke: {why}")]
    ConnectionBroke {
        /// Which machine.
        instance: String,
        /// Why.
        why: String,
    },
    /// Some output was not shown whole: the master's words on the first of them.
    #[error("{0}")]
    Incomplete(String),
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
            Self::Usage { .. }
            | Self::Read { .. }
            | Self::Pack(_)
            | Self::Place(_)
            | Self::Target(_)
            | Self::File(_) => Exit::Usage,
            Self::NoMaster { .. }
            | Self::ServiceIsDown { .. }
            | Self::NotStarted { .. }
            | Self::NotAMaster { .. }
            | Self::Lost { .. } => Exit::Unreachable,
            Self::Nobody(_) | Self::NoMatch { .. } | Self::NoJob { .. } => Exit::NoMatch,
            Self::Interrupted { .. } => Exit::Interrupted,
            // Whoever read our output has had enough: `aot-master list | head -1` went well.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Well,
            Self::Problems(all) => exit_of(&all.problems),
            Self::Output(_)
            | Self::Write { .. }
            | Self::Declined
            | Self::Incomplete(_)
            | Self::NotConnected { .. }
            | Self::ConnectionBroke { .. } => Exit::Failed,
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
                Some("only root and the user that runs the master may use it".to_owned())
            }
            Self::Nobody(fault) if !fault.hint.is_empty() => Some(fault.hint.clone()),
            Self::Nobody(_) | Self::NoMatch { .. } => {
                Some("aot-master list shows the names".to_owned())
            }
            Self::NoJob { .. } => Some("aot-master jobs lists them".to_owned()),
            Self::Read { path, source }
                if source.kind() == io::ErrorKind::NotFound && path.as_os_str() == CLUSTER_FILE =>
            {
                Some("aot-master init writes a first one; another file is named behind the command".to_owned())
            }
            Self::ServiceIsDown { .. } => Some(
                "start it again (systemctl start aot-master), or take over its state: aot-master launch --background FILE"
                    .to_owned(),
            ),
            Self::NoMaster { .. } => Some(
                "aot-master launch FILE starts one; aot-master serve runs one in the foreground; --socket selects another"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// With the hint that words of the command were a star, where it names no instance or can't be followed.
    #[must_use]
    pub(crate) fn hinted(self, star: Option<StarHint>) -> Self {
        match (self, star) {
            (Self::Nobody(mut fault), Some(star)) if star.is_sure || fault.hint.is_empty() => {
                fault.hint = star.text;
                Self::Nobody(fault)
            }
            (Self::Usage { what, .. }, Some(star)) if star.is_sure => Self::Usage {
                what,
                hint: star.text,
            },
            (error, _) => error,
        }
    }

    /// What is printed: one message with its causes, then the hint. The report on a file is printed as it is. `None` when
    /// there is nothing to say.
    pub fn report(&self, style: Style) -> Option<String> {
        if self.exit() == Exit::Well {
            return None;
        }
        let error = style.bad("error:");
        let mut text = match self {
            Self::Problems(Problems { problems, more }) => {
                let lines = problem_lines(problems, *more, style);
                return Some(format!("{error} {self}\n{lines}"));
            }
            Self::Target(fault) => return Some(format!("{error} {}", target_fault(fault, style))),
            Self::File(_) | Self::Interrupted { .. } | Self::Declined => self.to_string(),
            Self::Refused(status) if is_broken(status) => {
                format!("{error} lost the master before it answered")
            }
            _ => format!("{error} {self}"),
        };
        // A status prints all it holds: its message is enough.
        let mut source = match self {
            Self::Lost {
                source: Some(status),
                ..
            } => {
                text.push_str(&format!("\n  cause: {}", status.message()));
                None
            }
            Self::Refused(_) => None,
            _ => self.source(),
        };
        while let Some(cause) = source {
            // Some errors name their cause themselves; once is enough.
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(&format!(": {cause_text}"));
            }
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            let hint = style.dim(&format!("hint: {hint}"));
            text.push_str(&format!("\n  {hint}"));
        }
        Some(text)
    }
}

impl From<NotText> for Error {
    fn from(error: NotText) -> Self {
        Self::usage(
            error.to_string(),
            "give it a value that is UTF-8, or unset it",
        )
    }
}

impl From<UnreadVariables> for Error {
    fn from(unread: UnreadVariables) -> Self {
        Self::Read {
            path: unread.path,
            source: unread.source,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match fault::of(&status) {
            Some(What::Problems(problems)) => Self::Problems(problems),
            Some(What::Target(fault)) if status.code() == Code::NotFound => {
                Self::Nobody(Box::new(fault))
            }
            Some(What::Target(fault)) => Self::Target(Box::new(fault)),
            Some(What::File(fault)) => Self::File(fault.report),
            None => Self::Refused(status),
        }
    }
}

/// Whether a status was made here because the connection broke; one that a master sent has no source.
pub(crate) fn is_broken(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().is_empty() || status.source().is_some()
}

/// What a file that can't be launched is: bad itself, or at odds with what is there.
pub(crate) fn exit_of(problems: &[Problem]) -> Exit {
    match problems.iter().any(|problem| problem.file) {
        true => Exit::Usage,
        false => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_file_cannot_be_copied_is_said_once() {
        for (path, why) in [
            ("/no/such/file", "(os error 2)"),
            ("/dev/null", "is a device"),
        ] {
            let sources = aot_archive::sources(&[PathBuf::from(path)]).expect("a name");
            let error = aot_archive::pack(&sources, io::sink(), &mut |_| {}).expect_err(path);
            let text = Error::from(error)
                .report(Style::default())
                .expect("it is not well");
            assert_eq!(text.matches(why).count(), 1, "{text}");
            assert_eq!(text.matches(path).count(), 1, "{text}");
        }
        let twice = ["/a/x", "/b/x"].map(PathBuf::from);
        let error = aot_archive::sources(&twice).expect_err("one name for two");
        let text = Error::from(error)
            .report(Style::default())
            .expect("it is not well");
        assert_eq!(text, "error: two of them are named x: copy them one by one");
    }
}
