//! What a request to join brings: its form, and the signature of an EC2 identity document. What it comes to is decided by
//! `model::attestation` and the world.

pub mod certificates;
pub mod document;
#[cfg(test)]
pub mod forge;
pub mod message;

use aot_host::chain::Chain;
use aot_model::attestation::{Secret, ShownDocument};
use aot_model::hash::sha256_hex;
use aot_model::world::EnrolAsk;
use aot_proto::ids::{BadId, MachineId};
use aot_proto::limits::MAX_ENROL_BYTES;
use aot_proto::v1::EnrolRequest;

use self::certificates::Certificate;

/// Why a request is not even looked up.
#[derive(Debug, thiserror::Error)]
pub enum NotProven {
    /// Too large.
    #[error("the request has {0} bytes; at most {MAX_ENROL_BYTES} are accepted")]
    TooLarge(usize),
    /// No machine id.
    #[error("invalid machine id")]
    BadMachine(#[from] BadId),
}

/// Turns a request into what the decision needs, all but the document. `key_sha256` is of the CSR's key, whose signature
/// was verified.
///
/// # Errors
/// When the request is malformed.
pub fn examine(request: &EnrolRequest, key_sha256: String) -> Result<EnrolAsk, NotProven> {
    let size = prost::Message::encoded_len(request);
    if size > MAX_ENROL_BYTES {
        return Err(NotProven::TooLarge(size));
    }
    let machine: MachineId = request.machine_id.parse()?;
    Ok(EnrolAsk {
        token_sha256: sha256_hex(request.token.as_bytes()),
        machine,
        key_sha256,
        document: ShownDocument::Nothing,
        answer: Secret::default(),
    })
}

/// The document in a signed message, as the metadata service gives it. Costs one RSA verification: asked only for machines
/// whose token is right.
pub fn shown(message: &str, certificate: &Certificate) -> ShownDocument {
    if message.is_empty() {
        return ShownDocument::Nothing;
    }
    let content = match message::content(message, certificate) {
        Ok(content) => content,
        Err(error) => return ShownDocument::Bad(error.to_string()),
    };
    match document::read(&content) {
        Ok(document) => ShownDocument::Signed(document),
        Err(error) => ShownDocument::Bad(Chain(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> EnrolRequest {
        EnrolRequest {
            token: "t".to_owned(),
            machine_id: "i-1".to_owned(),
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
    }

    #[test]
    fn a_message_is_nothing_bad_or_a_document() {
        let [ours, other] = forge::signers();
        assert_eq!(shown("", &ours.certificate), ShownDocument::Nothing);
        let ShownDocument::Signed(document) = shown(&ours.sign(forge::DOCUMENT), &ours.certificate)
        else {
            panic!("it is good");
        };
        assert_eq!(document.region, "eu-west-1");
        let foreign = shown(&ours.sign(forge::DOCUMENT), &other.certificate);
        assert!(matches!(foreign, ShownDocument::Bad(why) if why.contains("eu-west-2")));
        let no_document = shown(&ours.sign("{}"), &ours.certificate);
        assert!(matches!(no_document, ShownDocument::Bad(_)));
    }
}
