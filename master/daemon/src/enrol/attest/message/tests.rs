use std::path::PathBuf;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::enrol::attest::forge::{DOCUMENT, Message as Made, lines, signers, value};

fn of(made: &Made) -> Result<Vec<u8>, Error> {
    let [ours, _] = signers();
    content(&lines(&ours.bytes(made)), &ours.certificate)
}

#[test]
fn the_content_comes_out_as_it_was_signed() {
    for der in [false, true] {
        for pieces in [1, 2, 7] {
            let made = Made {
                der,
                pieces,
                ..Made::real(DOCUMENT)
            };
            assert_eq!(of(&made).expect("is good"), DOCUMENT.as_bytes());
        }
    }
    assert_eq!(of(&Made::real("")).expect("is good"), b"");
}

#[test]
fn another_regions_certificate_is_another_signer() {
    let [ours, other] = signers();
    let signed = other.sign(DOCUMENT);
    let refused = content(&signed, &ours.certificate).expect_err("it is not ours");
    assert!(matches!(&refused, Error::OtherSigner(region) if region == "eu-west-1"));
    assert!(content(&signed, &other.certificate).is_ok());
}

/// Names the right signer, and is signed by another key.
#[test]
fn a_signature_of_another_key_is_wrong() {
    let [ours, other] = signers();
    let bytes = ours.bytes(&Made::real(DOCUMENT));
    let theirs = other.bytes(&Made::real(DOCUMENT));
    // Both end in the signature, 256 bytes, and the marks of three open values.
    let at = bytes.len() - 256 - 6;
    let forged = [&bytes[..at], &theirs[theirs.len() - 256 - 6..]].concat();
    assert_ne!(forged, bytes);
    let refused = content(&lines(&forged), &ours.certificate);
    assert!(matches!(refused, Err(Error::Signature)), "{refused:?}");
}

#[test]
fn what_is_not_covered_by_the_signature_is_refused() {
    let real = || Made::real(DOCUMENT);
    let other = Made {
        digested: Some(b"another document".to_vec()),
        ..real()
    };
    assert!(matches!(of(&other), Err(Error::OtherContent)));
    let tag = Made {
        wrong_tag: true,
        ..real()
    };
    assert!(matches!(of(&tag), Err(Error::Signature)));
    let forms = [
        (
            "no attributes",
            Made {
                attributes: false,
                ..real()
            },
        ),
        (
            "no digest",
            Made {
                digests: 0,
                ..real()
            },
        ),
        (
            "two digests",
            Made {
                digests: 2,
                ..real()
            },
        ),
        (
            "no content type",
            Made {
                typed: false,
                ..real()
            },
        ),
        (
            "no signer",
            Made {
                signers: 0,
                ..real()
            },
        ),
        (
            "two signers",
            Made {
                signers: 2,
                ..real()
            },
        ),
        (
            "a tail",
            Made {
                tail: value(4, b"x"),
                ..real()
            },
        ),
        (
            "half a tail",
            Made {
                tail: vec![4, 9],
                ..real()
            },
        ),
    ];
    for (what, made) in forms {
        let read = of(&made);
        assert!(matches!(read, Err(Error::Form(_))), "{what}: {read:?}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let [ours, _] = signers();
    let read = |text: &str| content(text, &ours.certificate);
    assert!(matches!(read("not base64!"), Err(Error::Base64)));
    assert!(matches!(read(""), Err(Error::Form(_))));
    let long = "A".repeat(MAX_MESSAGE_BYTES + 1);
    assert!(matches!(read(&long), Err(Error::TooLarge(_))));
    // As deep as it fits: nothing that is read follows it down.
    let deep = lines(&[0x24, 0x80].repeat(MAX_MESSAGE_BYTES / 3));
    assert!(matches!(read(&deep), Err(Error::Form(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever becomes of one byte: what comes out is what was signed, or nothing.
    #[test]
    fn a_changed_message_says_the_same_or_nothing(at: prop::sample::Index, to: u8, der: bool) {
        let [ours, _] = signers();
        let mut bytes = ours.bytes(&Made { der, pieces: 2, ..Made::real(DOCUMENT) });
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(read) = content(&lines(&bytes), &ours.certificate) {
            prop_assert_eq!(read, DOCUMENT.as_bytes());
        }
    }

    #[test]
    fn a_message_that_is_cut_off_says_nothing(at: prop::sample::Index, der: bool) {
        let [ours, _] = signers();
        let bytes = ours.bytes(&Made { der, ..Made::real(DOCUMENT) });
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(content(&lines(cut), &ours.certificate).is_err());
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let [ours, _] = signers();
        prop_assert!(content(&lines(&bytes), &ours.certificate).is_err());
    }

    #[test]
    fn the_set_has_the_length_of_its_content(length in 0usize..60_000) {
        let set = as_set(&value(4, &vec![7; length]));
        let read = Mode::Der.decode(set.as_slice(), |cons| {
            let inner = cons.take_set(OctetString::take_from)?;
            Ok(inner.len())
        });
        prop_assert_eq!(read.expect("is DER"), length);
        let first = Mode::Der.decode(set.as_slice(), |cons| cons.capture_one());
        prop_assert_eq!(first.expect("is DER").len(), set.len());
    }
}

/// AWS's certificates and real documents, which are not part of this repository.
fn published() -> Option<PathBuf> {
    let dir = std::env::var_os("AOT_TEST_AWS_IID").map(PathBuf::from);
    if dir.is_none() {
        eprintln!(
            "SKIPPED: 1 test of AWS's own documents: AOT_TEST_AWS_IID names no folder of them"
        );
    }
    dir
}

#[test]
fn aws_own_documents_are_read_with_the_certificate_of_their_region_alone() {
    let Some(dir) = published() else { return };
    let file = |name: &str| std::fs::read(dir.join(name)).expect("is there");
    let mut certificates = Vec::new();
    for entry in std::fs::read_dir(dir.join("rsa2048")).expect("is there") {
        let path = entry.expect("reads").path();
        let region = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a region");
        let pem = std::fs::read(&path).expect("reads");
        let read = Certificate::from_pem(region, &pem, SystemTime::now());
        certificates.push(read.unwrap_or_else(|why| panic!("{region}: {why}")));
    }
    assert!(
        certificates.len() >= 39,
        "{} certificates",
        certificates.len()
    );
    for region in ["us-west-1", "us-west-2"] {
        let name = format!("samples/teleport-2021-{region}");
        let signed = String::from_utf8(file(&format!("{name}.rsa2048"))).expect("base64");
        let document = file(&format!("{name}.document"));
        let mut good = 0;
        for certificate in &certificates {
            match content(&signed, certificate) {
                Ok(read) => {
                    assert_eq!(certificate.region(), region);
                    assert_eq!(read, document);
                    let read = crate::enrol::attest::document::read(&read).expect("a document");
                    assert_eq!(read.region, region);
                    good += 1;
                }
                Err(Error::OtherSigner(_)) => assert_ne!(certificate.region(), region),
                Err(other) => panic!("{region} with {}: {other}", certificate.region()),
            }
        }
        assert_eq!(good, 1);
    }
    // The older kind, DSA with SHA-1, is not taken.
    let old = String::from_utf8(file("samples/smallstep-2016-us-east-1.pkcs7")).expect("base64");
    assert!(content(&old, &certificates[0]).is_err());
}
