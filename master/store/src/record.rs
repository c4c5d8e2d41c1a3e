//! Records as the JSON that a row holds.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

pub(crate) fn read<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|source| Error::Record { table, source })
}

pub(crate) fn write<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have string keys only")
}
