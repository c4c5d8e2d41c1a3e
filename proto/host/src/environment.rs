//! Variables of the environment as text. One that is set and is not UTF-8 is never taken for one that is not set: whoever set it
//! means something by it.

use std::ffi::OsString;

/// A variable whose value is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is not UTF-8")]
pub struct NotText {
    /// Which.
    pub name: String,
}

/// A variable of this process; `None` when it is not set.
///
/// # Errors
/// When its value is not UTF-8.
pub fn text(name: &str) -> Result<Option<String>, NotText> {
    of(name, std::env::var_os(name))
}

/// The value of this variable as text.
///
/// # Errors
/// When it is not UTF-8.
pub fn of(name: &str, value: Option<OsString>) -> Result<Option<String>, NotText> {
    let text = value.map(OsString::into_string).transpose();
    text.map_err(|_| NotText {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn what_is_not_text_is_not_taken_for_unset() {
        let bytes = |bytes: &[u8]| Some(OsString::from_vec(bytes.to_vec()));
        assert_eq!(of("A", None), Ok(None));
        assert_eq!(of("A", bytes(b"")), Ok(Some(String::new())));
        assert_eq!(of("A", bytes("é".as_bytes())), Ok(Some("é".to_owned())));
        let error = of("A", bytes(b"caf\xe9")).expect_err("it is Latin-1");
        assert_eq!(error.to_string(), "the environment variable A is not UTF-8");
    }
}
