//! What the keys of a fleet are sealed with, as it is set: a file, or `kms:KEY`. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::SettingsError;

/// Longest name of a key (AWS KMS API Reference, Decrypt).
const LONGEST: usize = 2048;

/// What the keys of a fleet are sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetKeySetting {
    /// The key in a file.
    File(PathBuf),
    /// A key in AWS KMS: its id, its ARN, or an alias.
    Kms(String),
}

impl FleetKeySetting {
    /// Reads what is set.
    ///
    /// # Errors
    /// When it names a key that can't be one of KMS.
    pub fn read(text: &Path) -> Result<Self, SettingsError> {
        let Some(key) = text.to_str().and_then(|text| text.strip_prefix("kms:")) else {
            return Ok(Self::File(text.to_owned()));
        };
        let fits = |c: u8| c.is_ascii_alphanumeric() || b":/_-".contains(&c);
        if key.is_empty() || key.len() > LONGEST || !key.bytes().all(fits) {
            return Err(SettingsError::Value {
                from: "AOT_FLEET_KEY (fleet_key)".to_owned(),
                value: text.display().to_string(),
                why: "expected kms: and a key's ARN, its id, or alias/NAME",
            });
        }
        Ok(Self::Kms(key.to_owned()))
    }

    /// As it is set.
    pub(crate) fn named(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Kms(key) => format!("kms:{key}").into(),
        }
    }
}

impl fmt::Display for FleetKeySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.named().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_file_or_one_of_kms() {
        let arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        for key in [arn, "alias/aot", "1234abcd-12ab-34cd-56ef-1234567890ab"] {
            let text = format!("kms:{key}");
            let read = FleetKeySetting::read(Path::new(&text)).expect("is one");
            assert_eq!(read, FleetKeySetting::Kms(key.to_owned()));
            assert_eq!(read.named(), Path::new(&text));
        }
        for path in ["/etc/aot/fleet.key", "kms", "./kms:key"] {
            let read = FleetKeySetting::read(Path::new(path)).expect("is one");
            assert_eq!(read, FleetKeySetting::File(path.into()));
            assert_eq!(read.named(), Path::new(path));
        }
        let long = format!("kms:{}", "a".repeat(LONGEST + 1));
        for text in ["kms:", "kms:alias/a b", "kms:é", &long] {
            let error = FleetKeySetting::read(Path::new(text)).expect_err(text);
            assert!(error.to_string().contains("alias/NAME"), "{error}");
        }
    }
}
