//! AWS's certificates for identity documents, one per region, as files `REGION.pem` in a few folders; and the command that
//! puts them there. They are public and pinned: trust is "this certificate, of this region", no chain.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Largest file that is read as a certificate.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Smallest key that is taken: AWS has certificates with RSA-1024 and DSA as well, for its older signatures.
const MIN_KEY_BITS: usize = 2048;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a file with one certificate.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        why: String,
    },
    /// Its file name doesn't say of which region it is.
    #[error("{} is not named after a region: rename it to REGION.pem (eu-west-1.pem), or give --region", .0.display())]
    NoRegion(PathBuf),
}

/// One region's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    region: String,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    public_key: Vec<u8>,
    not_after: u64,
}

impl Certificate {
    /// Reads the one certificate of a PEM text: RSA with 2048 bits or more, not expired at `now`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn from_pem(region: &str, pem: &[u8], now: SystemTime) -> Result<Self, String> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|_| "the PEM in it is damaged".to_owned())?;
        let der = match &found[..] {
            [one] => one,
            [] => {
                return Err("it has no PEM certificate (-----BEGIN CERTIFICATE-----)".to_owned());
            }
            many => {
                return Err(format!(
                    "it has {} certificates: write each to a file of its own, named REGION.pem",
                    many.len()
                ));
            }
        };
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|_| "what is in it is not an X.509 certificate".to_owned())?;
        let key = parsed.public_key();
        let bits = match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION => {
                rsa.key_size()
            }
            _ => 0,
        };
        if bits < MIN_KEY_BITS {
            return Err(match bits {
                0 => "its key is not RSA: use the RSA-2048 certificate of the region".to_owned(),
                _ => format!("its key is RSA-{bits}: use the RSA-2048 certificate of the region"),
            });
        }
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let certificate = Self {
            region: region.to_owned(),
            issuer: parsed.issuer().as_raw().to_vec(),
            serial: parsed.raw_serial().to_vec(),
            public_key: key.subject_public_key.data.to_vec(),
            not_after,
        };
        match certificate.is_over(now) {
            true => Err("it has expired".to_owned()),
            false => Ok(certificate),
        }
    }

    /// The region that it is for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Who issued it, as encoded (a Name in DER).
    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its serial number, content octets.
    pub(super) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// RSAPublicKey in DER.
    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn is_over(&self, now: SystemTime) -> bool {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        seconds > self.not_after
    }
}

/// Whether this has the form of a region's name: it becomes part of a path.
pub fn is_region(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.len() <= 32 && text.split('-').count() >= 3 && text.split('-').all(part)
}

/// Folders of certificates, the strongest first.
#[derive(Debug, Clone)]
pub struct Certificates {
    folders: Vec<PathBuf>,
}

impl Certificates {
    /// Those that lie in these folders, when they are asked for: what is imported counts at once.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The certificate of a region, `None` where there is none.
    ///
    /// # Errors
    /// When its file is there and can't be used.
    pub fn find(&self, region: &str) -> Result<Option<Certificate>, Error> {
        if !is_region(region) {
            return Ok(None);
        }
        for folder in &self.folders {
            let path = folder.join(format!("{region}.pem"));
            if let Some(pem) = read(&path)? {
                let read = Certificate::from_pem(region, &pem, SystemTime::now());
                return read.map(Some).map_err(|why| Error::Unusable { path, why });
            }
        }
        Ok(None)
    }

    /// Puts the certificate in `file` into the first folder. The region is `region`, else what the file is named after.
    /// Gives the region and where the certificate lies now.
    ///
    /// # Errors
    /// When the file does not hold one usable certificate, or the folder can't be written; nothing has changed then.
    pub fn import(&self, file: &Path, region: Option<&str>) -> Result<(String, PathBuf), Error> {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let region = region.or(stem).unwrap_or_default().to_owned();
        if !is_region(&region) {
            return Err(Error::NoRegion(file.to_owned()));
        }
        let pem = read(file)?.ok_or_else(|| Error::File {
            what: "read",
            path: file.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        Certificate::from_pem(&region, &pem, SystemTime::now()).map_err(|why| Error::Unusable {
            path: file.to_owned(),
            why,
        })?;
        let folder = self
            .folders
            .first()
            .map(PathBuf::as_path)
            .unwrap_or(Path::new("."));
        let path = folder.join(format!("{region}.pem"));
        write(folder, &path, &pem)?;
        Ok((region, path))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > MAX_FILE_BYTES {
        return Err(Error::Unusable {
            path: path.to_owned(),
            why: format!("it has {size} bytes: that is not a certificate"),
        });
    }
    fs::read(path).map(Some).map_err(failed)
}

/// All of it or nothing, for everybody to read.
fn write(folder: &Path, path: &Path, pem: &[u8]) -> Result<(), Error> {
    let work = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(pem)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    work().map_err(|source| Error::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
