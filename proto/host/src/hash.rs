//! SHA-256 as hex: names of contents. Pure.

use aws_lc_rs::digest::{SHA256, digest};

/// Two lower-case hex digits per byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of these bytes, as 64 lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Whether the text is a SHA-256 in lower-case hex: nothing else is ever part of a path.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    text.len() == 64 && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_standard_one_and_is_one() {
        // FIPS 180-4, the example "abc".
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), abc);
        assert!(is_sha256(abc));
        for other in ["", &abc[1..], &abc.to_uppercase(), &abc.replace('b', "/")] {
            assert!(!is_sha256(other), "{other}");
        }
    }
}
