//! Who this machine is to the master: its key, its certificate, and how both are kept on disk and renewed.
//!
//! Called by the service (at start) and the session (renewal). The key is made here and never leaves the machine.

pub mod enrol;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files::write_atomic;
use crate::tls;

/// Part of a certificate's life after which a new one is asked for.
const RENEW_AT: f64 = 0.7;
/// Most that a renewal moves either way, as part of the certificate's life.
const RENEW_JITTER: f64 = 0.1;

/// An identity that can't be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the identity can't be read or written.
    #[error("cannot keep the identity in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Making or reading a key, or signing a request, failed.
    #[error("cannot use the machine's key")]
    Key(#[from] rcgen::Error),
    /// The certificate or its chain is no good.
    #[error("the certificate cannot be used")]
    Certificate(#[from] tls::Error),
    /// The certificate names no agent.
    #[error("the certificate names no agent: {0}")]
    NoName(String),
    /// The certificate is for another key.
    #[error("the certificate belongs to another key")]
    OtherKey,
    /// A renewed certificate names someone else.
    #[error("the renewed certificate is for {got}, not for {wanted}")]
    OtherName {
        /// Whom it is for.
        got: String,
        /// Who asked.
        wanted: String,
    },
}

/// A key and the certificate for it. `Debug` prints the name only.
pub struct Identity {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    /// Whom the certificate names.
    pub name: SpiffeId,
    /// Start of its life, since 1970.
    pub not_before: Duration,
    /// End of its life, since 1970.
    pub not_after: Duration,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name.to_string())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Checks that the pinned authority signed `chain_pem` for `key` and an agent's name, and that it is good at `now`.
    ///
    /// # Errors
    /// Says which of these it is not.
    pub fn check(
        key: KeyPair,
        chain_pem: &str,
        roots: &Arc<RootCertStore>,
        now: Duration,
    ) -> Result<Self, Error> {
        let chain = tls::certificates(chain_pem)?;
        tls::check_client_chain(&chain, roots, now)?;
        let (_, leaf) = X509Certificate::from_der(&chain[0])
            .map_err(|error| Error::NoName(error.to_string()))?;
        if leaf.public_key().raw != key.subject_public_key_info() {
            return Err(Error::OtherKey);
        }
        let uri = tls::uris(&leaf)
            .next()
            .ok_or_else(|| Error::NoName("it has no URI".to_owned()))?;
        let name = uri
            .parse()
            .map_err(|error| Error::NoName(format!("{error}")))?;
        let seconds = |time: i64| Duration::from_secs(time.try_into().unwrap_or(0));
        let not_before = seconds(leaf.validity().not_before.timestamp());
        let not_after = seconds(leaf.validity().not_after.timestamp());
        Ok(Self {
            key,
            chain_pem: chain_pem.to_owned(),
            name,
            not_before,
            not_after,
            chain,
        })
    }

    /// The certificate chain and the key as PKCS#8, for TLS.
    pub fn for_tls(&self) -> (&[CertificateDer<'static>], &[u8]) {
        (&self.chain, self.key.serialized_der())
    }

    /// When to ask for the next certificate, since 1970; `unit` is a random number in [0, 1).
    pub fn renew_at(&self, unit: f64) -> Duration {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_before + life.mul_f64(RENEW_AT + RENEW_JITTER * (2.0 * unit - 1.0))
    }

    /// Checks a renewed certificate for `key`: as [`Identity::check`], and the name must be this one.
    ///
    /// # Errors
    /// Says what is wrong with it; this identity stays good.
    pub fn renewed(
        &self,
        key: KeyPair,
        chain_pem: &str,
        roots: &Arc<RootCertStore>,
        now: Duration,
    ) -> Result<Self, Error> {
        let new = Self::check(key, chain_pem, roots, now)?;
        if new.name != self.name {
            return Err(Error::OtherName {
                got: new.name.to_string(),
                wanted: self.name.to_string(),
            });
        }
        Ok(new)
    }
}

/// A new key: ECDSA on P-256.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// A signing request (PKCS#10, DER) for `key`. The names are the master's to give: it holds the machine id as a label.
///
/// # Errors
/// When signing fails.
pub fn csr(key: &KeyPair, machine_id: &str) -> Result<Vec<u8>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, machine_id);
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Where an identity is kept.
#[derive(Debug, Clone)]
pub struct Vault {
    key_path: PathBuf,
    identity_path: PathBuf,
}

impl Vault {
    /// In `state_dir`: `identity.key` before enrolment, `identity.pem` (key, then chain) after it. Both mode 0600.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            key_path: state_dir.join("identity.key"),
            identity_path: state_dir.join("identity.pem"),
        }
    }

    /// The key to enrol with: that of the stored identity, else the one made for an earlier try, else a new one that is
    /// on disk before this returns: a repeat after a lost reply must carry the same key.
    ///
    /// # Errors
    /// When the key can't be read or kept.
    pub fn key(&self) -> Result<KeyPair, Error> {
        for path in [&self.identity_path, &self.key_path] {
            if let Some(pem) = self.read(path)? {
                return Ok(KeyPair::from_pem(&pem)?);
            }
        }
        let key = new_key()?;
        self.write(&self.key_path, &key.serialize_pem())?;
        Ok(key)
    }

    /// The stored identity, when there is one that is good at `now`.
    ///
    /// # Errors
    /// When there is one that can't be read, or is expired or not the pinned authority's.
    pub fn load(
        &self,
        roots: &Arc<RootCertStore>,
        now: Duration,
    ) -> Result<Option<Identity>, Error> {
        let Some(pem) = self.read(&self.identity_path)? else {
            return Ok(None);
        };
        let key = KeyPair::from_pem(&pem)?;
        Identity::check(key, &pem, roots, now).map(Some)
    }

    /// Keeps `identity` instead of any older one.
    ///
    /// # Errors
    /// When it can't be written; then the older one stays.
    pub fn store(&self, identity: &Identity) -> Result<(), Error> {
        let chain: String = identity
            .chain_pem
            .split_inclusive('\n')
            .skip_while(|line| !line.contains("BEGIN CERTIFICATE"))
            .collect();
        self.write(
            &self.identity_path,
            &format!("{}{chain}", identity.key.serialize_pem()),
        )
    }

    fn read(&self, path: &Path) -> Result<Option<String>, Error> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        write_atomic(path, text.as_bytes(), 0o600).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
    use std::time::SystemTime;

    /// An authority that signs anything.
    pub(crate) struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pub(crate) pem: String,
    }

    impl Authority {
        pub(crate) fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = new_key().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Self {
                issuer: Issuer::new(params, key),
                pem,
            }
        }

        pub(crate) fn sign(&self, key: &KeyPair, uri: &str) -> String {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(key, &self.issuer).unwrap().pem()
        }
    }

    const NAME: &str = "spiffe://m/cluster/c/instance/web1/i-1";

    fn now() -> Duration {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
    }

    #[test]
    fn the_key_is_on_disk_before_enrolment_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let first = vault.key().unwrap();
        assert!(dir.path().join("identity.key").exists());
        assert_eq!(
            vault.key().unwrap().serialized_der(),
            first.serialized_der()
        );
    }

    #[test]
    fn an_identity_is_kept_and_found_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let authority = Authority::new();
        let roots = tls::roots(&authority.pem).unwrap();
        assert!(vault.load(&roots, now()).unwrap().is_none());
        let key = vault.key().unwrap();
        let pem = authority.sign(&key, NAME);
        let identity = Identity::check(key, &pem, &roots, now()).unwrap();
        vault.store(&identity).unwrap();
        let again = vault.load(&roots, now()).unwrap().unwrap();
        assert_eq!(again.name.to_string(), NAME);
        assert_eq!(again.key.serialized_der(), identity.key.serialized_der());
        assert_eq!(
            fs::metadata(dir.path().join("identity.pem"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        vault.store(&again).unwrap();
        assert!(vault.load(&roots, now()).unwrap().is_some(), "stored twice");
        let late = again.not_after + Duration::from_secs(1);
        assert!(
            matches!(vault.load(&roots, late), Err(Error::Certificate(_))),
            "expired"
        );
        assert_eq!(
            vault.key().unwrap().serialized_der(),
            again.key.serialized_der(),
            "the same key enrols again"
        );
    }

    #[test]
    fn a_certificate_that_is_not_ours_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let roots = tls::roots(&ours.pem).unwrap();
        let key = || KeyPair::from_pem(PEM.with(|pem| pem.clone()).as_str()).unwrap();
        thread_local!(static PEM: String = new_key().unwrap().serialize_pem());
        let other = new_key().unwrap();
        let check = |pem: String| Identity::check(key(), &pem, &roots, now());
        assert!(matches!(
            check(theirs.sign(&key(), NAME)),
            Err(Error::Certificate(tls::Error::Untrusted(_)))
        ));
        assert!(matches!(
            check(ours.sign(&other, NAME)),
            Err(Error::OtherKey)
        ));
        assert!(matches!(
            check(ours.sign(&key(), "https://else")),
            Err(Error::NoName(_))
        ));
        assert!(matches!(check(String::new()), Err(Error::Certificate(_))));
        let identity = check(ours.sign(&key(), NAME)).unwrap();
        let someone = ours.sign(&key(), "spiffe://m/cluster/c/instance/web2/i-2");
        assert!(matches!(
            identity.renewed(key(), &someone, &roots, now()),
            Err(Error::OtherName { .. })
        ));
        let renewed = ours.sign(&other, NAME);
        assert!(identity.renewed(other, &renewed, &roots, now()).is_ok());
    }

    #[test]
    fn renewal_is_at_about_seven_tenths_of_life() {
        let authority = Authority::new();
        let roots = tls::roots(&authority.pem).unwrap();
        let key = new_key().unwrap();
        let pem = authority.sign(&key, NAME);
        let mut identity = Identity::check(key, &pem, &roots, now()).unwrap();
        identity.not_before = Duration::from_secs(1000);
        identity.not_after = Duration::from_secs(2000);
        for (unit, at) in [(0.0, 1600), (0.5, 1700), (1.0, 1800)] {
            assert_eq!(identity.renew_at(unit).as_secs_f64().round() as u64, at);
        }
    }
}
