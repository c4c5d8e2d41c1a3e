//! What an agent answers by itself, without a process: the names, and what each takes. Used by the command line and the
//! master to refuse early, and by the agent to answer. Pure.

/// Every name, in the order in which they are shown.
pub const NAMES: [&str; 5] = ["ping", "facts", "version", "stat", "tail"];

/// Lines of a `tail` that says no number: as tail(1).
pub const TAIL_LINES: usize = 10;
/// Most lines of one `tail`.
pub const MAX_TAIL_LINES: usize = 1000;
/// Most bytes of a file that one `tail` looks at, from its end.
pub const MAX_TAIL_BYTES: u64 = 256 << 10;

/// One question, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Builtin {
    /// Is it there?
    Ping,
    /// What it found out about its machine.
    Facts,
    /// Its version.
    Version,
    /// What a file is, and where a link leads.
    Stat {
        /// Absolute.
        path: String,
    },
    /// The last lines of a file.
    Tail {
        /// Absolute.
        path: String,
        /// From 1 to [`MAX_TAIL_LINES`].
        lines: usize,
    },
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("unknown built-in {0:?}; the built-ins are {list}", list = NAMES.join(", "))]
    Unknown(String),
    /// Too many or too few arguments.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// Agents have no folder of their own to start from.
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    /// A path that no file can have.
    #[error("a path cannot have NUL bytes")]
    Nul,
    /// Not a number of lines.
    #[error("{0:?} is not a number of lines from 1 to {MAX_TAIL_LINES}")]
    Lines(String),
}

impl Builtin {
    /// Checks a name and its arguments.
    ///
    /// # Errors
    /// When there is no such built-in, or it does not take these arguments.
    pub fn parse(name: &str, args: &[String]) -> Result<Self, Error> {
        let none = |builtin: Self, usage| match args {
            [] => Ok(builtin),
            _ => Err(Error::Usage(usage)),
        };
        match (name, args) {
            ("ping", _) => none(Self::Ping, "ping"),
            ("facts", _) => none(Self::Facts, "facts"),
            ("version", _) => none(Self::Version, "version"),
            ("stat", [path]) => Ok(Self::Stat {
                path: absolute(path)?,
            }),
            ("stat", _) => Err(Error::Usage("stat PATH")),
            ("tail", [path]) => Ok(Self::Tail {
                path: absolute(path)?,
                lines: TAIL_LINES,
            }),
            ("tail", [path, lines]) => Ok(Self::Tail {
                path: absolute(path)?,
                lines: number(lines)?,
            }),
            ("tail", _) => Err(Error::Usage("tail PATH [LINES]")),
            (other, _) => Err(Error::Unknown(other.to_owned())),
        }
    }
}

fn absolute(path: &str) -> Result<String, Error> {
    if path.contains('\0') {
        return Err(Error::Nul);
    }
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(Error::Relative(path.to_owned())),
    }
}

fn number(text: &str) -> Result<usize, Error> {
    let lines = text.parse().ok();
    lines
        .filter(|lines| (1..=MAX_TAIL_LINES).contains(lines))
        .ok_or_else(|| Error::Lines(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Builtin, String> {
        let args: Vec<String> = words[1..].iter().map(|word| (*word).to_owned()).collect();
        Builtin::parse(words[0], &args).map_err(|error| error.to_string())
    }

    #[test]
    fn each_takes_what_it_says() {
        let tail = |lines| Builtin::Tail {
            path: "/a b".into(),
            lines,
        };
        let path = "/a b".to_owned();
        assert_eq!(parse(&["ping"]), Ok(Builtin::Ping));
        assert_eq!(parse(&["facts"]), Ok(Builtin::Facts));
        assert_eq!(parse(&["version"]), Ok(Builtin::Version));
        assert_eq!(parse(&["stat", "/a b"]), Ok(Builtin::Stat { path }));
        assert_eq!(parse(&["tail", "/a b"]), Ok(tail(10)));
        assert_eq!(parse(&["tail", "/a b", "1000"]), Ok(tail(1000)));
    }

    #[test]
    fn every_mistake_has_its_message() {
        let table: [(&[&str], &str); 11] = [
            (&["ping", "x"], "usage: ping"),
            (&["facts", "os"], "usage: facts"),
            (&["version", "x"], "usage: version"),
            (&["stat"], "usage: stat PATH"),
            (&["stat", "/a", "/b"], "usage: stat PATH"),
            (&["stat", "a"], "\"a\" is not an absolute path"),
            (&["stat", "/a\0"], "a path cannot have NUL bytes"),
            (&["tail"], "usage: tail PATH [LINES]"),
            (
                &["tail", "/a", "0"],
                "\"0\" is not a number of lines from 1 to 1000",
            ),
            (
                &["tail", "/a", "-5"],
                "\"-5\" is not a number of lines from 1 to 1000",
            ),
            (
                &["shell"],
                "unknown built-in \"shell\"; the built-ins are ping, facts, version, stat, tail",
            ),
        ];
        for (words, message) in table {
            assert_eq!(parse(words), Err(message.to_owned()), "{words:?}");
        }
    }
}
