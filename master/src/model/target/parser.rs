//! Words into an expression. `not` binds closest, then `and`, then `or`, then the comma, which is another `or`.

use std::collections::BTreeMap;

use super::glob::Glob;
use super::lexer::Lexer;
use super::value::{Op, Pattern};
use super::{Target, TargetError};

/// Longest expression: a list of all names of the largest cluster fits.
const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of parentheses, `not` and groups.
const MAX_DEPTH: usize = 32;
/// Most parts of one expression, those of its groups too.
const MAX_PARTS: usize = 100_000;
/// Words before a colon.
const PREFIXES: &str = "name, pool, state, phase, tag, fact, re, group";

type Fault = (String, usize);

struct Parser<'a> {
    lexer: Lexer,
    groups: &'a BTreeMap<String, String>,
    /// Groups that are being read, outermost first.
    inside: Vec<String>,
    parts: usize,
    depth: usize,
    /// A fault in a group's own text.
    in_group: Option<TargetError>,
}

pub(super) fn parse(text: &str, groups: &BTreeMap<String, String>) -> Result<Target, TargetError> {
    let mut parser = Parser {
        lexer: Lexer::new(""),
        groups,
        inside: Vec::new(),
        parts: 0,
        depth: 0,
        in_group: None,
    };
    parser.whole(text)
}

impl Parser<'_> {
    /// A whole text; of a group, when it stands inside of one.
    fn whole(&mut self, text: &str) -> Result<Target, TargetError> {
        let error = |(message, at): Fault| TargetError {
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

    fn list(&mut self) -> Result<Target, Fault> {
        self.chain(Self::or, |lexer| lexer.take(","), Target::Or)
    }

    fn or(&mut self) -> Result<Target, Fault> {
        self.chain(Self::and, |lexer| lexer.take_word("or"), Target::Or)
    }

    fn and(&mut self) -> Result<Target, Fault> {
        self.chain(Self::not, |lexer| lexer.take_word("and"), Target::And)
    }

    fn chain(
        &mut self,
        operand: impl Fn(&mut Self) -> Result<Target, Fault>,
        goes_on: impl Fn(&mut Lexer) -> bool,
        join: impl Fn(Vec<Target>) -> Target,
    ) -> Result<Target, Fault> {
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

    fn not(&mut self) -> Result<Target, Fault> {
        self.lexer.skip_blanks();
        let start = self.lexer.at;
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err((format!("the target has more than {MAX_PARTS} parts"), start));
        }
        if self.lexer.take_word("not") {
            return self.deeper(start, |parser| Ok(Target::Not(Box::new(parser.not()?))));
        }
        if self.lexer.take("(") {
            return self.deeper(start, |parser| {
                let inner = parser.list()?;
                parser.lexer.skip_blanks();
                match parser.lexer.take(")") {
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
        read: impl Fn(&mut Self) -> Result<Target, Fault>,
    ) -> Result<Target, Fault> {
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

    fn term(&mut self) -> Result<Target, Fault> {
        let start = self.lexer.at;
        if self.lexer.take("@") {
            return self.group(start);
        }
        let Some(prefix) = self.lexer.take_prefix() else {
            if ["and", "or"].iter().any(|word| self.lexer.take_word(word)) {
                return Err((
                    "something to match is missing before this word".to_owned(),
                    start,
                ));
            }
            return self.glob("something to match").map(Target::Name);
        };
        match prefix.as_str() {
            "name" => self.glob("a name").map(Target::Name),
            "pool" => self.glob("a pool").map(Target::Pool),
            "state" => self.glob("a state").map(Target::State),
            "phase" => self.glob("a phase").map(Target::Phase),
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
    fn value(&mut self, what: &str) -> Result<(String, usize), Fault> {
        let quoted = self.lexer.peek() == Some('"');
        let start = self.lexer.at;
        let text = self.lexer.value()?;
        if text.is_empty() && !quoted {
            return Err((format!("{what} is missing"), start));
        }
        Ok((text, start + usize::from(quoted)))
    }

    fn glob(&mut self, what: &str) -> Result<Glob, Fault> {
        let (text, start) = self.value(what)?;
        Glob::new(&text).map_err(|(message, at)| (message, start + at))
    }

    fn pattern(&mut self) -> Result<Pattern, Fault> {
        let (text, start) = self.value("a regular expression")?;
        Pattern::new(&text)
            .map_err(|message| (format!("not a regular expression: {message}"), start))
    }

    fn compared(&mut self, make: impl Fn(String, Op) -> Target) -> Result<Target, Fault> {
        let start = self.lexer.at;
        let key = self.lexer.key()?;
        if key.is_empty() {
            return Err(("a key is missing".to_owned(), start));
        }
        let op = if self.lexer.take("!=") {
            Op::IsNot(self.glob_or_empty()?)
        } else if self.lexer.take("=") {
            Op::Is(self.glob_or_empty()?)
        } else if self.lexer.take("<") {
            Op::Less(self.number()?)
        } else if self.lexer.take(">") {
            Op::More(self.number()?)
        } else if self.lexer.take("~") {
            Op::Like(self.pattern()?)
        } else if self.lexer.peek() == Some('!') {
            return Err((
                "after a key, one of = != < > ~ is wanted".to_owned(),
                self.lexer.at,
            ));
        } else {
            Op::Exists
        };
        Ok(make(key, op))
    }

    fn glob_or_empty(&mut self) -> Result<Glob, Fault> {
        let start = self.lexer.at + usize::from(self.lexer.peek() == Some('"'));
        let text = self.lexer.value()?;
        Glob::new(&text).map_err(|(message, at)| (message, start + at))
    }

    fn number(&mut self) -> Result<String, Fault> {
        let (text, start) = self.value("a number")?;
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(text),
            _ => Err((format!("{text:?} is not a number"), start)),
        }
    }

    fn group(&mut self, start: usize) -> Result<Target, Fault> {
        let (name, _) = self.value("a group's name")?;
        let Some(text) = self.groups.get(&name) else {
            return Err((format!("there is no group {name:?}"), start));
        };
        if self.inside.contains(&name) {
            let circle = format!("{} -> {name}", self.inside.join(" -> "));
            return Err((format!("groups in a circle: {circle}"), start));
        }
        self.inside.push(name.clone());
        let text = text.clone();
        let target = self.deeper(start, |parser| {
            parser.whole(&text).map_err(|error| {
                let fault = (error.message.clone(), start);
                parser.in_group = Some(error);
                fault
            })
        })?;
        self.inside.pop();
        Ok(Target::Group(name, Box::new(target)))
    }
}
