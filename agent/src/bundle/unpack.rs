//! A bundle's tar, plain or compressed, into its folder. What may be in it is decided by `aot_proto::archive`.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aot_proto::archive::{self, Folder, Limits, Rules};
use flate2::bufread::MultiGzDecoder;

/// A bundle that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or a stream that can't be read.
    #[error("cannot read the bundle or make its folder")]
    Io(#[from] io::Error),
    /// What is in it.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// No bootstrap.sh.
    #[error("no bootstrap.sh at the top or in the only folder there")]
    NoScript,
    /// More than one folder with a bootstrap.sh.
    #[error("several folders with a bootstrap.sh and none at the top: put one at the top")]
    ManyScripts,
}

/// Unpacks a tar (plain, gzip or zstd, told by its first bytes) into the empty `folder`.
///
/// # Errors
/// At the first entry that is refused or can't be written; what was unpacked before it stays in the folder.
pub fn unpack(packed: impl Read, folder: &Path, limits: Limits) -> Result<(), Error> {
    let mut packed = BufReader::with_capacity(64 << 10, packed);
    let stream: Box<dyn Read> = match packed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        _ => Box::new(packed),
    };
    let rules = Rules {
        limits,
        bundle: true,
        rename: None,
    };
    archive::unpack(stream, &Folder::open(folder)?, &rules)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    const LIMITS: Limits = Limits {
        bytes: 10_000,
        entries: 100,
    };

    fn plain() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o6755);
        tar.append_data(&mut header, "bootstrap.sh", &b"hello"[..])
            .unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "d/l", "../bootstrap.sh")
            .unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn every_format_is_told_by_its_first_bytes() {
        let plain = plain();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for packed in [
            gzip.finish().unwrap(),
            zstd::stream::encode_all(&plain[..], 1).unwrap(),
            plain,
        ] {
            let dir = tempfile::tempdir().unwrap();
            unpack(&packed[..], dir.path(), LIMITS).unwrap();
            assert_eq!(fs::read(dir.path().join("d/l")).unwrap(), b"hello");
            let mode = fs::metadata(dir.path().join("bootstrap.sh"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o755, "setuid is taken away");
            assert!(
                unpack(&packed[..packed.len() / 2], dir.path(), LIMITS).is_err(),
                "a stream that ends too early"
            );
        }
    }

    #[test]
    fn the_rules_are_those_of_bundles() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "l", "/etc/passwd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(&tar.into_inner().unwrap()[..], dir.path(), LIMITS);
        assert!(matches!(
            result,
            Err(Error::Archive(archive::Error::Refused { .. }))
        ));
    }
}
