//! Comparisons with tags and facts.

use std::cmp::Ordering;
use std::fmt;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::glob::Glob;
use super::lexer;

/// Memory that one compiled expression may take.
const REGEX_BYTES: usize = 1 << 20;

/// A regular expression, equal by its text. Matches anywhere unless anchored.
#[derive(Debug, Clone)]
pub struct ValuePattern(Regex);

impl PartialEq for ValuePattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl ValuePattern {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
        built.map(Self).map_err(|error| {
            let text = error.to_string();
            text.lines()
                .last()
                .unwrap_or("not a regular expression")
                .trim_start_matches("error: ")
                .to_owned()
        })
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is found in the text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// A comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// There is a value.
    Exists,
    /// `=`: fits the pattern; of a list, one of its items does.
    Is(Glob),
    /// `!=`: the opposite, so true also where there is no value.
    IsNot(Glob),
    /// `<`, as numbers.
    Less(String),
    /// `>`, as numbers.
    More(String),
    /// `~`: the expression is found.
    Like(ValuePattern),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => Ok(()),
            Self::Is(glob) => write!(f, "={}", lexer::quoted(glob.as_str())),
            Self::IsNot(glob) => write!(f, "!={}", lexer::quoted(glob.as_str())),
            Self::Less(number) => write!(f, "<{}", lexer::quoted(number)),
            Self::More(number) => write!(f, ">{}", lexer::quoted(number)),
            Self::Like(pattern) => write!(f, "~{}", lexer::quoted(pattern.as_str())),
        }
    }
}

impl Op {
    /// Compares a tag's value.
    pub(super) fn matches_text(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::IsNot(glob), value) => !value.is_some_and(|value| glob.matches(value)),
            (_, None) => false,
            (Self::Exists, Some(_)) => true,
            (Self::Is(glob), Some(value)) => glob.matches(value),
            (Self::Less(than), Some(value)) => order(value, than) == Some(Ordering::Less),
            (Self::More(than), Some(value)) => order(value, than) == Some(Ordering::Greater),
            (Self::Like(pattern), Some(value)) => pattern.matches(value),
        }
    }

    /// Compares a fact. A list matches when one of its items does; `null` is not a value.
    pub(super) fn matches_json(&self, value: Option<&Value>) -> bool {
        if let Self::IsNot(glob) = self {
            return !Self::Is(glob.clone()).matches_json(value);
        }
        match value {
            None | Some(Value::Null) => false,
            Some(_) if *self == Self::Exists => true,
            Some(Value::String(text)) => self.matches_text(Some(text)),
            Some(Value::Array(items)) => items
                .iter()
                .any(|item| !item.is_array() && self.matches_json(Some(item))),
            Some(Value::Object(_)) => false,
            Some(scalar) => self.matches_text(Some(&scalar.to_string())),
        }
    }
}

fn order(left: &str, right: &str) -> Option<Ordering> {
    left.trim()
        .parse::<f64>()
        .ok()?
        .partial_cmp(&right.trim().parse::<f64>().ok()?)
}

/// The fact at a dotted path. A name that is attested is answered from there alone, also when it has no value: what a
/// machine claims can't stand in its place. Its own facts lie under `node`, which may be left out.
pub(super) fn lookup<'a>(
    attested: Option<&'a Value>,
    claimed: Option<&'a Value>,
    path: &str,
) -> Option<&'a Value> {
    let first = path.split('.').next().unwrap_or(path);
    if let Some(attested) = attested
        && attested.get(first).is_some()
    {
        return walk(attested, path);
    }
    let claimed = claimed?;
    walk(claimed, path).or_else(|| walk(claimed.get("node")?, path))
}

fn walk<'a>(facts: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(facts, |at, step| match at {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}
