//! Who this machine is to the master: its key, its certificate, and how both are stored and renewed.
//!
//! Called by the service (at start) and the session (renewal). The key is made here and never leaves the machine.

mod certificate;
mod document;
pub(crate) mod enrol;
#[cfg(test)]
pub(crate) mod test_authority;
mod vault;

use std::io;
use std::path::PathBuf;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::tls;
pub(crate) use certificate::ClientIdentity;
pub(crate) use vault::Vault;

/// An identity that can't be stored or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of the identity can't be read or written.
    #[error("cannot keep the identity in {}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Making or reading a key, or signing a request, failed.
    #[error("cannot use the machine's key")]
    Key(#[from] rcgen::Error),
    /// The certificate or its chain is not valid.
    #[error("the certificate cannot be used")]
    Certificate(#[from] tls::Error),
    #[error("the certificate names no agent: {0}")]
    NoName(String),
    /// The certificate is for another key.
    #[error("the certificate belongs to another key")]
    OtherKey,
    /// The certificate is for another machine.
    #[error("the certificate is for machine {names}, and this is {machine}")]
    OtherMachine {
        /// Which it is for.
        names: String,
        machine: String,
    },
    /// A renewed certificate names someone else.
    #[error("the renewed certificate is for {got}, not for {wanted}")]
    OtherName {
        /// Whom it is for.
        got: String,
        /// Who asked.
        wanted: String,
    },
}

/// A new key: ECDSA on P-256.
///
/// # Errors
/// When the system gives no random numbers.
pub(crate) fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// A signing request (PKCS#10, DER) for `key`. The names are the master's to give: it holds the machine id as a label.
///
/// # Errors
/// When signing fails.
pub(crate) fn csr(key: &KeyPair, machine_id: &str) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, machine_id);
    Ok(params.serialize_request(key)?.der().to_vec())
}
