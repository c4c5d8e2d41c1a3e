//! The text of a file as a tree of nodes that know their place. YAML itself is serde-saphyr's; this only keeps
//! what it says, with spans, so that one reading can report every problem. Called by `config` only; decides nothing.

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::report::Mistake;
use super::syntax;

/// Deepest nesting that is read; a cluster file needs six levels.
pub(crate) const MAX_DEPTH: usize = 64;
/// Largest file that is read.
const MAX_FILE_BYTES: usize = 4 << 20;

/// One value of the file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Bytes of the text that it takes.
    pub span: Range<usize>,
    /// What it is.
    pub body: Body,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// No value.
    Null,
    /// A scalar: its text as the file has it, and what YAML takes it for.
    Scalar { text: String, kind: ScalarKind },
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the file's order, duplicates and all.
    Map(Vec<(Node, Node)>),
}

/// What YAML takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScalarKind {
    Text,
    Bool(bool),
    Int(i64),
    Other,
}

impl Node {
    /// What it is, for "wants X, found Y".
    pub(crate) fn found(&self) -> &'static str {
        match &self.body {
            Body::Null => "nothing",
            Body::Scalar {
                kind: ScalarKind::Text,
                ..
            } => "text",
            Body::Scalar {
                kind: ScalarKind::Bool(_),
                ..
            } => "a yes/no value",
            Body::Scalar { .. } => "a number",
            Body::Seq(_) => "a list",
            Body::Map(_) => "a mapping",
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Where the first scalar among the values is whose text is as asked for.
    pub(crate) fn span_of(&self, is_it: &dyn Fn(&str) -> bool) -> Option<Range<usize>> {
        match &self.body {
            Body::Null => None,
            Body::Scalar { text, .. } => is_it(text).then(|| self.span.clone()),
            Body::Seq(items) => items.iter().find_map(|item| item.span_of(is_it)),
            Body::Map(entries) => entries.iter().find_map(|(_, value)| value.span_of(is_it)),
        }
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.body {
            Body::Map(entries) => entries
                .iter()
                .find(|(k, _)| k.text() == Some(key))
                .map(|(_, v)| v),
            _ => None,
        }
    }

    /// Puts it, and all below it, at another place of the text.
    pub(crate) fn place(&mut self, span: &Range<usize>) {
        self.span = span.clone();
        match &mut self.body {
            Body::Null | Body::Scalar { .. } => {}
            Body::Seq(items) => items.iter_mut().for_each(|item| item.place(span)),
            Body::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                key.place(span);
                value.place(span);
            }),
        }
    }
}

/// As it is meant: numbers whose form says more than their value (007, 1.10) are texts.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.body {
            Body::Null => serializer.serialize_unit(),
            Body::Scalar { text, kind } => match kind {
                ScalarKind::Bool(on) => serializer.serialize_bool(*on),
                ScalarKind::Int(number) if number.to_string() == *text => {
                    serializer.serialize_i64(*number)
                }
                ScalarKind::Other => match text.parse::<f64>() {
                    Ok(number) if number.is_finite() && number.to_string() == *text => {
                        serializer.serialize_f64(number)
                    }
                    _ => serializer.serialize_str(text),
                },
                ScalarKind::Int(_) | ScalarKind::Text => serializer.serialize_str(text),
            },
            Body::Seq(items) => serializer.collect_seq(items),
            Body::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key.text().unwrap_or_default(), value)?;
                }
                map.end()
            }
        }
    }
}

/// Reads the text of one YAML document.
///
/// # Errors
/// What is wrong with it as YAML, and where.
pub(crate) fn parse(text: &str) -> Result<Node, Mistake> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Mistake::new(0..0, "", "the file has more than 4 MiB"));
    }
    syntax::check(text)?;
    let options = serde_saphyr::options! {
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Loose>>(text, options) {
        Ok(loose) => Ok(located(loose, text)),
        Err(error) => {
            let span = error
                .location()
                .map(|at| bytes(at, text).unwrap_or_else(|| syntax::at_line(text, at)))
                .unwrap_or(0..0);
            let error = error.without_snippet();
            if matches!(error, serde_saphyr::Error::MultipleDocuments { .. }) {
                return Err(Mistake::new(span, "", "holds more than one YAML document"));
            }
            // The place is said by the report itself.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            Err(Mistake::new(span, "", format!("invalid YAML: {message}")))
        }
    }
}

/// A place as a range of bytes inside the text.
fn bytes(at: Location, text: &str) -> Option<Range<usize>> {
    let start = usize::try_from(at.span().byte_offset()?)
        .ok()?
        .min(text.len());
    let len = usize::try_from(at.span().byte_len()?).ok()?;
    let end = start.saturating_add(len).min(text.len());
    text.get(start..end).map(|_| start..end)
}

/// Turns saphyr's places into ranges, and typed scalars back into the text they were.
fn located(loose: Spanned<Loose>, text: &str) -> Node {
    let span = bytes(loose.defined, text).unwrap_or(0..0);
    let body = match loose.value {
        Loose::Null => Body::Null,
        Loose::Text(text) => Body::Scalar {
            text,
            kind: ScalarKind::Text,
        },
        Loose::Plain(printed, kind) => {
            let source = text[span.clone()].trim();
            let plain = !source.is_empty() && !source.contains(['"', '\'', '!', '&', ' ', '\n']);
            let text = if plain { source.to_owned() } else { printed };
            Body::Scalar { text, kind }
        }
        Loose::Seq(items) => Body::Seq(items.into_iter().map(|item| located(item, text)).collect()),
        Loose::Map(entries) => {
            let entries = entries
                .into_iter()
                .map(|(key, value)| (located(key, text), located(value, text)));
            Body::Map(entries.collect())
        }
    };
    Node { span, body }
}

/// Anything that YAML can say.
enum Loose {
    Null,
    Text(String),
    Plain(String, ScalarKind),
    Seq(Vec<Spanned<Loose>>),
    Map(Vec<(Spanned<Loose>, Spanned<Loose>)>),
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Loose, E> {
        Ok(Loose::Plain(v.to_string(), ScalarKind::Bool(v)))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Loose, E> {
        Ok(Loose::Plain(v.to_string(), ScalarKind::Int(v)))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Loose, E> {
        Ok(Loose::Plain(
            v.to_string(),
            i64::try_from(v).map_or(ScalarKind::Other, ScalarKind::Int),
        ))
    }

    fn visit_i128<E: de::Error>(self, v: i128) -> Result<Loose, E> {
        Ok(Loose::Plain(v.to_string(), ScalarKind::Other))
    }

    fn visit_u128<E: de::Error>(self, v: u128) -> Result<Loose, E> {
        Ok(Loose::Plain(v.to_string(), ScalarKind::Other))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Loose, E> {
        Ok(Loose::Plain(v.to_string(), ScalarKind::Other))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Loose, E> {
        Ok(Loose::Text(v.to_owned()))
    }

    fn visit_string<E: de::Error>(self, v: String) -> Result<Loose, E> {
        Ok(Loose::Text(v))
    }

    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Loose, E> {
        Ok(Loose::Text(String::from_utf8_lossy(v).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Loose::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Loose::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_bytes() {
        let text = "a: 1.10\nb:\n  - {c: yes, d: \"é\"}\n  - 007\n";
        let root = parse(text).expect("good YAML");
        let a = root.get("a").expect("a");
        assert_eq!((a.text(), &text[a.span.clone()]), (Some("1.10"), "1.10"));
        let Body::Seq(items) = &root.get("b").expect("b").body else {
            panic!("b is a list")
        };
        let c = items[0].get("c").expect("c");
        assert_eq!((c.text(), c.found()), (Some("yes"), "a yes/no value"));
        assert_eq!(items[0].get("d").expect("d").text(), Some("é"));
        assert_eq!(items[1].text(), Some("007"));
        let Body::Map(entries) = &root.body else {
            panic!("a mapping")
        };
        assert_eq!(&text[entries[1].0.span.clone()], "b");
    }

    #[test]
    fn anchors_and_merges_are_taken_and_duplicates_kept() {
        let root = parse("x: &x {k: v}\ny: {<<: *x, z: 1}\ny: 2\n").expect("good YAML");
        assert_eq!(
            root.get("y").and_then(|y| y.get("k")).and_then(Node::text),
            Some("v")
        );
        let Body::Map(entries) = &root.body else {
            panic!("a mapping")
        };
        assert_eq!(entries.len(), 3);
    }

    #[test]
    fn bad_yaml_says_where() {
        let problem = parse("a: [1,\nb: 2\n").expect_err("an open list");
        assert!(problem.message.starts_with("invalid YAML"), "{problem:?}");
        assert!(parse(&"[".repeat(1000)).is_err(), "too deep");
        assert!(parse("a: 1\n---\nb: 2\n").is_err(), "two documents");
    }
}
