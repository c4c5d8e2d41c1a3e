//! `1 instance`, `3 instances`: how a count is written, in every text that has one. Pure.

use std::fmt::Display;

/// `1 instance`, `3 instances`, `2 addresses`, `2 copies`: the count with its noun.
pub fn count<N: Display + Copy>(count: N, noun: &str) -> String {
    format!("{count} {}", nouns(count, noun))
}

/// `instance` for one, `instances` for any other count.
pub fn nouns<N: Display>(count: N, noun: &str) -> String {
    if count.to_string() == "1" {
        return noun.to_owned();
    }
    let after_consonant = |stem: &str| !stem.ends_with(['a', 'e', 'i', 'o', 'u']);
    match noun.strip_suffix('y') {
        Some(stem) if after_consonant(stem) => format!("{stem}ies"),
        _ if noun.ends_with(['s', 'x']) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// `is` for one, `are` for any other count.
pub fn is_are<N: Display>(count: N) -> &'static str {
    if count.to_string() == "1" {
        "is"
    } else {
        "are"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_else_plural() {
        for (n, noun, want) in [
            (0, "instance", "0 instances"),
            (1, "instance", "1 instance"),
            (2, "instance", "2 instances"),
            (11, "address", "11 addresses"),
            (3, "copy", "3 copies"),
            (3, "key", "3 keys"),
        ] {
            assert_eq!(count(n, noun), want);
        }
        assert_eq!((is_are(1), is_are(0), is_are(2_u64)), ("is", "are", "are"));
    }
}
