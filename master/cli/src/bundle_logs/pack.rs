//! Parts as one file: a tar, packed by gzip, that only its owner reads.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Folder in which all parts lie.
const FOLDER: &str = "aot-report";

/// One file of it.
pub(super) struct ReportPart {
    /// Its name.
    pub name: String,
    bytes: Vec<u8>,
}

impl ReportPart {
    /// With these bytes.
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
        }
    }
}

/// All of them as a `.tar.gz`.
///
/// # Errors
/// None that memory has.
pub(super) fn packed(parts: &[ReportPart]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let now = aot_host::clock::unix_ms() / 1000;
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        tar.append_data(&mut header, format!("{FOLDER}/{}", part.name), &*part.bytes)?;
    }
    tar.into_inner()?.finish()
}

/// Writes a file that is not there yet, for its owner alone.
///
/// # Errors
/// As open(2) and write(2).
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = file?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn parts_are_packed_for_their_owner_and_over_nothing() {
        let parts = [
            ReportPart::new("a.txt", b"one".to_vec()),
            ReportPart::new("b", vec![b'x'; 100_000]),
        ];
        let bytes = packed(&parts).expect("packs");
        assert!(bytes.len() < 2_000, "it is not compressed: {}", bytes.len());
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("r.tar.gz");
        write_new(&path, &bytes).expect("writes");
        assert_eq!(path.metadata().expect("is there").mode() & 0o777, 0o600);
        let again = write_new(&path, b"").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let file = std::fs::File::open(&path).expect("reads");
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let read = tar.entries().expect("a tar").map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (
                entry.path().expect("a name").display().to_string(),
                text.len(),
            )
        });
        let wanted = [
            ("aot-report/a.txt".to_owned(), 3),
            ("aot-report/b".to_owned(), 100_000),
        ];
        assert_eq!(read.collect::<Vec<_>>(), wanted);
    }
}
