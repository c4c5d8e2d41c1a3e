//! Where long things are put, as it is set: `s3://BUCKET/PREFIX`, or a folder that masters share. Pure.

use std::path::PathBuf;

use crate::SettingsError;

/// Lengths of a bucket's name (Amazon S3 User Guide, general purpose bucket naming rules).
const BUCKET: std::ops::RangeInclusive<usize> = 3..=63;

/// Where outputs, bundles, agents and uploads are put, besides the state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSetting {
    /// A part of a bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// Before all names in it, without a slash at either end; may be empty.
        prefix: String,
    },
    /// A folder.
    Folder(PathBuf),
}

impl BlobSetting {
    /// Reads what is set.
    ///
    /// # Errors
    /// When it is neither.
    pub(crate) fn read(text: &str) -> Result<Self, SettingsError> {
        let bad = |why| SettingsError::Value {
            from: "AOT_BLOBS (blobs)".to_owned(),
            value: text.to_owned(),
            why,
        };
        let Some(rest) = text.strip_prefix("s3://") else {
            return match text.starts_with('/') {
                true => Ok(Self::Folder(text.into())),
                false => Err(bad(
                    "expected s3://BUCKET/PREFIX, or the whole path of a folder",
                )),
            };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-".contains(&c);
        if !BUCKET.contains(&bucket.len()) || !bucket.bytes().all(fits) {
            return Err(bad(
                "a bucket's name has 3 to 63 of a-z, 0-9, dots and hyphens",
            ));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.contains("//") || prefix.chars().any(char::is_control) {
            return Err(bad("expected s3://BUCKET/PREFIX"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_with_a_prefix_or_a_whole_path() {
        let s3 = |bucket: &str, prefix: &str| BlobSetting::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        for (text, wanted) in [
            ("s3://my.bucket-1", s3("my.bucket-1", "")),
            ("s3://abc/", s3("abc", "")),
            ("s3://abc/x/y/", s3("abc", "x/y")),
            ("/srv/aot", BlobSetting::Folder("/srv/aot".into())),
        ] {
            assert_eq!(BlobSetting::read(text).expect(text), wanted);
        }
        for text in [
            "s3://",
            "s3://ab",
            "s3://Abc",
            "s3://a_c/x",
            "s3://abc//x//y",
            "s3:abc",
            "srv/aot",
            "https://abc.s3.amazonaws.com",
        ] {
            let error = BlobSetting::read(text).expect_err(text).to_string();
            assert!(
                error.contains("AOT_BLOBS") && error.contains(text),
                "{error}"
            );
        }
    }
}
