//! SHA-256 and HMAC as hex: for content addresses, tokens and keys.

use aws_lc_rs::{digest, hmac};

pub use aot_host::hash::{hex, sha256_hex};

/// The first 64 bits of the SHA-256: enough to distinguish a few texts.
pub fn digest_prefix(text: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

/// Derives join tokens from the master's join key: the same batch gets the same token again after a restart, and only
/// its hash is ever stored.
#[derive(Clone)]
pub struct JoinKey(hmac::Key);

impl JoinKey {
    /// From 32 secret bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Join token of the batch with this client token, hex.
    pub fn token(&self, client_token: &str) -> String {
        hex(hmac::sign(&self.0, client_token.as_bytes()).as_ref())
    }

    /// Value of the challenge `id` of a machine: the id, a dot, and what only the master can know beforehand. A client token
    /// never has this form, so a join token is never a challenge's value.
    pub fn challenge(&self, machine: &str, id: &str) -> String {
        let secret = hmac::sign(&self.0, format!("challenge\n{machine}\n{id}").as_bytes());
        format!("{id}.{}", hex(secret.as_ref()))
    }

    /// A key for another purpose: neither a client token nor a challenge has this form.
    pub fn of_purpose(&self, purpose: &str) -> PurposeKey {
        let secret = hmac::sign(&self.0, format!("purpose\n{purpose}").as_bytes());
        PurposeKey(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()))
    }
}

/// A secret of one purpose, which all who have the join key derive.
#[derive(Clone)]
pub struct PurposeKey(hmac::Key);

impl PurposeKey {
    /// HMAC-SHA256 of the data.
    pub fn sign(&self, data: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.0, data).as_ref());
        tag
    }

    /// Whether the data was signed by someone who has the key, in a time that does not reveal where a tag differs.
    pub fn has_signed(&self, data: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, data, tag).is_ok()
    }
}

/// Whether two texts are the same, in a time that does not reveal where they differ.
pub(crate) fn same_secret(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_standard_ones() {
        // FIPS 180-4, the example "abc".
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn tokens_differ_by_batch_and_by_key() {
        let (a, b) = (JoinKey::new(&[1; 32]), JoinKey::new(&[2; 32]));
        assert_eq!(a.token("x"), a.token("x"));
        assert_ne!(a.token("x"), a.token("y"));
        assert_ne!(a.token("x"), b.token("x"));
    }

    #[test]
    fn keys_differ_by_purpose_and_by_join_key() {
        let key = |secret: u8, purpose| JoinKey::new(&[secret; 32]).of_purpose(purpose);
        let tag = key(1, "a").sign(b"data");
        assert!(key(1, "a").has_signed(b"data", &tag));
        assert!(!key(1, "a").has_signed(b"date", &tag));
        assert!(!key(1, "a").has_signed(b"data", &tag[..31]));
        assert!(!key(1, "b").has_signed(b"data", &tag));
        assert!(!key(2, "a").has_signed(b"data", &tag));
    }

    #[test]
    fn a_challenge_is_of_one_machine_and_one_time() {
        let key = JoinKey::new(&[1; 32]);
        let value = key.challenge("i-1", "c1");
        assert!(value.starts_with("c1.") && value.len() == 3 + 64, "{value}");
        assert_eq!(value, key.challenge("i-1", "c1"));
        let others = [
            key.challenge("i-2", "c1"),
            key.challenge("i-1", "c2"),
            JoinKey::new(&[2; 32]).challenge("i-1", "c1"),
        ];
        for other in others {
            assert!(!same_secret(&value, &other));
        }
        assert!(same_secret(&value, &value.clone()));
        assert!(!same_secret(&value, &value[..10]) && !same_secret(&value, ""));
    }
}
