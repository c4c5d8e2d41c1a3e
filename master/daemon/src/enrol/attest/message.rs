//! The signed message that EC2's metadata service gives at `instance-identity/rsa2048`: PKCS #7 signed data (RFC 2315, RFC
//! 5652) in BER with indefinite lengths, which holds the document but no certificate. Pure.
//!
//! What is read is what was signed: the content comes out only when the signer is the certificate that the caller trusts,
//! the signed attributes carry its signature, and they name the content's SHA-256.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcder::decode::{Constructed, ContentError, DecodeError, Source};
use bcder::{Captured, Integer, Mode, OctetString, Oid, Tag};

use super::certificates::Certificate;

/// Longest message, base64 and line ends included. Real ones have 1.5 KB. Nothing nests deeper than the structure that is
/// read here: what lies in it is compared as bytes or left out, never followed.
pub const MAX_MESSAGE_BYTES: usize = 8 << 10;

// Object identifiers, content octets (RFC 5652, RFC 8017, RFC 5754).
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

/// Why a message proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too long.
    #[error("the signed message has {0} bytes; at most {MAX_MESSAGE_BYTES} are read")]
    TooLarge(usize),
    /// Not base64.
    #[error("the signed message is not base64")]
    Base64,
    /// Not PKCS #7 signed data with one signer, SHA-256 and RSA.
    #[error("the signed message is not PKCS #7 data signed with RSA and SHA-256: {0}")]
    Form(String),
    /// By someone else: another region, or nobody that is known.
    #[error("it is not signed by the certificate of {0}")]
    OtherSigner(String),
    /// What was signed is not what is inside.
    #[error("its content is not what was signed")]
    OtherContent,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
}

/// The content of a message that `certificate` signed, byte for byte. `base64` as the metadata service gives it: lines
/// without a header.
///
/// # Errors
/// When it is malformed, or not signed by that certificate.
pub fn content(base64: &str, certificate: &Certificate) -> Result<Vec<u8>, Error> {
    if base64.len() > MAX_MESSAGE_BYTES {
        return Err(Error::TooLarge(base64.len()));
    }
    let compact: Vec<u8> = base64
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let bytes = STANDARD.decode(compact).map_err(|_| Error::Base64)?;
    let whole = Mode::Ber
        .decode(bytes.as_slice(), |cons| cons.capture_one())
        .map_err(|error| Error::Form(error.to_string()))?;
    if whole.len() != bytes.len() {
        return Err(Error::Form("something follows it".to_owned()));
    }
    let message = Mode::Ber
        .decode(bytes.as_slice(), read)
        .map_err(|error| Error::Form(error.to_string()))?;
    let signer = &message.signer;
    if signer.issuer.as_slice() != certificate.issuer()
        || signer.serial.as_slice() != certificate.serial()
    {
        return Err(Error::OtherSigner(certificate.region().to_owned()));
    }
    let content = message.content.to_bytes();
    if digest::digest(&digest::SHA256, &content).as_ref() != signer.digest.to_bytes().as_ref() {
        return Err(Error::OtherContent);
    }
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, certificate.public_key());
    key.verify(
        &as_set(signer.attributes.as_slice()),
        &signer.signature.to_bytes(),
    )
    .map_err(|_| Error::Signature)?;
    Ok(content.to_vec())
}

struct SignedMessage {
    content: OctetString,
    signer: SignerInfo,
}

struct SignerInfo {
    /// As encoded.
    issuer: Captured,
    serial: Integer,
    /// What is inside of the signed attributes, as encoded.
    attributes: Captured,
    /// The attribute messageDigest.
    digest: OctetString,
    signature: OctetString,
}

type Decoded<T, S> = Result<T, DecodeError<<S as Source>::Error>>;

fn bad<S: Source, T>(cons: &Constructed<S>, why: &'static str) -> Decoded<T, S> {
    Err(cons.content_err(ContentError::from(why)))
}

/// ContentInfo and SignedData.
fn read<S: Source>(cons: &mut Constructed<S>) -> Decoded<SignedMessage, S> {
    cons.take_sequence(|cons| {
        expect(cons, SIGNED_DATA, "it is not signed data")?;
        cons.take_constructed_if(Tag::CTX_0, |cons| cons.take_sequence(signed_data))
    })
}

fn signed_data<S: Source>(cons: &mut Constructed<S>) -> Decoded<SignedMessage, S> {
    cons.take_u8()?; // version: says which optional parts may follow
    cons.take_set(|cons| cons.skip_all())?; // digest algorithms: the signer names its own
    let content = cons.take_sequence(|cons| {
        expect(cons, DATA, "its content is not data")?;
        cons.take_constructed_if(Tag::CTX_0, OctetString::take_from)
    })?;
    // Certificates and revocation lists: nobody is asked who the sender says signed it.
    for tag in [Tag::CTX_0, Tag::CTX_1] {
        cons.take_opt_constructed_if(tag, |cons| cons.skip_all())?;
    }
    let signer = cons.take_set(|cons| cons.take_sequence(signer))?;
    Ok(SignedMessage { content, signer })
}

fn signer<S: Source>(cons: &mut Constructed<S>) -> Decoded<SignerInfo, S> {
    cons.take_u8()?;
    let (issuer, serial) =
        cons.take_sequence(|cons| Ok((cons.capture_one()?, Integer::take_from(cons)?)))?;
    algorithm(cons, &[SHA256])?;
    let attributes = cons.take_constructed_if(Tag::CTX_0, |cons| cons.capture_all())?;
    let digest = match digest_in(attributes.clone()) {
        Ok(digest) => digest,
        Err(_) => return bad(cons, "its signed attributes are not in order"),
    };
    algorithm(cons, &[RSA, RSA_SHA256])?;
    let signature = OctetString::take_from(cons)?;
    cons.take_opt_constructed_if(Tag::CTX_1, |cons| cons.skip_all())?; // unsigned attributes
    Ok(SignerInfo {
        issuer,
        serial,
        attributes,
        digest,
        signature,
    })
}

/// An AlgorithmIdentifier with one of these, and NULL or no parameters.
fn algorithm<S: Source>(cons: &mut Constructed<S>, known: &[&[u8]]) -> Decoded<(), S> {
    cons.take_sequence(|cons| {
        let oid = Oid::take_from(cons)?;
        cons.take_opt_null()?;
        match known.contains(&oid.0.as_ref()) {
            true => Ok(()),
            false => bad(cons, "it uses another algorithm"),
        }
    })
}

fn expect<S: Source>(
    cons: &mut Constructed<S>,
    wanted: &[u8],
    why: &'static str,
) -> Decoded<(), S> {
    match Oid::take_from(cons)?.0.as_ref() == wanted {
        true => Ok(()),
        false => bad(cons, why),
    }
}

/// The message digest among the signed attributes, which must also say that the content is data; each once.
fn digest_in(attributes: Captured) -> Result<OctetString, DecodeError<std::convert::Infallible>> {
    // DER, whatever the rest is in (RFC 5652, 5.3): otherwise what is hashed is not what is read.
    Mode::Der.decode(attributes.into_bytes(), |cons| {
        let (mut digest, mut is_data) = (None, false);
        while let Some(()) = cons.take_opt_sequence(|cons| {
            let oid = Oid::take_from(cons)?;
            cons.take_set(|cons| match oid.0.as_ref() {
                MESSAGE_DIGEST if digest.is_none() => {
                    digest = Some(OctetString::take_from(cons)?);
                    Ok(())
                }
                CONTENT_TYPE if !is_data => {
                    is_data = true;
                    expect(cons, DATA, "its content is not data")
                }
                MESSAGE_DIGEST | CONTENT_TYPE => bad(cons, "an attribute comes twice"),
                _ => cons.skip_all(),
            })
        })? {}
        match digest {
            Some(digest) if is_data => Ok(digest),
            _ => bad(cons, "an attribute is missing"),
        }
    })
}

/// What is signed is the SET of attributes, not the implicit tag that they have in the message (RFC 5652, 5.4).
fn as_set(attributes: &[u8]) -> Vec<u8> {
    let mut set = vec![0x31];
    let length = attributes.len().to_be_bytes();
    match attributes.len() {
        short @ 0..128 => set.push(short as u8),
        _ => {
            let first = length.iter().position(|byte| *byte != 0).unwrap_or(0);
            set.push(0x80 | (length.len() - first) as u8);
            set.extend_from_slice(&length[first..]);
        }
    }
    set.extend_from_slice(attributes);
    set
}

#[cfg(test)]
mod tests;
