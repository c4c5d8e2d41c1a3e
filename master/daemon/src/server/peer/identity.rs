//! The certificate that this master shows to others, and what it asks of theirs: TLS 1.3, the fleet's CA, and the name of a
//! master in it. Made anew when two thirds of its life are over, by the first connection that needs it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::enrol::ca::{self, Ca};
use crate::enrol::masters;

/// The one protocol that masters speak.
const ALPN: &[u8] = b"h2";

/// Why no connection can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// TLS set-up.
    #[error("cannot set up TLS among masters")]
    Tls(#[from] rustls::Error),
    /// Client certificates.
    #[error("cannot set up the verification of masters' certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
}

/// Who this master is among masters.
pub(crate) struct PeerIdentity {
    ca: Arc<Ca>,
    id: String,
    current: Mutex<Option<Current>>,
}

/// Both sides of a connection, with one certificate.
#[derive(Clone)]
struct Current {
    made: SystemTime,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl PeerIdentity {
    /// Of the master with this id.
    pub(crate) fn new(ca: Arc<Ca>, id: String) -> Self {
        let current = Mutex::new(None);
        Self { ca, id, current }
    }

    /// The master's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What a connection from another master is taken with.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        Ok(self.current()?.server)
    }

    /// What another master is dialled with.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        Ok(self.current()?.client)
    }

    /// The id of the master that showed this chain, which TLS has verified; `None` when it is not a master's.
    pub(super) fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
        masters::master_of(self.ca.id(), chain?.first()?)
    }

    fn current(&self) -> Result<Current, Error> {
        let now = SystemTime::now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = current.as_ref().filter(|it| !is_due(it.made, now)) {
            return Ok(current.clone());
        }
        let made = self.make(now)?;
        *current = Some(made.clone());
        Ok(made)
    }

    fn make(&self, now: SystemTime) -> Result<Current, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone())?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = masters::certify(&self.ca, &self.id)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0; // each connection shows its certificate
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own.certificate], own.key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Current {
            made: now,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// Whether a certificate of then is to be replaced; also when the clock was set back before it.
fn is_due(made: SystemTime, now: SystemTime) -> bool {
    let age = now.duration_since(made);
    age.map_or(true, |age| age >= masters::LIFE * 2 / 3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_is_made_anew_long_before_its_end_and_not_for_each_connection() {
        let (made, hour) = (SystemTime::now(), Duration::from_secs(3600));
        for (now, want) in [
            (made, false),
            (made + 15 * hour, false),
            (made + 16 * hour, true),
            (made - hour, true),
        ] {
            assert_eq!(is_due(made, now), want, "{now:?}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Arc::new(Ca::open(dir.path()).expect("makes it"));
        let identity = PeerIdentity::new(ca, "a/1".to_owned());
        let server = || identity.server().expect("makes it");
        assert!(Arc::ptr_eq(&server(), &server()));
    }
}
