//! The master's certificate authority: made once, signs the server's certificate at each start and an agent's at each
//! enrolment and renewal (RFC 5280; names as in the SPIFFE X.509-SVID standard).

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aot_host::files::{read_optional, write_atomic};
use aot_model::hash::{hex, sha256_hex};
use aot_proto::ids::{BadId, SpiffeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long an agent's certificate lives.
pub const AGENT_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long the CA and the server's certificate live.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const SERVER_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);

/// How far a machine's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why the CA can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files.
    #[error("cannot read or write the CA in {dir}")]
    Files {
        /// State folder.
        dir: String,
        /// Why not.
        source: io::Error,
    },
    /// Keys or certificates.
    #[error("the CA cannot {what}")]
    Crypto {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// What a certificate says.
    #[error("the certificate does not belong to an agent: {0}")]
    NotAnAgent(&'static str),
    /// Its name.
    #[error("the name on the certificate does not belong to an agent")]
    BadName(#[from] BadId),
}

pub(super) fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Crypto { what, source }
}

/// The authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    id: String,
}

/// A certificate for an agent.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM, leaf only.
    pub pem: String,
    /// Hex.
    pub serial: String,
    /// End, seconds since 1970.
    pub expires_unix: u64,
}

/// A request whose signature by its own key was verified.
pub struct SigningRequest {
    csr: CertificateSigningRequestParams,
    /// SHA-256 of the key (SubjectPublicKeyInfo, DER), hex.
    pub key_sha256: String,
}

/// Who holds a certificate that our CA signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub id: SpiffeId,
    /// Serial, hex.
    pub serial: String,
    /// End of its certificate, seconds since 1970.
    pub expires_unix: u64,
}

impl Ca {
    /// Loads the CA from `ca.key` and `ca.pem` in the folder, or makes it there, mode 0600.
    ///
    /// # Errors
    /// When the files can't be used.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let files = |source| Error::Files {
            dir: dir.display().to_string(),
            source,
        };
        let [key_path, pem_path] = super::CA_FILES.map(|name| dir.join(name));
        let key = match read_optional(&key_path).map_err(files)? {
            Some(bytes) => KeyPair::from_pem(&String::from_utf8_lossy(&bytes))
                .map_err(crypto("read its key"))?,
            None => {
                let key = KeyPair::generate().map_err(crypto("make its key"))?;
                write_atomic(&key_path, key.serialize_pem().as_bytes(), 0o600).map_err(files)?;
                key
            }
        };
        let pem = match read_optional(&pem_path).map_err(files)? {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => {
                let pem = ca_params(&key)
                    .self_signed(&key)
                    .map_err(crypto("sign itself"))?
                    .pem();
                write_atomic(&pem_path, pem.as_bytes(), 0o600).map_err(files)?;
                pem
            }
        };
        let id = master_id(&key);
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes())
            .map_err(|error| files(io::Error::other(format!("ca.pem: {error}"))))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(crypto("read its certificate"))?;
        Ok(Self {
            issuer,
            pem,
            der,
            id,
        })
    }

    /// PEM, to pin.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// DER, to trust.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The master's own id: the trust domain of all names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A certificate and key for the server, good for these hosts (addresses or names).
    ///
    /// # Errors
    /// When a host is neither.
    pub fn server(
        &self,
        hosts: &[String],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate().map_err(crypto("make the server's key"))?;
        let mut params = CertificateParams::new(hosts).map_err(crypto("name the server"))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "aot master");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        live(&mut params, SERVER_LIFE);
        // A machine whose clock is far behind is to find its master all the same: it knows the CA.
        params.not_before = (SystemTime::now() - SERVER_LIFE).into();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(crypto("sign the server's certificate"))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }

    /// Signs what a master says of itself with a key of its own; see `super::masters`.
    pub(super) fn sign(
        &self,
        mut params: CertificateParams,
        key: &KeyPair,
        life: Duration,
    ) -> Result<CertificateDer<'static>, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        live(&mut params, life);
        let certificate = params.signed_by(key, &self.issuer);
        let certificate = certificate.map_err(crypto("sign a master's certificate"))?;
        Ok(certificate.der().clone())
    }

    /// Signs an agent's key under this name. Nothing of the request but its key goes into the certificate.
    ///
    /// # Errors
    /// When the name can't be written.
    pub fn issue(&self, request: &SigningRequest, id: &SpiffeId) -> Result<Issued, Error> {
        let mut params = CertificateParams::default();
        let uri = id
            .to_string()
            .try_into()
            .map_err(crypto("write the name"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params
            .distinguished_name
            .push(DnType::CommonName, id.instance.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let expires = live(&mut params, AGENT_LIFE);
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| crypto("make a serial")(rcgen::Error::RingUnspecified))?;
        let serial = serial(random);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params
            .signed_by(&request.csr.public_key, &self.issuer)
            .map_err(crypto("sign an agent's certificate"))?;
        Ok(Issued {
            pem: certificate.pem(),
            serial: hex(&serial),
            expires_unix: expires,
        })
    }
}

/// Reads a PKCS#10 request and verifies that whoever made it has the key.
///
/// # Errors
/// When it is malformed, or signed by another key.
pub fn read_request(csr_der: &[u8]) -> Result<SigningRequest, Error> {
    let csr =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(crypto("take the request"))?;
    let key_sha256 = sha256_hex(&csr.public_key.subject_public_key_info());
    Ok(SigningRequest { csr, key_sha256 })
}

/// Who holds this certificate, whose chain TLS has verified.
///
/// # Errors
/// When it is not an agent's.
pub fn holder(certificate: &CertificateDer<'_>) -> Result<Holder, Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| Error::NotAnAgent("it is not X.509"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| Error::NotAnAgent("its names are unreadable"))?
        .ok_or(Error::NotAnAgent("it has no alternative names"))?;
    let [GeneralName::URI(uri)] = names.value.general_names[..] else {
        return Err(Error::NotAnAgent("it has not exactly one URI name"));
    };
    Ok(Holder {
        id: uri.parse()?,
        serial: hex(parsed.raw_serial()),
        expires_unix: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
    })
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, format!("aot CA {}", master_id(key)));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live(&mut params, CA_LIFE);
    params
}

/// From its key: the same as long as the CA is.
fn master_id(key: &KeyPair) -> String {
    format!("aot-{}", &sha256_hex(&key.subject_public_key_info())[..16])
}

/// Sets when it begins and ends; says the end in seconds since 1970.
fn live(params: &mut CertificateParams, life: Duration) -> u64 {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    let end = (now + life).duration_since(SystemTime::UNIX_EPOCH);
    end.map_or(0, |since| since.as_secs())
}

/// A serial that reads the same in a certificate: positive (RFC 5280, 4.1.2.2), and with no leading zero byte, which DER
/// leaves out (X.690, 8.3.2).
fn serial(mut random: [u8; 16]) -> [u8; 16] {
    random[0] = random[0] & 0x7f | 0x40;
    random
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn id() -> SpiffeId {
        "spiffe://m/cluster/c/instance/web1/i-1"
            .parse()
            .expect("a good name")
    }

    fn csr(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).expect("a name");
        params.serialize_request(key).expect("signs").der().to_vec()
    }

    #[test]
    fn a_serial_is_read_back_as_it_was_given() {
        for first in 0..=u8::MAX {
            let mut random = [7; 16];
            random[0] = first;
            let given = serial(random);
            let mut params = CertificateParams::default();
            params.serial_number = Some(SerialNumber::from_slice(&given));
            let key = KeyPair::generate().expect("a key");
            let made = params.self_signed(&key).expect("signs");
            let (_, read) = x509_parser::parse_x509_certificate(made.der()).expect("is one");
            assert_eq!(read.raw_serial(), given, "{first}");
        }
    }

    #[test]
    fn the_ca_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Ca::open(dir.path()).expect("makes it");
        let again = Ca::open(dir.path()).expect("finds it");
        assert_eq!((first.pem(), first.id()), (again.pem(), again.id()));
        let mode = std::fs::metadata(dir.path().join("ca.key"))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join("ca.key"), "rubbish").expect("writes");
        assert!(Ca::open(dir.path()).is_err());
    }

    #[test]
    fn an_agents_certificate_holds_our_name_and_nothing_of_its_request() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::open(dir.path()).expect("makes it");
        let key = KeyPair::generate().expect("a key");
        let request = read_request(&csr(&key)).expect("its own signature");
        let issued = ca.issue(&request, &id()).expect("signs");
        let der: CertificateDer =
            rustls_pki_types::pem::PemObject::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
        let holder = holder(&der).expect("an agent");
        assert_eq!((holder.id, holder.serial), (id(), issued.serial));
        assert_eq!(holder.expires_unix, issued.expires_unix);
        assert!(!String::from_utf8_lossy(&der).contains("evil.example"));
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let key = KeyPair::generate().expect("a key");
        let mut bytes = csr(&key);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(read_request(&bytes).is_err());
        assert!(read_request(b"rubbish").is_err());
    }

    #[test]
    fn the_servers_certificate_is_no_agents() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::open(dir.path()).expect("makes it");
        let (certificate, _) = ca
            .server(&["127.0.0.1".to_owned(), "master.example".to_owned()])
            .expect("signs");
        assert!(holder(&certificate).is_err());
    }
}
