//! TLS as the master and the agents have it: 1.3 only, one authority, both sides with a certificate.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Writes an authority, a server's certificate for 127.0.0.1 and one per agent into the folder, as `agent_files` and
/// `acceptor` read them.
///
/// # Panics
/// When keys can't be made or files not written.
pub fn write(folder: &Path, agents: usize) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("it signs itself");
    fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    let issuer = Issuer::new(params, key);
    let sign = |name: &str, host: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("it signs");
        write_member(folder, name, &certificate.pem(), &key.serialize_pem());
    };
    sign("server", "127.0.0.1");
    for number in 0..agents {
        sign(&number.to_string(), "agent.invalid");
    }
}

/// Writes one certificate and its key.
///
/// # Panics
/// When that fails.
pub fn write_member(folder: &Path, name: &str, certificate_pem: &str, key_pem: &str) {
    fs::write(folder.join(format!("{name}.pem")), certificate_pem).expect("a file");
    fs::write(folder.join(format!("{name}.key")), key_pem).expect("a file");
}

type Member = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn member(folder: &Path, name: &str) -> Member {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.pem")));
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")));
    (
        vec![certificate.expect("a certificate")],
        key.expect("a key"),
    )
}

fn roots(folder: &Path) -> Arc<RootCertStore> {
    let authority = CertificateDer::from_pem_file(folder.join("ca.pem")).expect("an authority");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("it is one");
    Arc::new(roots)
}

/// Accepts connections of agents with a certificate.
///
/// # Panics
/// When the folder was not written by [`write`].
pub fn acceptor(folder: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(folder), provider.clone());
    let (chain, key) = member(folder, "server");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it knows 1.3")
        .with_client_cert_verifier(verifier.build().expect("an authority"))
        .with_single_cert(chain, key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    TlsAcceptor::from(Arc::new(config))
}

/// Dials as this agent.
///
/// # Panics
/// When the folder was not written as [`write`] does.
pub fn connector(folder: &Path, name: &str) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = member(folder, name);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it knows 1.3")
        .with_root_certificates(roots(folder))
        .with_client_auth_cert(chain, key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}
