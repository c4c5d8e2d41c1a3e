//! What masters of a fleet show each other: certificates that name them, which each signs for itself with the CA that all of
//! them have (names as in the SPIFFE X.509-SVID standard). Used by `server::peer`; no agent has one, and no agents' service
//! takes one.

use std::time::Duration;

use aot_model::hash::sha256_hex;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ca::{Ca, Error, crypto};

/// How long a master's certificate lives.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// A master's certificate with its key.
pub(crate) struct MasterCertificate {
    /// Leaf.
    pub certificate: CertificateDer<'static>,
    /// Its key, which never leaves the process.
    pub key: PrivateKeyDer<'static>,
}

/// Makes one for the master of this id, which has the CA.
///
/// # Errors
/// When it can't be made or signed.
pub(crate) fn certify(ca: &Ca, id: &str) -> Result<MasterCertificate, Error> {
    let key = KeyPair::generate().map_err(crypto("make a master's key"))?;
    let text = |text: String| Ia5String::try_from(text).map_err(crypto("write a master's name"));
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::URI(text(spiffe_id(ca.id(), id))?),
        SanType::DnsName(text(host(id))?),
    ];
    params
        .distinguished_name
        .push(DnType::CommonName, "aot master among masters");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let certificate = ca.sign(params, &key, LIFE)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(MasterCertificate { certificate, key })
}

/// The id of the master that holds this certificate, whose chain TLS has verified; `None` when it is not a master's of this CA.
pub(crate) fn master_of(ca_id: &str, certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri), GeneralName::DNSName(dns)] = names.value.general_names[..] else {
        return None;
    };
    let id = decode(uri.strip_prefix(&format!("spiffe://{ca_id}/master/"))?)?;
    (dns == host(&id)).then_some(id)
}

/// The name that a master is dialled by: TLS compares names of hosts, and addresses change.
pub(crate) fn host(id: &str) -> String {
    format!("m{}.aot-master.internal", &sha256_hex(id.as_bytes())[..20])
}

fn spiffe_id(ca_id: &str, id: &str) -> String {
    format!("spiffe://{ca_id}/master/{}", encode(id))
}

/// An id as one segment of a SPIFFE path, which has letters, digits, `.`, `-` and `_`: other bytes are `_` and two hex digits.
fn encode(id: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    id.bytes().map(byte).collect()
}

fn decode(segment: &str) -> Option<String> {
    let mut parts = segment.split('_');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let id = String::from_utf8(bytes).ok()?;
    (!id.is_empty() && encode(&id) == segment).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::ca;

    const ID: &str = "db-1.example/01J9ZZZZZZZZZZZZZZZZZZZZZZ";

    fn authority() -> (tempfile::TempDir, Ca) {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::open(dir.path()).expect("makes it");
        (dir, ca)
    }

    #[test]
    fn a_masters_certificate_names_it_and_is_no_agents() {
        let (_dir, ca) = authority();
        let made = certify(&ca, ID).expect("signs");
        assert_eq!(master_of(ca.id(), &made.certificate).as_deref(), Some(ID));
        assert_eq!(master_of("aot-other", &made.certificate), None);
        assert!(ca::holder(&made.certificate).is_err(), "not an agent's");
    }

    #[test]
    fn other_certificates_of_the_ca_are_no_masters() {
        let (_dir, ca) = authority();
        let (server, _) = ca.server(&[host(ID)]).expect("signs");
        assert_eq!(master_of(ca.id(), &server), None);
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key);
        let request = ca::read_request(request.expect("signs").der()).expect("its own");
        let id = "spiffe://m/cluster/master/instance/web1/i-1".parse();
        let agent = ca.issue(&request, &id.expect("a name")).expect("signs");
        let agent: CertificateDer<'_> =
            rustls_pki_types::pem::PemObject::from_pem_slice(agent.pem.as_bytes()).expect("PEM");
        assert_eq!(master_of(ca.id(), &agent), None);
    }

    #[test]
    fn any_id_is_one_segment_and_is_read_back() {
        for id in [ID, "a/b/c", "_", "host_1/x", "h\u{e9}/1", "%2f"] {
            let segment = encode(id);
            assert!(!segment.contains('/'), "{segment}");
            assert_eq!(decode(&segment).as_deref(), Some(id));
        }
        for bad in ["", "_", "_2", "_zz", "_41", "a_2F", "_\u{e9}\u{e9}", "_ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
