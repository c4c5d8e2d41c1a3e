//! Secrets in messages: what names they may have, and that nobody prints their values.

use std::fmt;

use crate::limits::{MAX_SECRET_BYTES, MIN_SECRET_BYTES};
use crate::v1::SecretValue;

/// Longest name.
const MAX_NAME: usize = 64;

/// Whether a secret may be called so: its file is, too.
pub fn is_secret_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.len() <= MAX_NAME && text.starts_with(first) && text.chars().all(rest)
}

/// Whether a variable of an environment may be called so.
pub fn is_variable_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(first) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a secret can be given as this variable: those of aot's own are not to be replaced.
pub fn is_secret_variable(text: &str) -> bool {
    is_variable_name(text) && !text.starts_with("AOT_") && text != "HOME"
}

/// Why a value can't be a secret's, for a person; nothing of the value is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It can't be masked.
    #[error(
        "it has fewer than {} bytes, and could not be masked in what is printed",
        MIN_SECRET_BYTES
    )]
    TooShort,
    /// It is too long.
    #[error("it has more than {} KiB", MAX_SECRET_BYTES >> 10)]
    TooLong,
    /// It can't be a variable.
    #[error("it is not text, so it can't be given as a variable, only as a file")]
    NotText,
}

/// Whether this value may be a secret's; `in_variable`: it is given as a variable, too.
///
/// # Errors
/// When it is too short to be masked, too long, or not text where it must be.
pub fn check_value(value: &[u8], in_variable: bool) -> Result<(), BadValue> {
    if value.trim_ascii().len() < MIN_SECRET_BYTES {
        return Err(BadValue::TooShort);
    }
    if value.len() > MAX_SECRET_BYTES {
        return Err(BadValue::TooLong);
    }
    let is_text = || std::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'));
    match !in_variable || is_text() {
        true => Ok(()),
        false => Err(BadValue::NotText),
    }
}

/// Shows nothing secret.
impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue")
            .field("name", &self.name)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::StartRun;

    #[test]
    fn no_debug_output_has_a_value() {
        let start = StartRun {
            secrets: vec![SecretValue {
                name: "db".to_owned(),
                value: b"hunter2".to_vec(),
                env: "DB".to_owned(),
            }],
            ..StartRun::default()
        };
        let shown = format!("{start:?} {start:#?}");
        assert!(shown.contains("\"db\""), "{shown}");
        let bytes = format!("{:?}", b"hunter2");
        assert!(
            !shown.contains("hunter2") && !shown.contains(bytes.trim_matches(['[', ']'])),
            "{shown}"
        );
    }

    #[test]
    fn names_are_those_of_files_and_variables() {
        for good in ["db", "_a-b", "TLS_key2", &"x".repeat(64)] {
            assert!(is_secret_name(good), "{good}");
        }
        for bad in ["", "2a", "-a", "a.b", "a/b", "..", "é", &"x".repeat(65)] {
            assert!(!is_secret_name(bad), "{bad}");
        }
        for (name, is_good) in [
            ("DB_PASSWORD", true),
            ("_x", true),
            ("A-B", false),
            ("", false),
            ("AOT_SECRETS", false),
            ("HOME", false),
        ] {
            assert_eq!(is_secret_variable(name), is_good, "{name}");
        }
    }

    #[test]
    fn a_value_can_be_masked_and_sent_and_be_a_variable_where_it_is_one() {
        for (value, in_variable, want) in [
            (&b"four"[..], true, Ok(())),
            (b"abc\n\n\n", false, Err(BadValue::TooShort)),
            (b"", false, Err(BadValue::TooShort)),
            (&[0xff; 8], false, Ok(())),
            (&[0xff; 8], true, Err(BadValue::NotText)),
            (b"a\0bcd", true, Err(BadValue::NotText)),
            (&[b'x'; MAX_SECRET_BYTES], true, Ok(())),
            (&[b'x'; MAX_SECRET_BYTES + 1], true, Err(BadValue::TooLong)),
        ] {
            assert_eq!(check_value(value, in_variable), want);
        }
    }
}
