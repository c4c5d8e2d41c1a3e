//! What a request to join brings, checked for form. The signature of an EC2 identity document is stored with the
//! instance, and verified against the region's certificate by an attestor that comes here.

use aot_proto::ids::{BadId, MachineId};
use aot_proto::limits::MAX_ENROL_BYTES;
use aot_proto::v1::EnrolRequest;

use crate::model::hash::sha256_hex;
use crate::model::world::EnrolAsk;

/// Why a request is not even looked up.
#[derive(Debug, thiserror::Error)]
pub enum NotProven {
    /// Too large.
    #[error("the request has {0} bytes, at most {MAX_ENROL_BYTES} are taken")]
    TooLarge(usize),
    /// No machine id.
    #[error("the machine id is not one")]
    BadMachine(#[from] BadId),
    /// The identity document is not JSON, or of another machine.
    #[error("the identity document is not one of {0}")]
    ForeignDocument(MachineId),
}

/// Turns a request into what the decision needs. `key_sha256` is of the CSR's key, whose signature was verified.
///
/// # Errors
/// When the request is malformed, or its document names another machine.
pub fn examine(request: &EnrolRequest, key_sha256: String) -> Result<EnrolAsk, NotProven> {
    let size = prost::Message::encoded_len(request);
    if size > MAX_ENROL_BYTES {
        return Err(NotProven::TooLarge(size));
    }
    let machine: MachineId = request.machine_id.parse()?;
    if !request.identity_document.is_empty() {
        let named = serde_json::from_str::<serde_json::Value>(&request.identity_document).ok();
        let named = named
            .as_ref()
            .and_then(|doc| doc.get("instanceId"))
            .and_then(|id| id.as_str());
        if named != Some(machine.as_str()) {
            return Err(NotProven::ForeignDocument(machine));
        }
    }
    Ok(EnrolAsk {
        token_sha256: sha256_hex(request.token.as_bytes()),
        machine,
        key_sha256,
        document: request.identity_document.clone(),
        signature: request.identity_signature.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> EnrolRequest {
        EnrolRequest {
            token: "t".to_owned(),
            machine_id: "i-1".to_owned(),
            identity_document: r#"{"instanceId":"i-1"}"#.to_owned(),
            ..EnrolRequest::default()
        }
    }

    #[test]
    fn only_the_tokens_hash_goes_on() {
        let ask = examine(&good(), "k".to_owned()).expect("it is good");
        assert_eq!(ask.token_sha256, sha256_hex(b"t"));
        assert_eq!(ask.machine.as_str(), "i-1");
    }

    #[test]
    fn each_flaw_is_refused() {
        let big = EnrolRequest {
            csr_der: vec![0; MAX_ENROL_BYTES],
            ..good()
        };
        assert!(matches!(
            examine(&big, String::new()),
            Err(NotProven::TooLarge(_))
        ));
        let nameless = EnrolRequest {
            machine_id: "../x".to_owned(),
            ..good()
        };
        assert!(matches!(
            examine(&nameless, String::new()),
            Err(NotProven::BadMachine(_))
        ));
        for document in [
            "not json",
            "{}",
            r#"{"instanceId":"i-2"}"#,
            r#"{"instanceId":["i-1"]}"#,
        ] {
            let foreign = EnrolRequest {
                identity_document: document.to_owned(),
                ..good()
            };
            assert!(
                matches!(
                    examine(&foreign, String::new()),
                    Err(NotProven::ForeignDocument(_))
                ),
                "{document}"
            );
        }
        assert!(
            examine(
                &EnrolRequest {
                    identity_document: String::new(),
                    ..good()
                },
                String::new()
            )
            .is_ok()
        );
    }
}
