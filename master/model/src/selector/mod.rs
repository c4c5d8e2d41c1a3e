//! Expressions that name instances: `web*`, `pool:web and not name:web3`, `a,b,c`. Parsed by the daemon for every
//! command that takes a TARGET, and by `config` for saved groups. Pure.

mod glob;
mod lexer;
mod numbers;
mod parser;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::collections::BTreeMap;
use std::fmt;

pub use glob::Glob;
pub use value::{Op, ValuePattern};
pub use words::{ClusterWords, hint_for_nobody};

/// What an expression is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Name of the instance.
    pub name: &'a str,
    /// Its pool.
    pub pool: Option<&'a str>,
    /// As EC2 calls it.
    pub state: &'a str,
    /// aot's phase.
    pub phase: &'a str,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
    /// Facts that the provider shows and the file says.
    pub attested: Option<&'a serde_json::Value>,
    /// Facts that only its machine says, its own ones under `node`.
    pub claimed: Option<&'a serde_json::Value>,
}

/// A parsed expression. `Display` gives a text that parses to the same expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// `web*`, `name:web*`.
    Name(Glob),
    /// `pool:web`.
    Pool(Glob),
    /// `state:running`, `state:failed`: EC2's state or aot's phase.
    State(Glob),
    /// `phase:ready`.
    Phase(Glob),
    /// `tag:env=prod`; `tag:env` asks whether there is such a tag.
    Tag(String, Op),
    /// `fact:os.name=debian`; what is attested comes first, and what is not found is then sought under `node`.
    Fact(String, Op),
    /// `re:^web[0-9]+$`, on the name.
    Regex(ValuePattern),
    /// `@name` or `group:name`, a saved expression.
    Group(String, Box<Target>),
    /// All of them.
    And(Vec<Target>),
    /// Any of them; also a list with commas.
    Or(Vec<Target>),
    /// Not that.
    Not(Box<Target>),
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at column {column} of {:?}", shortened(text))]
pub struct TargetError {
    /// What is wrong.
    pub message: String,
    /// Where, in characters from 1.
    pub column: usize,
    /// The expression; of a group, when the fault lies there.
    pub text: String,
}

/// Most characters of an expression in an error.
const SHOWN: usize = 100;

/// What to write, in examples.
const EXAMPLES: &str =
    "'web*', a,b,c, 'pool:web and not name:web3', state:failed, tag:env=prod, fact:os.name=debian";

impl TargetError {
    /// Whether the fault lies in this expression itself, not in a group that it names.
    pub fn is_of(&self, text: &str) -> bool {
        self.text == text
    }

    /// The way out.
    pub fn hint(&self, text: &str) -> String {
        match self.is_of(text) {
            true => format!("write for example {EXAMPLES}"),
            false => {
                "correct it under `groups` in the cluster's file, and launch that again".to_owned()
            }
        }
    }
}

/// An expression short enough for an error in one line.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Reads an expression. `groups` are the saved ones, by name.
///
/// # Errors
/// What is wrong and at which column; an unknown group, a cycle of groups, a bad regular expression, and bounds on
/// length and depth too.
pub fn parse(text: &str, groups: &BTreeMap<String, String>) -> Result<Target, TargetError> {
    parser::parse(text, groups, ClusterWords::NONE)
}

/// [`parse`] for a cluster: the name of a pool means the pool, and `all` means all, unless an instance has that name.
///
/// # Errors
/// As [`parse`].
pub fn parse_in(
    text: &str,
    groups: &BTreeMap<String, String>,
    words: ClusterWords<'_>,
) -> Result<Target, TargetError> {
    parser::parse(text, groups, words)
}

/// Whether a group may have this name: 1 to 63 letters, digits, `_` and `-`.
pub fn is_group_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl Target {
    /// Whether any part of it asks for facts.
    pub fn asks_facts(&self) -> bool {
        match self {
            Self::Fact(..) => true,
            Self::And(all) | Self::Or(all) => all.iter().any(Self::asks_facts),
            Self::Not(target) | Self::Group(_, target) => target.asks_facts(),
            Self::Name(_)
            | Self::Pool(_)
            | Self::State(_)
            | Self::Phase(_)
            | Self::Tag(..)
            | Self::Regex(_) => false,
        }
    }

    /// Whether this instance is selected.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Name(glob) => glob.matches(subject.name),
            Self::Pool(glob) => subject.pool.is_some_and(|pool| glob.matches(pool)),
            Self::State(glob) => glob.matches(subject.state) || glob.matches(subject.phase),
            Self::Phase(glob) => glob.matches(subject.phase),
            Self::Tag(key, op) => op.matches_text(subject.tags.get(key).map(String::as_str)),
            Self::Fact(path, op) => {
                op.matches_json(value::lookup(subject.attested, subject.claimed, path))
            }
            Self::Regex(pattern) => pattern.matches(subject.name),
            Self::Group(_, target) => target.matches(subject),
            Self::And(all) => all.iter().all(|target| target.matches(subject)),
            Self::Or(any) => any.iter().any(|target| target.matches(subject)),
            Self::Not(target) => !target.matches(subject),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(glob) => match lexer::is_plain_name(glob.as_str()) {
                true => f.write_str(glob.as_str()),
                false => write!(f, "name:{}", lexer::quoted(glob.as_str())),
            },
            Self::Pool(glob) => write!(f, "pool:{}", lexer::quoted(glob.as_str())),
            Self::State(glob) => write!(f, "state:{}", lexer::quoted(glob.as_str())),
            Self::Phase(glob) => write!(f, "phase:{}", lexer::quoted(glob.as_str())),
            Self::Tag(key, op) => write!(f, "tag:{}{op}", lexer::quoted_key(key)),
            Self::Fact(path, op) => write!(f, "fact:{}{op}", lexer::quoted_key(path)),
            Self::Regex(pattern) => write!(f, "re:{}", lexer::quoted(pattern.as_str())),
            Self::Group(name, _) => write!(f, "@{name}"),
            Self::And(all) => joined(f, all, " and "),
            Self::Or(any) => joined(f, any, " or "),
            Self::Not(target) => write!(f, "not {}", NestedTarget(target)),
        }
    }
}

/// An operand: in parentheses when it has operands of its own.
struct NestedTarget<'a>(&'a Target);

impl fmt::Display for NestedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Target::And(_) | Target::Or(_) => write!(f, "({})", self.0),
            other => other.fmt(f),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, operands: &[Target], word: &str) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        let word = if index == 0 { "" } else { word };
        write!(f, "{word}{}", NestedTarget(operand))?;
    }
    Ok(())
}
