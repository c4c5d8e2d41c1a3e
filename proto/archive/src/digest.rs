//! SHA-256 of what passes by.

use std::fs::File;
use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 (FIPS 180-4) of bytes that come in pieces.
#[derive(Clone)]
pub struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digest {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a file, from where it stands to its end; the result is how many bytes that was.
    ///
    /// # Errors
    /// As read(2).
    pub fn update_from_file(&mut self, file: &mut File) -> io::Result<u64> {
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(len) => {
                    self.update(&buffer[..len]);
                    bytes += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Of a file, from where it stands to its end.
    ///
    /// # Errors
    /// As read(2).
    pub fn of_file(file: &mut File) -> io::Result<String> {
        let mut digest = Self::default();
        digest.update_from_file(file)?;
        Ok(digest.hex())
    }

    /// Of all pieces, as 64 lower-case hex digits.
    pub fn hex(self) -> String {
        aot_host::hash::hex(self.0.finish().as_ref())
    }
}

/// A writer that computes the digest of what it passes on.
pub struct Digesting<W> {
    out: W,
    digest: Digest,
}

impl<W: Write> Digesting<W> {
    /// Passes everything on to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            digest: Digest::default(),
        }
    }

    /// The writer, and the digest of all that it passed on.
    pub fn finish(self) -> (W, String) {
        (self.out, self.digest.hex())
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.digest.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_was_passed_on() {
        let mut out = Digesting::new(Vec::new());
        out.write_all(b"a").unwrap();
        out.write_all(b"bc").unwrap();
        let (bytes, hex) = out.finish();
        assert_eq!(bytes, b"abc");
        // FIPS 180-2, appendix B.1
        assert_eq!(
            hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
