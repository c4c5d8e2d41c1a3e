//! What a text from outside of a file is taken for: `--set` and the environment. Pure.

use serde_json::Value;

use crate::node::{Body, Node, ScalarKind};

/// The value of a `--set`: JSON for a list, a mapping and a text in quotes; else as [`plain`].
pub(super) fn given(text: &str) -> Node {
    if text.starts_with(['[', '{', '"'])
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        return spanned(from_json(&value), text.len());
    }
    plain(text)
}

/// A number or a yes/no value as YAML would read it, or text.
pub(super) fn plain(text: &str) -> Node {
    let kind = match text {
        "true" => ScalarKind::Bool(true),
        "false" => ScalarKind::Bool(false),
        _ => number(text),
    };
    let text = text.to_owned();
    let span = 0..text.len();
    let body = Body::Scalar { text, kind };
    Node { span, body }
}

/// Numbers that begin with 0 are text: they are octal to some, and names like 007 to others.
fn number(text: &str) -> ScalarKind {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_number = are_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(are_digits);
    match text.parse() {
        _ if !is_number => ScalarKind::Text,
        Ok(value) => ScalarKind::Int(value),
        Err(_) => ScalarKind::Other,
    }
}

/// A JSON value, which stands nowhere.
pub(super) fn from_json(value: &Value) -> Node {
    let scalar = |text: String, kind| Body::Scalar { text, kind };
    let body = match value {
        Value::Null => Body::Null,
        Value::Bool(on) => scalar(on.to_string(), ScalarKind::Bool(*on)),
        Value::Number(number) => {
            let kind = number.as_i64().map_or(ScalarKind::Other, ScalarKind::Int);
            scalar(number.to_string(), kind)
        }
        Value::String(text) => scalar(text.clone(), ScalarKind::Text),
        Value::Array(items) => Body::Seq(items.iter().map(from_json).collect()),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                (from_json(&Value::String(key.clone())), from_json(value))
            };
            Body::Map(entries.iter().map(entry).collect())
        }
    };
    Node { span: 0..0, body }
}

fn spanned(mut node: Node, len: usize) -> Node {
    node.place(&(0..len));
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_have_the_type_that_they_look_like() {
        for (text, found) in [
            ("3", "a number"),
            ("-3", "a number"),
            ("0", "a number"),
            ("0.5", "a number"),
            ("true", "a yes/no value"),
            ("[1, 2]", "a list"),
            (r#"{"a": 1}"#, "a mapping"),
            (r#""3""#, "text"),
            ("007", "text"),
            ("1.2.3", "text"),
            ("10.", "text"),
            ("yes", "text"),
            ("", "text"),
            ("{a,b}", "text"),
            ("[!.]*", "text"),
            ("a: b", "text"),
        ] {
            assert_eq!(given(text).found(), found, "{text}");
        }
        assert_eq!(given(r#""3""#).text(), Some("3"));
        assert_eq!(given("1.10").text(), Some("1.10"), "as it was given");
        assert_eq!(plain("[1]").found(), "text");
    }
}
