//! What TLS the agent speaks: 1.3 only, one pinned authority, its own certificate. Used by link and identity.
//!
//! Whom it believes to be a master is decided by `aot_tls`.

use std::sync::Arc;
use std::time::Duration;

use aot_tls::provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Certificates or keys that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pinned authority is not a PEM of certificates.
    #[error("ca_pem of the settings holds no certificate that can be used: {0}")]
    Authority(String),
    /// A certificate can't be parsed.
    #[error("a certificate that cannot be read: {0}")]
    Certificate(String),
    /// A certificate that the pinned authority did not sign, or not for now, or not for this use.
    #[error("a certificate that the pinned authority did not sign")]
    Untrusted(#[source] rustls::Error),
    /// The key can't be used.
    #[error("a key that cannot be used: {0}")]
    Key(String),
}

/// The pinned authority.
///
/// # Errors
/// When the PEM holds none.
pub fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots
            .add(certificate)
            .map_err(|error| Error::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(Error::Authority("none in it".to_owned()));
    }
    Ok(Arc::new(roots))
}

/// Every certificate of a PEM, in order.
///
/// # Errors
/// When a block can't be read.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Certificate(error.to_string()))
}

/// Checks that the pinned authority vouches for a client certificate `chain` (leaf first) at `now`.
///
/// # Errors
/// When it does not.
pub(crate) fn check_client_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: Duration,
) -> Result<(), Error> {
    let (leaf, rest) = chain
        .split_first()
        .ok_or_else(|| Error::Certificate("there is none".to_owned()))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| Error::Authority(error.to_string()))?;
    verifier
        .verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(now))
        .map(drop)
        .map_err(Error::Untrusted)
}

/// Settings for dialling a master; `identity` is the agent's chain and key (PKCS#8 DER), `None` before enrolment.
///
/// # Errors
/// When the key does not fit.
pub fn client_config(
    roots: &Arc<RootCertStore>,
    identity: Option<(&[CertificateDer<'static>], &[u8])>,
) -> Result<ClientConfig, Error> {
    let builder = aot_tls::to_master(roots.clone());
    let builder = builder.map_err(|error| Error::Key(error.to_string()))?;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::try_from(key.to_vec())
                .map_err(|error| Error::Key(error.to_owned()))?;
            builder
                .with_client_auth_cert(chain.to_vec(), key)
                .map_err(|error| Error::Key(error.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
