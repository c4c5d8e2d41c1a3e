//! The compressions that a bundle may have, recognised by its first bytes, as `tar -x` does.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// How the first bytes of other formats look.
const OTHERS: [(&[u8], &str); 8] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-zip"),
    (b"LZIP", "lzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"Rar!", "rar"),
    (b"\x1f\x9d", "compress"),
];

/// A stream that is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Its first bytes can't be read.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// Of a format that is not taken.
    #[error("it is packed with {0}, which is not supported: pack it plain, with gzip or with zstd")]
    Format(&'static str),
}

/// The plain bytes of a stream that is plain, gzip or zstd.
///
/// # Errors
/// When it is of another known format, or its first bytes can't be read.
pub fn decompress<'a>(packed: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Unreadable> {
    let mut packed = BufReader::with_capacity(64 << 10, packed);
    let start = packed.fill_buf()?;
    if let Some((_, format)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(Unreadable::Format(format));
    }
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(Gzip::new(packed)),
        // A frame, or one to be skipped in front of it, as pzstd writes (RFC 8878, 3.1.1 and 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)
        }
        _ => Box::new(packed),
    })
}

/// Member after member (RFC 1952, 2.2), and zeros behind the last, which gzip(1) passes over as well: tapes and some
/// programs fill up blocks with them.
struct Gzip<R> {
    /// `None` only while a member is changed for the next.
    member: Option<GzDecoder<R>>,
    ended: bool,
}

impl<R: BufRead> Gzip<R> {
    fn new(packed: R) -> Self {
        Self {
            member: Some(GzDecoder::new(packed)),
            ended: false,
        }
    }

    /// Whether another member follows.
    fn next(&mut self) -> io::Result<bool> {
        let Some(mut packed) = self.member.take().map(GzDecoder::into_inner) else {
            return Ok(false);
        };
        let mut zeros = false;
        loop {
            let start = packed.fill_buf()?;
            match start.first() {
                None => return Ok(false),
                Some(0) => {
                    zeros = true;
                    let len = start.iter().take_while(|byte| **byte == 0).count();
                    packed.consume(len);
                }
                Some(_) if zeros => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "something follows the zeros after its end",
                    ));
                }
                Some(_) => break,
            }
        }
        self.member = Some(GzDecoder::new(packed));
        Ok(true)
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = self.member.as_mut().filter(|_| !self.ended) {
            let len = member.read(buffer)?;
            if len > 0 {
                return Ok(len);
            }
            self.ended = !self.next()?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut stream = decompress(packed).map_err(io::Error::other)?;
        stream.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn what_gzip_and_zstd_read_is_read() {
        let (one, two) = (gzip(b"one "), gzip(b"two"));
        let zeros = vec![0; 100_000];
        let skipped = b"\x5a\x2a\x4d\x18\x04\0\0\0abcd";
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        for (packed, wanted) in [
            (one.clone(), "one "),
            ([&one[..], &two].concat(), "one two"),
            ([&one[..], &two, &zeros].concat(), "one two"),
            (
                [&skipped[..], &frame(b"one "), skipped, &frame(b"two")].concat(),
                "one two",
            ),
            (b"plain".to_vec(), "plain"),
            (Vec::new(), ""),
        ] {
            assert_eq!(read(&packed).unwrap(), wanted.as_bytes());
        }
    }

    #[test]
    fn what_is_damaged_or_of_another_format_is_refused() {
        let one = gzip(b"one ");
        let mut broken = one.clone();
        let sum = broken.len() - 6;
        broken[sum] ^= 1;
        for bad in [
            &one[..one.len() - 1],
            &broken,
            &[&one[..], b"garbage"].concat(),
            &[&one[..], &[0; 9], &one].concat(),
            &[&one[..], b"\x1f\x8b"].concat(),
            &zstd::encode_all(&b"text"[..], 1).unwrap()[..9],
            b"\xfd7zXZ\0...",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
