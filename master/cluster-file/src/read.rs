//! From nodes to typed values, continuing after every problem. The shapes of `raw` are read through the two traits
//! here, which also give their JSON Schema, so that parser and schema can't differ.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::node::{Body, Node, ScalarKind};
use super::report::Mistake;

/// Where a value stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// `pools[1].size`.
    pub path: String,
}

impl At {
    /// A problem here.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(self.span.clone(), self.path.clone(), message)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub value: T,
    pub at: At,
}

/// Collects problems while the tree is read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Found so far.
    pub problems: Vec<Mistake>,
    path: Vec<String>,
}

impl Reader {
    /// Where this node stands.
    pub(crate) fn at(&self, node: &Node) -> At {
        At {
            span: node.span.clone(),
            path: self.path.concat(),
        }
    }

    /// Notes a problem.
    pub(crate) fn push(&mut self, problem: Mistake) {
        self.problems.push(problem);
    }

    /// Notes that this node should be something else; gives nothing, for callers to return.
    pub(crate) fn wrong<T>(&mut self, node: &Node, wanted: &str) -> Option<T> {
        let at = self.at(node);
        let problem = match &node.body {
            Body::Null => at
                .problem(format!("has no value, wants {wanted}"))
                .help("give a value, or remove the key"),
            _ => at.problem(format!("wants {wanted}, found {}", node.found())),
        };
        self.push(problem);
        None
    }

    /// Does `read` one step further down the path.
    pub(crate) fn under<T>(&mut self, step: String, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let read = read(self);
        self.path.pop();
        read
    }

    /// The same for a key.
    pub(crate) fn under_key<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let step = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!(".{key}")
        };
        self.under(step, read)
    }
}

/// What can be read from a node. Problems go to the reader; `None` means that there was one.
pub(crate) trait FromNode: Sized + JsonSchema {
    /// Reads it.
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self>;
}

impl<T: FromNode> FromNode for Located<T> {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let at = reader.at(node);
        Some(Self {
            value: T::from_node(node, reader)?,
            at,
        })
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.body {
            Body::Scalar {
                kind: ScalarKind::Bool(value),
                ..
            } => Some(value),
            Body::Scalar { ref text, .. } => match text.as_str() {
                "yes" | "on" => Some(true),
                "no" | "off" => Some(false),
                _ => reader.wrong(node, "true or false"),
            },
            _ => reader.wrong(node, "true or false"),
        }
    }
}

impl FromNode for u32 {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.body {
            Body::Scalar {
                kind: ScalarKind::Int(value),
                ..
            } => match u32::try_from(value) {
                Ok(value) => Some(value),
                Err(_) => {
                    let at = reader.at(node);
                    reader.push(at.problem(format!(
                        "{value} is out of range, wants a whole number from 0 to {}",
                        u32::MAX
                    )));
                    None
                }
            },
            Body::Scalar { ref text, kind } if kind != ScalarKind::Text => {
                let at = reader.at(node);
                reader.push(not_an_integer(&at, text));
                None
            }
            _ => reader.wrong(node, "a whole number"),
        }
    }
}

/// A number in a form that may be read in two ways.
fn not_an_integer(at: &At, text: &str) -> Mistake {
    let decimal = text.trim_start_matches('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let problem = at.problem(format!("wants a whole number, found {text}"));
    if digits && !decimal.is_empty() {
        return problem.help(format!(
            "numbers that begin with 0 are octal to some programs: write {decimal}"
        ));
    }
    problem.help("decimal digits alone, as in 12")
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name(pub $inner);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_type! {
    /// Text that may be empty: arguments, environment, tags' values. A number keeps the form that the file gives it.
    Free(String), {"type": ["string", "number", "boolean"]}
}
text_type! {
    /// Text of at least one character, without control characters.
    Text(String), {"type": "string", "minLength": 1}
}
text_type! {
    /// A number or text of it, as it stands: `5`, `90%`, `0.05`.
    Loosely(String), {"type": ["string", "number"]}
}
text_type! {
    /// A length of time with its unit: `30m`, `1h 30m`.
    Span(Duration), {"type": "string", "pattern": r"^\s*([0-9]+\s*[a-zA-Z]+\s*)+$"}
}

impl FromNode for Free {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Some(text) = node.text() else {
            return reader.wrong(node, "text");
        };
        if text.contains('\0') {
            let at = reader.at(node);
            reader.push(at.problem("holds a NUL byte"));
            return None;
        }
        Some(Self(text.to_owned()))
    }
}

impl FromNode for Text {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = Free::from_node(node, reader)?.0;
        let at = reader.at(node);
        if text.trim().is_empty() {
            reader.push(
                at.problem("is empty")
                    .help("give a value, or remove the key"),
            );
            return None;
        }
        if text.chars().any(char::is_control) {
            reader.push(at.problem("holds a line break or another control character"));
            return None;
        }
        Some(Self(text))
    }
}

impl FromNode for Loosely {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        Text::from_node(node, reader).map(|text| Self(text.0))
    }
}

/// Longest time that a file may ask for.
const MAX_SPAN: Duration = Duration::from_secs(30 * 24 * 3600);

impl FromNode for Span {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = Text::from_node(node, reader)?.0;
        let at = reader.at(node);
        let problem = match humantime::parse_duration(text.trim()) {
            Ok(span) if span.is_zero() => at.problem("is a length of zero"),
            Ok(span) if span > MAX_SPAN => at.problem(format!("{text} is longer than 30 days")),
            Ok(span) => return Some(Self(span)),
            Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => at
                .problem(format!("{text} has no unit"))
                .help(format!("{text}s for seconds, {text}m for minutes")),
            Err(error) => at
                .problem(format!("{text:?} is not a length of time: {error}"))
                .help("as in 90s, 30m, 1h 30m"),
        };
        reader.push(problem);
        None
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Body::Seq(items) = &node.body else {
            return reader.wrong(node, "a list");
        };
        // Every item is read, so that every problem is found.
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                reader.under(format!("[{index}]"), |reader| T::from_node(item, reader))
            })
            .collect();
        Some(read.into_iter().flatten().collect())
    }
}

/// A list, or one thing that stands for a list of one.
#[derive(Debug, Clone)]
pub(crate) struct OneOrMany<T>(pub Vec<T>);

impl<T: FromNode> FromNode for OneOrMany<T> {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.body {
            Body::Seq(_) => Vec::from_node(node, reader).map(Self),
            _ => T::from_node(node, reader).map(|one| Self(vec![one])),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
    }
}

/// A command: one text is a line for a shell, a list is a program with its arguments, however many words it has.
#[derive(Debug, Clone)]
pub(crate) enum LineOrWords {
    /// For a shell.
    Line(Text),
    /// For none.
    Words(Vec<Located<Free>>),
}

impl FromNode for LineOrWords {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match node.body {
            Body::Seq(_) => Vec::from_node(node, reader).map(Self::Words),
            _ => Text::from_node(node, reader).map(Self::Line),
        }
    }
}

impl JsonSchema for LineOrWords {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "LineOrWords".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let line = generator.subschema_for::<Text>();
        let words = generator.subschema_for::<Vec<Located<Free>>>();
        json_schema!({"anyOf": [line, words]})
    }
}

impl<T: FromNode> FromNode for BTreeMap<String, Located<T>> {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Body::Map(entries) = &node.body else {
            return reader.wrong(node, "a mapping");
        };
        let mut map: Self = BTreeMap::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                reader.wrong::<()>(key, "a name as key");
                continue;
            };
            let read = reader.under_key(name, |reader| {
                if let Some(first) = map.get(name) {
                    let again = reader
                        .at(key)
                        .problem("is given twice")
                        .other(first.at.span.clone(), "first here");
                    reader.push(again);
                }
                Located::<T>::from_node(value, reader)
            });
            if let Some(read) = read {
                map.entry(name.to_owned()).or_insert(read);
            }
        }
        Some(map)
    }
}
