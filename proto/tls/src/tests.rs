//! Certificates of one authority, and which of them may be a master's that serves.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};

use super::*;

const AGENT: &str = "spiffe://aot-1/cluster/web/instance/web1/i-0abc";
const PEER: &str = "spiffe://aot-1/master/host_2f1";

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("signs")
}

/// What the authority signs for this use, with an address, and this name besides.
fn signed(
    by: &CertifiedIssuer<'static, KeyPair>,
    usage: ExtendedKeyUsagePurpose,
    uri: Option<&str>,
) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(["10.0.0.1".to_owned()]).expect("a name");
    let uri = uri.map(|uri| SanType::URI(uri.try_into().expect("ASCII")));
    params.subject_alt_names.extend(uri);
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("signs");
    certificate.der().clone()
}

fn verified(
    authority: &CertifiedIssuer<'static, KeyPair>,
    certificate: &CertificateDer<'_>,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("an authority");
    let verifier = MasterVerifier {
        roots: Arc::new(roots),
        provider: provider(),
    };
    let name = ServerName::try_from("any.name.example").expect("a name");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verified = verifier.verify_server_cert(certificate, &[], &name, &[], now);
    verified.map(drop)
}

#[test]
fn a_master_is_believed_by_its_certificate_whatever_the_name_that_was_dialled() {
    let (ours, theirs) = (authority(), authority());
    let master = signed(&ours, ExtendedKeyUsagePurpose::ServerAuth, None);
    verified(&ours, &master).expect("it is one");
    verified(&theirs, &master).expect_err("it is another authority's");
    let dials = signed(&ours, ExtendedKeyUsagePurpose::ClientAuth, None);
    verified(&ours, &dials).expect_err("it is not for serving");
}

/// Also one that was signed for serving by mistake.
#[test]
fn a_certificate_of_another_kind_is_none_of_a_master() {
    let ours = authority();
    for uri in [AGENT, PEER, "spiffe://aot-1/of/a/later/version"] {
        let other = signed(&ours, ExtendedKeyUsagePurpose::ServerAuth, Some(uri));
        let error = verified(&ours, &other).expect_err(uri);
        let wanted = CertificateError::ApplicationVerificationFailure.into();
        assert_eq!(error, wanted, "{uri}");
    }
    let about = "https://example.org/about";
    let master = signed(&ours, ExtendedKeyUsagePurpose::ServerAuth, Some(about));
    verified(&ours, &master).expect("that names nobody");
}
