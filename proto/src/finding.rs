//! What one look has come to, as the master and `doctor` make it.

use crate::v1::{Finding, FindingLevel};

impl Finding {
    /// One of any level: what was looked at, of what, what was found there, and the way out.
    pub fn new(
        level: FindingLevel,
        check: &str,
        about: &str,
        message: impl Into<String>,
        hint: &str,
    ) -> Self {
        Self {
            level: level.into(),
            check: check.to_owned(),
            about: about.to_owned(),
            message: message.into(),
            hint: hint.to_owned(),
        }
    }

    /// All is well there, so that there is no way out to show.
    pub fn ok(check: &str, about: &str, message: impl Into<String>) -> Self {
        Self::new(FindingLevel::Ok, check, about, message, "")
    }

    /// Nobody looked there, and why.
    pub fn skipped(check: &str, message: impl Into<String>, hint: &str) -> Self {
        Self::new(FindingLevel::Skipped, check, "", message, hint)
    }

    /// Something may be wrong.
    pub fn warn(check: &str, about: &str, message: impl Into<String>, hint: &str) -> Self {
        Self::new(FindingLevel::Warn, check, about, message, hint)
    }

    /// Something is wrong, and so is the whole.
    pub fn fail(check: &str, about: &str, message: impl Into<String>, hint: &str) -> Self {
        Self::new(FindingLevel::Fail, check, about, message, hint)
    }
}
