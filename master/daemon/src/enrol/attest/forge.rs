//! Signs identity documents as AWS does, with keys made here, for tests: in BER with indefinite lengths and a constructed
//! octet string, or in DER; right, or wrong in a chosen way.

use std::sync::OnceLock;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{digest, rsa, signature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificates::Certificate;

/// A document as the metadata service writes it: blanks around colons, no line end.
pub const DOCUMENT: &str = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "eu-west-1a",
  "billingProducts" : null,
  "imageId" : "ami-0fa9e1f64142cde17",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "t2.medium",
  "pendingTime" : "2021-09-03T21:25:44Z",
  "privateIp" : "10.0.0.209",
  "ramdiskId" : null,
  "region" : "eu-west-1",
  "version" : "2017-09-30"
}"#;

/// What stands in for AWS in one region.
pub struct Signer {
    key: KeyPair,
    /// Its certificate.
    pub pem: String,
    /// The certificate as the master reads it.
    pub certificate: Certificate,
}

/// Two of them, as a key takes long to make: one of eu-west-1, one of eu-west-2.
pub fn signers() -> &'static [Signer; 2] {
    static MADE: OnceLock<[Signer; 2]> = OnceLock::new();
    MADE.get_or_init(|| ["eu-west-1", "eu-west-2"].map(Signer::new))
}

/// What a message says, and how it is written.
#[derive(Clone)]
pub struct Message {
    /// The document.
    pub content: Vec<u8>,
    /// What the attribute messageDigest covers, when it is not the content.
    pub digested: Option<Vec<u8>>,
    /// Lengths are definite, and the content is one octet string.
    pub der: bool,
    /// Pieces that a constructed octet string has.
    pub pieces: usize,
    /// The attributes are signed with the tag that they have in the message.
    pub wrong_tag: bool,
    /// The attribute messageDigest comes this often.
    pub digests: usize,
    /// The attribute contentType is there.
    pub typed: bool,
    /// There are signed attributes at all; else the signature is over the content.
    pub attributes: bool,
    /// So many signers.
    pub signers: usize,
    /// Put behind the message.
    pub tail: Vec<u8>,
}

impl Message {
    /// As AWS writes it.
    pub fn real(content: &str) -> Self {
        Self {
            content: content.as_bytes().to_vec(),
            digested: None,
            der: false,
            pieces: 1,
            wrong_tag: false,
            digests: 1,
            typed: true,
            attributes: true,
            signers: 1,
            tail: Vec::new(),
        }
    }
}

const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

/// A value with a definite length.
pub fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![tag];
    match content.len() {
        short @ 0..128 => all.push(short as u8),
        long @ 128..256 => all.extend([0x81, long as u8]),
        long => {
            all.push(0x82);
            all.extend((long as u16).to_be_bytes());
        }
    }
    all.extend_from_slice(content);
    all
}

/// A constructed value whose end is marked.
fn open(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], content, &[0, 0]].concat()
}

fn algorithm(oid: &[u8]) -> Vec<u8> {
    value(0x30, &[value(6, oid), value(5, &[])].concat())
}

fn attribute(oid: &[u8], content: &[u8]) -> Vec<u8> {
    value(0x30, &[value(6, oid), value(0x31, content)].concat())
}

impl Signer {
    fn new(region: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, region);
        params.not_after = rcgen::date_time_ymd(2195, 1, 17);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let certificate = Certificate::from_pem(region, pem.as_bytes(), SystemTime::now());
        Self {
            key,
            pem,
            certificate: certificate.expect("is good"),
        }
    }

    /// The document signed, as the metadata service gives it.
    pub fn sign(&self, document: &str) -> String {
        lines(&self.bytes(&Message::real(document)))
    }

    /// A message in bytes.
    pub fn bytes(&self, message: &Message) -> Vec<u8> {
        let cons = |tag, content: &[u8]| match message.der {
            true => value(tag, content),
            false => open(tag, content),
        };
        let string = match message.der {
            true => value(4, &message.content),
            false => {
                let size = message.content.len().div_ceil(message.pieces).max(1);
                let pieces = message.content.chunks(size).map(|piece| value(4, piece));
                open(0x24, &pieces.collect::<Vec<_>>().concat())
            }
        };
        let content = cons(0x30, &[value(6, DATA), cons(0xa0, &string)].concat());
        let signers = self.signer(message).repeat(message.signers);
        let data = [
            value(2, &[1]),
            value(0x31, &algorithm(SHA256)),
            content,
            value(0x31, &signers),
        ];
        let signed = cons(0xa0, &cons(0x30, &data.concat()));
        let whole = cons(0x30, &[value(6, SIGNED_DATA), signed].concat());
        [whole, message.tail.clone()].concat()
    }

    fn signer(&self, message: &Message) -> Vec<u8> {
        let digested = message.digested.as_ref().unwrap_or(&message.content);
        let digest = digest::digest(&digest::SHA256, digested);
        let digest = attribute(MESSAGE_DIGEST, &value(4, digest.as_ref()));
        let typed = attribute(CONTENT_TYPE, &value(6, DATA)).repeat(usize::from(message.typed));
        let time = attribute(SIGNING_TIME, &value(0x17, b"210903212547Z"));
        let attributes = [typed, time, digest.repeat(message.digests)].concat();
        let tag = if message.wrong_tag { 0xa0 } else { 0x31 };
        let signature = match message.attributes {
            true => self.raw(&value(tag, &attributes)),
            false => self.raw(&message.content),
        };
        let own = value(0xa0, &attributes).repeat(usize::from(message.attributes));
        let pem = rustls_pki_types::pem::PemObject::from_pem_slice(self.pem.as_bytes());
        let der: rustls_pki_types::CertificateDer<'_> = pem.expect("its own");
        let (_, parsed) = X509Certificate::from_der(&der).expect("its own");
        let id = [
            parsed.issuer().as_raw().to_vec(),
            value(2, parsed.raw_serial()),
        ];
        let parts = [
            value(2, &[1]),
            value(0x30, &id.concat()),
            algorithm(SHA256),
            own,
            algorithm(RSA_SHA256),
            value(4, &signature),
        ];
        value(0x30, &parts.concat())
    }

    fn raw(&self, signed: &[u8]) -> Vec<u8> {
        let key = rsa::KeyPair::from_pkcs8(self.key.serialized_der()).expect("a key");
        let mut made = vec![0; key.public_modulus_len()];
        key.sign(
            &signature::RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed,
            &mut made,
        )
        .expect("signs");
        made
    }
}

/// Base64 in lines, without a header.
pub fn lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes).into_bytes();
    let lines = text
        .chunks(76)
        .map(|line| String::from_utf8_lossy(line).into_owned());
    lines.collect::<Vec<_>>().join("\n")
}
