//! The identity on disk: the key before enrolment, key and certificate after it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aot_host::files::write_atomic;
use aot_proto::ids::SpiffeId;
use rcgen::KeyPair;
use rustls::RootCertStore;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ClientIdentity, Error, new_key};
use crate::tls;

/// Where an identity is stored.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    key_path: PathBuf,
    identity_path: PathBuf,
}

impl Vault {
    /// In `state_dir`: `identity.key` before enrolment, `identity.pem` (key, then chain) after it. Both mode 0600.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            key_path: state_dir.join("identity.key"),
            identity_path: state_dir.join("identity.pem"),
        }
    }

    /// The key to enrol with: that of the stored identity, else the one made for an earlier try, else a new one that is
    /// on disk before this returns: a repeat after a lost reply must carry the same key.
    ///
    /// # Errors
    /// When the key can't be read or stored.
    pub(crate) fn key(&self) -> Result<KeyPair, Error> {
        for path in [&self.identity_path, &self.key_path] {
            if let Some(pem) = self.read(path)? {
                return Ok(KeyPair::from_pem(&pem)?);
            }
        }
        let key = new_key()?;
        self.write(&self.key_path, &key.serialize_pem())?;
        Ok(key)
    }

    /// The stored identity, when there is one, however old it is.
    ///
    /// # Errors
    /// When there is one that can't be read, or is not the pinned authority's.
    pub(crate) fn load(&self, roots: &Arc<RootCertStore>) -> Result<Option<ClientIdentity>, Error> {
        let Some(pem) = self.read(&self.identity_path)? else {
            return Ok(None);
        };
        ClientIdentity::check(KeyPair::from_pem(&pem)?, &pem, roots).map(Some)
    }

    /// The machine that the stored certificate names, whoever signed it and however old it is; `None` without one.
    pub(crate) fn machine(&self) -> Option<String> {
        Some(self.name()?.machine.to_string())
    }

    /// The cluster that it names.
    pub(crate) fn cluster(&self) -> Option<String> {
        Some(self.name()?.cluster.to_string())
    }

    fn name(&self) -> Option<SpiffeId> {
        let pem = self.read(&self.identity_path).ok()??;
        let chain = tls::certificates(&pem).ok()?;
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        aot_tls::uris(&leaf).next()?.parse().ok()
    }

    /// Whether there is a stored certificate.
    pub(crate) fn is_filled(&self) -> bool {
        self.identity_path.exists()
    }

    /// Renames what is stored, so that it is neither used nor lost.
    ///
    /// # Errors
    /// As rename(2).
    pub(crate) fn set_aside(&self) -> Result<(), Error> {
        for path in [&self.key_path, &self.identity_path] {
            match fs::rename(path, path.with_extension("former")) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let path = path.clone();
                    return Err(Error::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Stores `identity` in place of any older one.
    ///
    /// # Errors
    /// When it can't be written; then the older one stays.
    pub(crate) fn store(&self, identity: &ClientIdentity) -> Result<(), Error> {
        self.write(&self.identity_path, &identity.to_pem())
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
mod tests {
    use super::*;
    use crate::identity::test_authority::Authority;

    const NAME: &str = "spiffe://m/cluster/c/instance/web1/i-1";

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
    fn an_identity_is_stored_and_found_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        let authority = Authority::new();
        let roots = tls::roots(&authority.pem).unwrap();
        assert!(vault.load(&roots).unwrap().is_none());
        let key = vault.key().unwrap();
        let pem = authority.sign(&key, NAME);
        let identity = ClientIdentity::check(key, &pem, &roots).unwrap();
        vault.store(&identity).unwrap();
        let again = vault.load(&roots).unwrap().unwrap();
        assert_eq!(again.name.to_string(), NAME);
        assert_eq!(again.for_tls().1, identity.for_tls().1);
        assert_eq!(
            fs::metadata(dir.path().join("identity.pem"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        vault.store(&again).unwrap();
        assert!(vault.load(&roots).unwrap().is_some(), "stored twice");
        assert_eq!(
            vault.key().unwrap().serialized_der(),
            again.for_tls().1,
            "the same key enrols again"
        );
    }
}
