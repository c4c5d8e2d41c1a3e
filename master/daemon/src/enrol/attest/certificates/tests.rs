use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::enrol::attest::forge::signers;

fn folder() -> (tempfile::TempDir, Certificates) {
    let dir = tempfile::tempdir().expect("a folder");
    let folders = vec![
        dir.path().join("own/certificates"),
        dir.path().join("shared"),
    ];
    (dir, Certificates::new(folders))
}

#[test]
fn an_imported_certificate_is_found_by_its_region() {
    let (dir, certificates) = folder();
    let [ours, other] = signers();
    assert_eq!(certificates.find("eu-west-1").expect("reads"), None);
    let file = dir.path().join("eu-west-1.pem");
    fs::write(&file, &ours.pem).expect("writes");
    let (region, path) = certificates.import(&file, None).expect("imports");
    assert_eq!(region, "eu-west-1");
    assert_eq!(path, dir.path().join("own/certificates/eu-west-1.pem"));
    let mode = fs::metadata(&path).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let found = certificates.find("eu-west-1").expect("reads");
    assert_eq!(found.as_ref(), Some(&ours.certificate));
    assert_eq!(certificates.find("eu-west-2").expect("reads"), None);
    // Another name and another region, said by an option; text around the PEM is as AWS's page has it.
    let named = dir.path().join("downloaded.txt");
    fs::write(&named, format!("Europe (London)\r\n{}\n", other.pem)).expect("writes");
    assert!(matches!(
        certificates.import(&named, None),
        Err(Error::NoRegion(_))
    ));
    certificates
        .import(&named, Some("eu-west-2"))
        .expect("imports");
    assert!(certificates.find("eu-west-2").expect("reads").is_some());
}

#[test]
fn the_own_folder_goes_before_the_packages() {
    let (dir, certificates) = folder();
    let [ours, other] = signers();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).expect("makes");
    fs::write(shared.join("eu-west-1.pem"), &other.pem).expect("writes");
    let packaged = certificates
        .find("eu-west-1")
        .expect("reads")
        .expect("is there");
    assert_ne!(packaged, ours.certificate);
    let file = dir.path().join("eu-west-1.pem");
    fs::write(&file, &ours.pem).expect("writes");
    certificates.import(&file, None).expect("imports");
    assert_eq!(
        certificates.find("eu-west-1").expect("reads"),
        Some(ours.certificate.clone())
    );
}

#[test]
fn what_is_no_such_certificate_is_refused_and_changes_nothing() {
    let (dir, certificates) = folder();
    let [ours, other] = signers();
    let good = dir.path().join("eu-west-1.pem");
    fs::write(&good, &ours.pem).expect("writes");
    let (_, placed) = certificates.import(&good, None).expect("imports");
    let elliptic = rcgen::KeyPair::generate().expect("a key");
    let elliptic = rcgen::CertificateParams::default().self_signed(&elliptic);
    let elliptic = elliptic.expect("a certificate").pem();
    let cut: String = ours.pem.chars().take(400).collect();
    let cases = [
        ("no PEM", "hello".to_owned(), "no PEM certificate"),
        (
            "two",
            format!("{}{}", ours.pem, other.pem),
            "a file of its own",
        ),
        ("no RSA", elliptic, "not RSA"),
        ("cut off", cut, "PEM"),
        (
            "no X.509",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "X.509",
        ),
        ("a long file", "x".repeat(70_000), "bytes"),
    ];
    for (what, text, says) in cases {
        fs::write(&good, text).expect("writes");
        let refused = certificates
            .import(&good, None)
            .expect_err(what)
            .to_string();
        assert!(refused.contains(says), "{what}: {refused}");
        let kept = fs::read_to_string(&placed).expect("is there");
        assert_eq!(kept, ours.pem, "{what}");
    }
    let missing = certificates.import(&dir.path().join("eu-west-3.pem"), None);
    assert!(matches!(missing, Err(Error::File { .. })));
    for region in ["../eu-west-1", "eu-west-1/x", "", "west", "EU-west-1"] {
        let refused = certificates.import(&good, Some(region));
        assert!(matches!(refused, Err(Error::NoRegion(_))), "{region}");
        assert_eq!(certificates.find(region).expect("asks no file"), None);
    }
}

#[test]
fn one_that_has_expired_is_refused() {
    let [ours, _] = signers();
    let read = |seconds| {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        Certificate::from_pem("eu-west-1", ours.pem.as_bytes(), now)
    };
    let end = ours.certificate.not_after;
    assert!(read(end).is_ok());
    assert!(read(end + 1).is_err_and(|why| why.contains("expired")));
}

#[test]
fn a_damaged_file_is_an_error_and_not_a_missing_one() {
    let (dir, certificates) = folder();
    let own = dir.path().join("own/certificates");
    fs::create_dir_all(&own).expect("makes");
    fs::write(own.join("eu-west-1.pem"), "nothing").expect("writes");
    let refused = certificates.find("eu-west-1").expect_err("it is damaged");
    assert!(refused.to_string().contains("eu-west-1.pem"), "{refused}");
}
