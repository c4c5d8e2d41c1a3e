//! An error as a person reads it: with everything that it came from.

use std::error::Error;
use std::fmt;

/// An error with all of its sources, in one line, a colon between each and the next. Whoever prints or logs an error prints
/// this: a message never repeats its source.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            // Some errors of others name their cause themselves; once is enough.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write {what}")]
    struct Outer {
        what: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn every_source_is_named_once() {
        let error = Outer {
            what: "the store",
            source: std::io::Error::other("no space left"),
        };
        assert_eq!(
            Chain(&error).to_string(),
            "cannot write the store: no space left"
        );
    }
}
