//! Takes out of a text what is secret: the secrets that are known (of the state folder, of the environment), and whatever looks like
//! one by the word before it or by its shape. Rather too much than too little.

use std::fs;
use std::path::Path;

/// What stands for a secret.
const REMOVED: &str = "[removed]";

/// Shorter texts are no secret that could be found without removing all sorts of things.
const LEAST: usize = 8;

/// Files of the state folder that are larger are no keys.
const MOST_OF_A_KEY: u64 = 64 << 10;

/// What the name of something secret ends with, or has in it.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "credential",
];

/// What stands before a secret in a header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Removes what it knows and what it recognizes.
pub(super) struct Scrubber {
    known: Vec<String>,
}

impl Scrubber {
    /// With the keys that lie in this folder, and the secrets among these variables.
    pub(super) fn of(
        state_dir: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut known = keys_in(state_dir);
        let secret = variables
            .into_iter()
            .filter(|(name, value)| {
                is_secret_name(name) || name.contains("KEY") && !value.starts_with('/')
            })
            .map(|(_, value)| value);
        known.extend(secret);
        known.retain(|secret| secret.len() >= LEAST);
        // A secret that is a part of another one goes after it.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self { known }
    }

    /// The text without them.
    pub(super) fn cleaned(&self, text: &str) -> String {
        let mut text = without_private_keys(text);
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REMOVED);
            }
        }
        let lines: Vec<String> = text.split('\n').map(cleaned_line).collect();
        lines.join("\n")
    }
}

/// What the keys of a state folder are, as text and as hex.
fn keys_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let is_small = entry
            .metadata()
            .is_ok_and(|it| it.is_file() && it.len() <= MOST_OF_A_KEY);
        let is_key = name.contains("key") || is_secret_name(&name);
        if !is_small || !is_key {
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap_or_default();
        found.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        let text = String::from_utf8_lossy(&bytes);
        found.extend(text.lines().map(|line| line.trim().to_owned()));
        found.push(text.trim().to_owned());
    }
    found
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Without private keys in PEM, over lines, or with line ends as JSON writes them.
fn without_private_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let head = found[BEGIN.len()..]
            .find("-----")
            .map(|end| BEGIN.len() + end);
        let is_private = head.is_some_and(|end| found[..end].contains("PRIVATE KEY"));
        let end = found.find("-----END ").and_then(|end| {
            let tail = found[end + 9..].find("-----")?;
            Some(end + 9 + tail + 5)
        });
        match (is_private, end) {
            (true, end) => {
                out.push_str(REMOVED);
                // One whose end is cut off goes to the end of the text.
                rest = end.map_or("", |end| &found[end..]);
            }
            (false, _) => {
                out.push_str(BEGIN);
                rest = &found[BEGIN.len()..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn cleaned_line(line: &str) -> String {
    let line = without_named(line);
    let line = without_url_passwords(&line);
    let line = without_schemes(&line);
    without_access_keys(&line)
}

fn is_of_a_name(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || "_-.".contains(sign)
}

/// `password=x`, `"token": "x"`, `--secret x`: without x.
fn without_named(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    loop {
        let Some(start) = rest.find(is_of_a_name) else {
            out.push_str(rest);
            return out;
        };
        let end = rest[start..].find(|sign| !is_of_a_name(sign));
        let end = end.map_or(rest.len(), |end| start + end);
        let (name, after) = (&rest[start..end], &rest[end..]);
        out.push_str(&rest[..end]);
        rest = after;
        if !is_secret_name(name) {
            continue;
        }
        let between = separator(after, name.starts_with("--"));
        if between == 0 {
            continue;
        }
        let (gap, value) = after.split_at(between);
        let length = value_length(value, gap);
        if length > 0 {
            out.push_str(gap);
            out.push_str(REMOVED);
            rest = &value[length..];
        }
    }
}

/// How many bytes stand between a name and its value: quotes, blanks, and `=` or `:`; a blank alone behind an option.
fn separator(after: &str, is_option: bool) -> usize {
    let signs = after.find(|sign: char| !"\\\"'=: ".contains(sign));
    let gap = &after[..signs.unwrap_or(after.len())];
    let is_one = gap.contains(['=', ':']) || is_option && gap.starts_with(' ');
    if is_one { gap.len() } else { 0 }
}

/// How long a value is: to the quote that it began with, else to a blank, or to what ends a value in lists.
fn value_length(value: &str, gap: &str) -> usize {
    // JSON within a text of JSON.
    let is_nested = gap.contains('\\');
    let mut is_escaped = false;
    let ends = |sign: char| match gap.chars().last() {
        Some('"') if is_nested => sign == '"' || sign == '\\',
        Some('"') => {
            let ends = sign == '"' && !is_escaped;
            is_escaped = sign == '\\' && !is_escaped;
            ends
        }
        Some('\'') => sign == '\'',
        _ => sign.is_whitespace() || "\"',;&})]".contains(sign),
    };
    value.find(ends).unwrap_or(value.len())
}

/// `scheme://user:password@host` without the password.
fn without_url_passwords(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, found) = rest.split_at(at + 3);
        out.push_str(before);
        let end = found.find(|sign: char| sign.is_whitespace() || "\"'<>".contains(sign));
        let (url, after) = found.split_at(end.unwrap_or(found.len()));
        match url
            .rsplit_once('@')
            .and_then(|(who, host)| Some((who.split_once(':')?.0, host)))
        {
            Some((user, host)) => out.push_str(&format!("{user}:{REMOVED}@{host}")),
            None => out.push_str(url),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `Authorization: Bearer x` without x.
fn without_schemes(line: &str) -> String {
    let mut line = line.to_owned();
    for scheme in SCHEMES {
        let mut from = 0;
        while let Some(at) = line[from..].to_ascii_lowercase().find(scheme) {
            let start = from + at + scheme.len();
            let length = value_length(&line[start..], "");
            // A word of a sentence is none.
            if length >= LEAST && !line[start..].starts_with(REMOVED) {
                line.replace_range(start..start + length, REMOVED);
            }
            from = start;
        }
    }
    line
}

/// Ids of AWS access keys: four letters that say which kind, and 16 letters and digits (IAM User Guide, "IAM identifiers").
fn without_access_keys(line: &str) -> String {
    const LENGTH: usize = 20;
    let is_in = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = ["AKIA", "ASIA"]
        .iter()
        .filter_map(|kind| rest.find(kind))
        .min()
    {
        let length = rest.as_bytes()[at..]
            .iter()
            .take_while(|byte| is_in(byte))
            .count();
        out.push_str(&rest[..at]);
        out.push_str(if length == LENGTH {
            REMOVED
        } else {
            &rest[at..at + length]
        });
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Scrubber {
        Scrubber { known: Vec::new() }
    }

    #[test]
    fn what_looks_like_a_secret_is_removed_and_the_rest_stays() {
        for (text, wanted) in [
            ("password=geheim, user=a", "password=[removed], user=a"),
            ("db_password: geheim", "db_password: [removed]"),
            (
                r#"{"token":"abc def","name":"x"}"#,
                r#"{"token":"[removed]","name":"x"}"#,
            ),
            (
                r#"{"message":"\"secret\": \"x\" y"}"#,
                r#"{"message":"\"secret\": \"[removed]\" y"}"#,
            ),
            (
                "exec --password geheim -- x",
                "exec --password [removed] -- x",
            ),
            ("--api-key=1234&x=2", "--api-key=[removed]&x=2"),
            (
                "AWS_SECRET_ACCESS_KEY=abc/+x",
                "AWS_SECRET_ACCESS_KEY=[removed]",
            ),
            (
                r#"{"password":"ab\"cd\\","name":"x"}"#,
                r#"{"password":"[removed]","name":"x"}"#,
            ),
            (
                "postgres://aot:p@w:x@db:5432/aot?a=b",
                "postgres://aot:[removed]@db:5432/aot?a=b",
            ),
            ("postgres://aot@db/aot", "postgres://aot@db/aot"),
            ("http://a/b?x:y", "http://a/b?x:y"),
            (
                "Authorization: Bearer abcdefghij",
                "Authorization: Bearer [removed]",
            ),
            ("a bearer of news", "a bearer of news"),
            ("key AKIAIOSFODNN7EXAMPLE used", "key [removed] used"),
            ("AKIA", "AKIA"),
            ("the token of web1 was used", "the token of web1 was used"),
            ("12:03:04 web1 ready", "12:03:04 web1 ready"),
            ("token_sha256 is fine", "token_sha256 is fine"),
        ] {
            assert_eq!(none().cleaned(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_private_key_is_removed_whole_and_a_certificate_is_not() {
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nAAAA\nBBBB\n-----END EC PRIVATE KEY-----\nb";
        assert_eq!(none().cleaned(key), "a\n[removed]\nb");
        let json = r#"{"x":"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"}"#;
        assert_eq!(none().cleaned(json), r#"{"x":"[removed]\n"}"#);
        let cut = "x -----BEGIN PRIVATE KEY-----\nAAAA\nBBBB";
        assert_eq!(none().cleaned(cut), "x [removed]");
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        assert_eq!(none().cleaned(certificate), certificate);
    }

    #[test]
    fn what_is_known_to_be_secret_is_removed_wherever_it_stands() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("join.key"), [0xab; 32]).expect("writes");
        fs::write(dir.path().join("other-token"), "planted-in-the-state\n").expect("writes");
        fs::write(dir.path().join("master.log"), "serving on a port\n").expect("writes");
        let variables = [
            ("AWS_SESSION_TOKEN", "planted-in-the-environment"),
            ("AOT_FLEET_KEY", "/etc/aot/fleet.key"),
            ("X_TOKEN", "short"),
            ("HOME", "/home/alice"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let scrubber = Scrubber::of(dir.path(), variables);
        for (text, wanted) in [
            ("x planted-in-the-environment y", "x [removed] y"),
            ("planted-in-the-state", "[removed]"),
            (&"ab".repeat(32), "[removed]"),
            ("serving on a port", "serving on a port"),
            (
                "/etc/aot/fleet.key /home/alice short",
                "/etc/aot/fleet.key /home/alice short",
            ),
        ] {
            assert_eq!(scrubber.cleaned(text), wanted);
        }
    }
}
