//! Words into an expression. `not` binds closest, then `and`, then `or`, then the comma, which is another `or`.

use std::collections::BTreeMap;

use super::glob::Glob;
use super::lexer::Lexer;
use super::value::{Op, ValuePattern};
use super::{ClusterWords, Target, TargetError};
use crate::machine::MachineState;
use crate::phase::Phase;

/// Longest expression: a list of all names of the largest cluster fits.
const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of parentheses, `not` and groups.
const MAX_DEPTH: usize = 32;
/// Most parts of one expression, those of its groups too.
const MAX_PARTS: usize = 100_000;
/// Words before a colon.
const PREFIXES: &str = "name, pool, state, phase, tag, fact, re, group";

type ParseFault = (String, usize);

fn states() -> impl Iterator<Item = &'static str> + Clone {
    MachineState::ALL.iter().map(|state| state.as_str())
}

struct Parser<'a> {
    lexer: Lexer,
    groups: &'a BTreeMap<String, String>,
    words: ClusterWords<'a>,
    /// Groups that are being read, outermost first.
    inside: Vec<String>,
    parts: usize,
    depth: usize,
    /// A fault in a group's own text.
    in_group: Option<TargetError>,
}

pub(super) fn parse(
    text: &str,
    groups: &BTreeMap<String, String>,
    words: ClusterWords<'_>,
) -> Result<Target, TargetError> {
    let mut parser = Parser {
        lexer: Lexer::new(""),
        groups,
        words,
        inside: Vec::new(),
        parts: 0,
        depth: 0,
        in_group: None,
    };
    parser.parse(text)
}

impl Parser<'_> {
    /// A whole text; of a group, when it stands inside of one.
    fn parse(&mut self, text: &str) -> Result<Target, TargetError> {
        let error = |(message, at): ParseFault| TargetError {
            message,
            column: at + 1,
            text: text.to_owned(),
        };
        if text.len() > MAX_BYTES {
            return Err(error(("the target has more than 1 MiB".to_owned(), 0)));
        }
        let outer = std::mem::replace(&mut self.lexer, Lexer::new(text));
        let read = self.list().and_then(|target| {
            self.lexer.skip_blanks();
            match self.lexer.peek() {
                None => Ok(target),
                Some(')') => Err(("a ) that closes nothing".to_owned(), self.lexer.at)),
                Some(_) => Err((
                    "`and`, `or` or a comma is missing".to_owned(),
                    self.lexer.at,
                )),
            }
        });
        self.lexer = outer;
        read.map_err(|fault| self.in_group.take().unwrap_or_else(|| error(fault)))
    }

    fn list(&mut self) -> Result<Target, ParseFault> {
        self.chain(Self::or, |lexer| lexer.eat(","), Target::Or)
    }

    fn or(&mut self) -> Result<Target, ParseFault> {
        self.chain(Self::and, |lexer| lexer.eat_keyword("or"), Target::Or)
    }

    fn and(&mut self) -> Result<Target, ParseFault> {
        self.chain(Self::not, |lexer| lexer.eat_keyword("and"), Target::And)
    }

    fn chain(
        &mut self,
        operand: impl Fn(&mut Self) -> Result<Target, ParseFault>,
        goes_on: impl Fn(&mut Lexer) -> bool,
        join: impl Fn(Vec<Target>) -> Target,
    ) -> Result<Target, ParseFault> {
        let first = operand(self)?;
        self.lexer.skip_blanks();
        if !goes_on(&mut self.lexer) {
            return Ok(first);
        }
        let mut all = vec![first, operand(self)?];
        self.lexer.skip_blanks();
        while goes_on(&mut self.lexer) {
            all.push(operand(self)?);
            self.lexer.skip_blanks();
        }
        Ok(join(all))
    }

    fn not(&mut self) -> Result<Target, ParseFault> {
        self.lexer.skip_blanks();
        let start = self.lexer.at;
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err((format!("the target has more than {MAX_PARTS} parts"), start));
        }
        if self.lexer.eat_keyword("not") {
            return self.deeper(start, |parser| Ok(Target::Not(Box::new(parser.not()?))));
        }
        if self.lexer.eat("(") {
            return self.deeper(start, |parser| {
                let inner = parser.list()?;
                parser.lexer.skip_blanks();
                match parser.lexer.eat(")") {
                    true => Ok(inner),
                    false => Err(("a ) is missing".to_owned(), parser.lexer.at)),
                }
            });
        }
        self.term()
    }

    fn deeper(
        &mut self,
        start: usize,
        read: impl Fn(&mut Self) -> Result<Target, ParseFault>,
    ) -> Result<Target, ParseFault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((
                format!("the target is nested deeper than {MAX_DEPTH}"),
                start,
            ));
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn term(&mut self) -> Result<Target, ParseFault> {
        let start = self.lexer.at;
        if self.lexer.eat("@") {
            return self.group(start);
        }
        let Some(prefix) = self.lexer.eat_prefix() else {
            if ["and", "or"]
                .iter()
                .any(|word| self.lexer.eat_keyword(word))
            {
                return Err((
                    "something to match is missing before this word".to_owned(),
                    start,
                ));
            }
            let word = self.glob("something to match")?;
            return Ok(self.words.meaning(word));
        };
        match prefix.as_str() {
            "name" => self.glob("a name").map(Target::Name),
            "pool" => self.glob("a pool").map(Target::Pool),
            "state" => {
                let known = Phase::ALL
                    .iter()
                    .map(|phase| phase.as_str())
                    .chain(states());
                self.known("a state", known).map(Target::State)
            }
            "phase" => {
                let known = Phase::ALL.iter().map(|phase| phase.as_str());
                self.known("a phase", known).map(Target::Phase)
            }
            "tag" => self.compared(Target::Tag),
            "fact" => self.compared(Target::Fact),
            "re" => self.pattern().map(Target::Regex),
            "group" => self.group(start),
            other => Err((
                format!("{other:?} is not known before a colon (known: {PREFIXES})"),
                start,
            )),
        }
    }

    /// A value and where its text starts.
    fn value(&mut self, what: &str) -> Result<(String, usize), ParseFault> {
        let quoted = self.lexer.peek() == Some('"');
        let start = self.lexer.at;
        let text = self.lexer.value()?;
        if text.is_empty() && !quoted {
            return Err((format!("{what} is missing"), start));
        }
        Ok((text, start + usize::from(quoted)))
    }

    fn glob(&mut self, what: &str) -> Result<Glob, ParseFault> {
        let (text, start) = self.value(what)?;
        Glob::new(&text).map_err(|(message, at)| (message, start + at))
    }

    /// A pattern of words of which there are only these: one that fits none of them is a slip of the pen.
    fn known<'w>(
        &mut self,
        what: &str,
        words: impl Iterator<Item = &'w str> + Clone,
    ) -> Result<Glob, ParseFault> {
        let start = self.lexer.at;
        let glob = self.glob(what)?;
        if glob.matches_any(words.clone()) {
            return Ok(glob);
        }
        let text = glob.as_str();
        let nearest = words
            .clone()
            .map(|word| (strsim::damerau_levenshtein(text, word), word))
            .min()
            .filter(|(distance, _)| *distance <= 2)
            .map_or_else(String::new, |(_, word)| format!(": did you mean {word}?"));
        let list: Vec<&str> = words.collect();
        let list = list.join(", ");
        Err((
            format!("{text:?} is not {what}{nearest} (known: {list})"),
            start,
        ))
    }

    fn pattern(&mut self) -> Result<ValuePattern, ParseFault> {
        let (text, start) = self.value("a regular expression")?;
        ValuePattern::new(&text)
            .map_err(|message| (format!("not a regular expression: {message}"), start))
    }

    fn compared(&mut self, make: impl Fn(String, Op) -> Target) -> Result<Target, ParseFault> {
        let start = self.lexer.at;
        let key = self.lexer.key()?;
        if key.is_empty() {
            return Err(("a key is missing".to_owned(), start));
        }
        let op = if self.lexer.eat("!=") {
            Op::IsNot(self.glob_or_empty()?)
        } else if self.lexer.eat("=") {
            Op::Is(self.glob_or_empty()?)
        } else if self.lexer.eat("<") {
            Op::Less(self.number()?)
        } else if self.lexer.eat(">") {
            Op::More(self.number()?)
        } else if self.lexer.eat("~") {
            Op::Like(self.pattern()?)
        } else if self.lexer.peek() == Some('!') {
            return Err((
                "expected one of = != < > ~ after a key".to_owned(),
                self.lexer.at,
            ));
        } else {
            Op::Exists
        };
        Ok(make(key, op))
    }

    fn glob_or_empty(&mut self) -> Result<Glob, ParseFault> {
        let start = self.lexer.at + usize::from(self.lexer.peek() == Some('"'));
        let text = self.lexer.value()?;
        Glob::new(&text).map_err(|(message, at)| (message, start + at))
    }

    fn number(&mut self) -> Result<String, ParseFault> {
        let (text, start) = self.value("a number")?;
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(text),
            _ => Err((format!("{text:?} is not a number"), start)),
        }
    }

    fn group(&mut self, start: usize) -> Result<Target, ParseFault> {
        let (name, _) = self.value("a group's name")?;
        let Some(text) = self.groups.get(&name) else {
            return Err((format!("no group is named {name:?}"), start));
        };
        if self.inside.contains(&name) {
            let cycle = format!("{} -> {name}", self.inside.join(" -> "));
            return Err((format!("dependency cycle of groups: {cycle}"), start));
        }
        self.inside.push(name.clone());
        let text = text.clone();
        let target = self.deeper(start, |parser| {
            parser.parse(&text).map_err(|error| {
                let fault = (error.message.clone(), start);
                parser.in_group = Some(error);
                fault
            })
        })?;
        self.inside.pop();
        Ok(Target::Group(name, Box::new(target)))
    }
}
