//! What the keys of a fleet are sealed with before the database has them: the key in a file, or a data key that a service seals and opens.
//! That one lies beside what it sealed, so that nothing but the right to ask the service is needed on a host.

use std::fmt;
use std::sync::Arc;

use aot_store::{DataKeyError, DataKeys};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::fleet_key::FleetKey;

/// Why something is not sealed or not opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Sealed with another one, or changed.
    #[error(
        "the keys in the database were sealed with another key than that of AOT_FLEET_KEY: all masters of a fleet need the same one"
    )]
    WrongKey,
    /// A file is set, and it was a service.
    #[error(
        "the keys in the database are sealed with {0}, not with a file: set AOT_FLEET_KEY to that, or change it with `aot-master fleet rekey`"
    )]
    SealedByService(String),
    /// A service is set, and it was a file.
    #[error(
        "the keys in the database are sealed with the key of a file, not with {0}: name the file in AOT_FLEET_KEY, or change it with `aot-master fleet rekey`"
    )]
    SealedByFile(String),
    /// The service.
    #[error(transparent)]
    Service(#[from] DataKeyError),
}

/// What is sealed with.
#[derive(Clone)]
pub enum FleetSeal {
    /// The key of a file, which each host has.
    File(Arc<FleetKey>),
    /// A data key of a service.
    Service(Arc<dyn DataKeys>),
}

impl fmt::Debug for FleetSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Service(_) => "Service",
        })
    }
}

/// What is in the database where a service has the key: a document, which nothing that a file's key sealed is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByService {
    /// The service's key, as it was set. For people: what is set is asked.
    sealed_with: String,
    /// What the service opens the data key for.
    purpose: String,
    /// The data key as the service sealed it, in base64.
    data_key: String,
    /// The keys, sealed with it, in base64.
    keys: String,
}

impl FleetSeal {
    /// Seals something. `purpose` is not secret; where a service has the key, it must be given again to open what was sealed.
    pub(super) async fn seal(&self, plain: &[u8], purpose: &str) -> Result<Vec<u8>, SealError> {
        let service = match self {
            Self::File(key) => return Ok(key.seal(plain)),
            Self::Service(service) => service,
        };
        let data_key = service.make(purpose).await?;
        let key = FleetKey::of(&data_key.plain).ok_or(SealError::WrongKey)?;
        let sealed = ByService {
            sealed_with: service.name().to_owned(),
            purpose: purpose.to_owned(),
            data_key: STANDARD.encode(data_key.sealed),
            keys: STANDARD.encode(key.seal(plain)),
        };
        Ok(serde_json::to_vec(&sealed).expect("it is text"))
    }

    /// What was sealed.
    pub(super) async fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let by_service: Option<ByService> = serde_json::from_slice(sealed).ok();
        match (self, by_service) {
            (Self::File(key), None) => key.open(sealed).ok_or(SealError::WrongKey),
            (Self::File(_), Some(sealed)) => Err(SealError::SealedByService(sealed.sealed_with)),
            (Self::Service(service), None) => {
                Err(SealError::SealedByFile(service.name().to_owned()))
            }
            (Self::Service(service), Some(sealed)) => {
                let decoded = |text: &str| STANDARD.decode(text).map_err(|_| SealError::WrongKey);
                let data_key = decoded(&sealed.data_key)?;
                let data_key = service.open(&data_key, &sealed.purpose).await?;
                let key = FleetKey::of(&data_key).ok_or(SealError::WrongKey)?;
                key.open(&decoded(&sealed.keys)?).ok_or(SealError::WrongKey)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    use aot_store::{DataKey, Pending};

    use super::*;

    /// A service whose data keys are a byte 32 times, and sealed by writing the byte and the purpose.
    pub(crate) struct FakeService(pub(crate) u8);

    impl DataKeys for FakeService {
        fn name(&self) -> &str {
            "kms:alias/fake"
        }

        fn make<'a>(&'a self, purpose: &'a str) -> Pending<'a, Result<DataKey, DataKeyError>> {
            let sealed = [&[self.0][..], purpose.as_bytes()].concat();
            let plain = vec![self.0; 32];
            Box::pin(async move { Ok(DataKey { plain, sealed }) })
        }

        fn open<'a>(
            &'a self,
            sealed: &'a [u8],
            purpose: &'a str,
        ) -> Pending<'a, Result<Vec<u8>, DataKeyError>> {
            let is_it = sealed.split_first() == Some((&self.0, purpose.as_bytes()));
            Box::pin(async move {
                is_it.then(|| vec![self.0; 32]).ok_or_else(|| DataKeyError {
                    what: "open",
                    key: self.name().to_owned(),
                    hint: "try another",
                    source: "it is of another key".into(),
                })
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeService;
    use super::*;

    fn service(byte: u8) -> FleetSeal {
        FleetSeal::Service(Arc::new(FakeService(byte)))
    }

    fn file(byte: u8) -> FleetSeal {
        FleetSeal::File(Arc::new(FleetKey::of(&[byte; 32]).expect("a key")))
    }

    #[tokio::test]
    async fn what_is_sealed_is_opened_by_the_same_service_alone_and_as_it_was() {
        let sealed = service(7).seal(b"secret", "ca").await.expect("seals");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        let opened = service(7).open(&sealed).await.expect("opens");
        assert_eq!(opened, b"secret");
        let other = service(8).open(&sealed).await.expect_err("is refused");
        assert!(matches!(other, SealError::Service(_)), "{other}");
        let text = String::from_utf8(sealed).expect("text");
        let changed = text.replace("\"purpose\":\"ca\"", "\"purpose\":\"cb\"");
        assert_ne!(changed, text);
        let changed = service(7).open(changed.as_bytes()).await;
        assert!(matches!(changed, Err(SealError::Service(_))));
    }

    #[tokio::test]
    async fn a_file_and_a_service_name_each_other() {
        let by_file = file(7).seal(b"secret", "ca").await.expect("seals");
        let by_service = service(7).seal(b"secret", "ca").await.expect("seals");
        assert_eq!(file(7).open(&by_file).await.expect("opens"), b"secret");
        let text = service(7).open(&by_file).await.expect_err("is refused");
        assert!(text.to_string().contains("fleet rekey"), "{text}");
        let text = file(7).open(&by_service).await.expect_err("is refused");
        assert!(text.to_string().contains("kms:alias/fake"), "{text}");
        let wrong = file(8).open(&by_file).await.expect_err("is refused");
        assert!(matches!(wrong, SealError::WrongKey));
    }
}
