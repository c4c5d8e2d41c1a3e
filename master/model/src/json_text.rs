//! JSON that is kept as its text: what agents report is mostly passed on, and seldom looked into. Taken apart it is several times
//! as large, since each name, number and text in it has memory of its own.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One JSON value as text. Two are equal when they say the same, in whatever order and with whatever spaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Taken apart.
    pub fn value(&self) -> Value {
        // Only what nests deeper than serde_json reads is text and no value; it is refused when it comes.
        serde_json::from_str(self.as_str()).unwrap_or_default()
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl From<&Value> for JsonText {
    fn from(value: &Value) -> Self {
        Self(to_raw_value(value).expect("a value has string keys only"))
    }
}

impl From<Value> for JsonText {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str() || self.value() == other.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn read(text: &str) -> JsonText {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn it_says_what_it_was_made_of_and_is_written_as_that() {
        let value = json!({"b": [1, 2.5, null], "a": {"text": "\u{e4}\n\"", "big": u64::MAX}});
        let text = JsonText::from(&value);
        assert_eq!(text.value(), value);
        assert_eq!(text.as_str(), value.to_string());
        let record = json!({"facts": text});
        assert_eq!(record, json!({"facts": value}));
        assert_eq!(read(&value.to_string()), text);
        let again: JsonText = serde_json::from_value(record["facts"].clone()).expect("JSON");
        assert_eq!(again, text);
    }

    #[test]
    fn order_and_spaces_make_no_difference_and_all_else_does() {
        assert_eq!(read(r#"{"a": 1, "b": [2]}"#), read(r#"{"b":[2],"a":1}"#));
        for other in [
            r#"{"a":1}"#,
            r#"{"a":1,"b":[3]}"#,
            r#"{"a":"1","b":[2]}"#,
            "null",
        ] {
            assert_ne!(read(r#"{"a":1,"b":[2]}"#), read(other), "{other}");
        }
    }
}
