//! SHA-256 and HMAC as hex: for content addresses, tokens and keys.

use aws_lc_rs::{digest, hmac};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
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
}
