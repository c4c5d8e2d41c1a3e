//! What an EC2 instance identity document says. Read only after its signature was found to be good, from the signed bytes.

use std::time::SystemTime;

use aot_model::attestation::Document;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The fields that are compared (EC2 User Guide, "Instance identity documents"); others are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    account_id: String,
    instance_id: String,
    region: String,
    pending_time: String,
}

/// Why signed bytes are not a document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or without one of the fields.
    #[error("what was signed is not an identity document")]
    Form(#[source] serde_json::Error),
    /// A field has a value that makes no sense.
    #[error("its {0} is not valid")]
    Field(&'static str),
}

/// Reads the signed bytes.
///
/// # Errors
/// When they are not a document.
pub fn read(content: &[u8]) -> Result<Document, Error> {
    let fields: Fields = serde_json::from_slice(content).map_err(Error::Form)?;
    let pending = OffsetDateTime::parse(&fields.pending_time, &Rfc3339)
        .map_err(|_| Error::Field("pendingTime"))?;
    let digits = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(&fields.account_id) {
        return Err(Error::Field("accountId"));
    }
    if !super::certificates::is_region(&fields.region) {
        return Err(Error::Field("region"));
    }
    Ok(Document {
        account: fields.account_id,
        region: fields.region,
        machine: fields
            .instance_id
            .parse()
            .map_err(|_| Error::Field("instanceId"))?,
        pending: SystemTime::from(pending),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::attest::forge::DOCUMENT;

    #[test]
    fn the_fields_come_out_whatever_else_is_in_it() {
        let document = read(DOCUMENT.as_bytes()).expect("a document");
        assert_eq!(document.account, "123456789012");
        assert_eq!(document.region, "eu-west-1");
        assert_eq!(document.machine.as_str(), "i-0123456789abcdef0");
        let since = document.pending.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(since.expect("after 1970").as_secs(), 1_630_704_344);
    }

    #[test]
    fn what_is_missing_twice_or_of_another_kind_is_refused() {
        let changes = [
            (
                "\"accountId\" : \"123456789012\"",
                "\"accountId\" : 123456789012",
            ),
            ("123456789012", "12345678901"),
            ("123456789012", "12345678901x"),
            ("\"region\" : \"eu-west-1\",", ""),
            ("\"eu-west-1\"", "\"../../etc\""),
            ("\"region\"", "\"instanceId\" : \"i-1\",\n  \"region\""),
            ("i-0123456789abcdef0", "i-1/../x"),
            ("2021-09-03T21:25:44Z", "yesterday"),
            ("{", "["),
        ];
        for (from, to) in changes {
            let changed = DOCUMENT.replacen(from, to, 1);
            assert_ne!(changed, DOCUMENT, "{from}");
            assert!(read(changed.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert!(read(b"").is_err());
    }
}
