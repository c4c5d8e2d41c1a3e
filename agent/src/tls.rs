//! What TLS the agent speaks: 1.3 only, one pinned authority, its own certificate. Used by link and identity.
//!
//! The name in the master's certificate is not compared with the address that was dialled: addresses of a master change
//! and hide behind NAT, the authority is the cluster's own and signs masters for serving and agents for dialling only.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// The one crypto library of the workspace.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
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
pub(crate) fn client_config(
    roots: &Arc<RootCertStore>,
    identity: Option<(&[CertificateDer<'static>], &[u8])>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = PinnedAuthority {
        roots: roots.clone(),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Key(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
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

/// Believes a server whose certificate the pinned authority signed for serving, and that does not belong to an agent.
#[derive(Debug)]
struct PinnedAuthority {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if is_agents(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "only TLS 1.3 is spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whether the certificate names an agent, or can't be read at all.
fn is_agents(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return true;
    };
    uris(&parsed).any(|uri| uri.parse::<aot_proto::ids::SpiffeId>().is_ok())
}

/// URIs among the names of a certificate.
pub(crate) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a str> {
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| &names.value.general_names);
    names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}
