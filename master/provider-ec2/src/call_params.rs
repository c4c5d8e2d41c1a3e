//! What was sent to a service, as text for a person: without user-data or secrets, lists cut, never long. Pure. Called
//! by `call_log`.

use std::collections::BTreeMap;

use aot_provider::calls::MAX_PARAMETERS_BYTES;

/// Members of a list that are shown.
const SHOWN: usize = 5;
/// Longest value that is shown whole.
const VALUE_BYTES: usize = 160;
/// Parts of names whose values nobody may see. `ClientToken` and `NextToken` are not secrets.
const SECRET: [&str; 5] = [
    "Password",
    "Secret",
    "PrivateKey",
    "Credential",
    "AuthToken",
];

/// End of the name under which the value of a challenge is shown.
const CHALLENGE: &str = "[aot:challenge]";

/// Names and values of a form body (`application/x-www-form-urlencoded`, WHATWG URL), in order.
pub(super) fn form(body: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (plain(key), plain(value))
    };
    body.split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect()
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = after
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (*first, hex) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text for a body: a form of the EC2 query protocol, or a JSON object.
pub(super) fn parameters(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
    let words = match json {
        Ok(object) => object
            .iter()
            .map(|(key, value)| field(key, value))
            .collect(),
        Err(_) if text.trim_start().starts_with(['{', '[']) => vec!["<unreadable>".into()],
        Err(_) => query(form(&text)),
    };
    shorten(&words.join(" "), MAX_PARAMETERS_BYTES)
}

fn field(key: &str, value: &serde_json::Value) -> String {
    use serde_json::Value;
    let values: Vec<String> = match value {
        Value::Array(list) => list.iter().map(text_of).collect(),
        other => vec![text_of(other)],
    };
    format!("{key}={}", list(key, &values))
}

fn text_of(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| field(key, value))
                .collect();
            format!("{{{}}}", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// A name with its list numbers taken out, and those numbers' place: `Filter.1.Value.2` is `Filter.1.Value`, list.
fn query(pairs: Vec<(String, String)>) -> Vec<String> {
    let hidden = |key: &str, value: &str| {
        matches!(key, "Action" | "Version") || (key == "DryRun" && value == "false")
    };
    let pairs: Vec<_> = pairs
        .into_iter()
        .filter(|(key, value)| !hidden(key, value))
        .collect();
    let names: BTreeMap<&str, &str> = pairs
        .iter()
        .filter_map(|(key, value)| Some((named(key)?, value.as_str())))
        .collect();
    // In the order of first sight; all members of a list under one name.
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in pairs.iter().filter(|(key, _)| named(key).is_none()) {
        let name = shown_name(key, &names);
        if !values.contains_key(&name) {
            order.push(name.clone());
        }
        values.entry(name).or_default().push(value.clone());
    }
    merge(order, &values)
}

/// `Tag.1` of `Tag.1.Key`, `Filter.1` of `Filter.1.Name`: the names within lists of pairs.
fn named(key: &str) -> Option<&str> {
    let (before, last) = key.rsplit_once('.')?;
    let (list, number) = before.rsplit_once('.').unwrap_or(("", before));
    let list = list.rsplit('.').next().unwrap_or("");
    let counts = number.parse::<u32>().is_ok();
    (counts && matches!((list, last), ("Tag", "Key") | ("Filter", "Name"))).then_some(before)
}

fn shown_name(key: &str, names: &BTreeMap<&str, &str>) -> String {
    let mut name = String::new();
    let mut path = String::new();
    for part in key.split('.') {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
        let number = part.parse::<u32>().is_ok();
        let is_value = part == "Value" && name.ends_with(']');
        if let Some(given) = names.get(path.as_str()) {
            name.push_str(&format!("[{given}]"));
        } else if number && path.len() < key.len() {
            name.push_str(&format!(".{part}"));
        } else if !(number || is_value) {
            name.push_str(if name.is_empty() { "" } else { "." });
            name.push_str(part);
        }
    }
    name
}

/// `TagSpecification` of several kinds with the same tags is shown once.
fn merge(order: Vec<String>, values: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let tags = |number: &str| -> String {
        let own = format!("TagSpecification.{number}.Tag[");
        let tag = |name: &&String| name.starts_with(&own);
        let word = |name: &String| {
            let key = name[own.len()..].trim_end_matches(']');
            format!("{key}={}", list(key, &values[name]))
        };
        order
            .iter()
            .filter(tag)
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let specification = |name: &str| -> Option<String> {
        let rest = name.strip_prefix("TagSpecification.")?;
        Some(rest.split('.').next().unwrap_or(rest).to_owned())
    };
    for name in &order {
        if let Some(number) = specification(name).filter(|_| name.ends_with(".ResourceType")) {
            let kind = values[name].first().map_or("", String::as_str);
            kinds.entry(tags(&number)).or_default().push(kind);
        }
    }
    let mut words: Vec<String> = order
        .iter()
        .filter(|name| specification(name).is_none())
        .map(|name| format!("{name}={}", list(name, &values[name])))
        .collect();
    for (tags, kinds) in kinds {
        words.push(format!("TagSpecification={}{{{tags}}}", kinds.join(",")));
    }
    words
}

/// Values of one name, without those that nobody may see.
fn list(name: &str, values: &[String]) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.starts_with("UserData") || name.contains("UserData.") {
        let bytes: usize = values.iter().map(|value| decoded_len(value)).sum();
        return format!("<{bytes} bytes>");
    }
    if SECRET.iter().any(|word| last.contains(word)) || name.ends_with(CHALLENGE) {
        return "<hidden>".into();
    }
    let mut text: Vec<String> = values
        .iter()
        .take(SHOWN)
        .map(|value| shown(value))
        .collect();
    if values.len() > SHOWN {
        text.push(format!("...({} in all)", values.len()));
    }
    text.join(",")
}

fn shown(value: &str) -> String {
    let value = shorten(value, VALUE_BYTES);
    if value.contains(|char: char| char.is_whitespace() || char.is_control() || char == '"') {
        format!("{value:?}")
    } else {
        value
    }
}

/// How many bytes a base64 text stands for (RFC 4648).
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// At most `limit` bytes; says when something is missing.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(3));
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests;
