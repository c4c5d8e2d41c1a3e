//! How a log is written and what of it, as `AOT_LOG` and `AOT_LOG_FORMAT` say for both programs. Pure: who logs asks this first,
//! so that a word which would silence the log, or be ignored, is refused.

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// For programs: one JSON object.
    Json,
}

impl LogFormat {
    /// What is wrong with a word that is neither.
    pub const EXPECTED: &str = "expected text or json";

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What is wrong with a part that [`without_level`] finds.
pub const LEVEL_EXPECTED: &str =
    "expected a level (off, error, warn, info, debug, trace), alone or as TARGET=LEVEL";

/// The first part of a filter that has no level. Where it is taken for a target's name that no target has (`infoo`), it
/// would silence the log.
#[must_use]
pub fn without_level(filter: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let mut parts = filter.split(',').filter(|part| !part.contains(['[', '{']));
    parts.find(|part| !is_level(part.rsplit_once('=').map_or(part, |(_, level)| level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_name() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(LogFormat::from_name(format.as_str()), Some(format));
        }
        assert_eq!(LogFormat::from_name(" JSON "), Some(LogFormat::Json));
        for other in ["", "jsonl", "logfmt"] {
            assert_eq!(LogFormat::from_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_without_a_level_is_found() {
        for good in ["info", "WARN,h2=off", "warn,[session{agent=a}]=debug"] {
            assert_eq!(without_level(good), None, "{good}");
        }
        for (bad, part) in [("infoo", "infoo"), ("info,a=loud", "a=loud"), ("info,", "")] {
            assert_eq!(without_level(bad), Some(part), "{bad}");
        }
    }
}
