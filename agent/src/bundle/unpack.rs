//! A bundle's tar, plain or compressed, into its folder. What may be in it is decided by `aot_archive`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aot_archive::{Folder, Limits, NoScript, Unreadable};

/// A bundle that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The disk, or a stream that can't be read.
    #[error("cannot read the bundle or make its folder")]
    Io(#[from] io::Error),
    /// How it is packed.
    #[error(transparent)]
    Packed(#[from] Unreadable),
    /// What is in it.
    #[error(transparent)]
    Archive(#[from] aot_archive::Error),
    /// What was there before can't be replaced.
    #[error(transparent)]
    Old(#[from] aot_host::removal::Error),
    #[error(transparent)]
    NoScript(#[from] NoScript),
    #[error(transparent)]
    Template(#[from] super::templates::Error),
}

/// What a bundle has become, by paths inside its folder.
pub(crate) struct BundleTree {
    /// Where `bootstrap.sh` is: at the top, or in the only folder there.
    pub script_folder: PathBuf,
    /// Files that are to be rendered.
    pub templates: Vec<PathBuf>,
}

/// Unpacks a tar (plain, gzip or zstd, by its first bytes) into the empty `folder`.
///
/// # Errors
/// At the first entry that is refused or can't be written, and when there is no script; what was unpacked before it stays
/// in the folder.
pub(crate) fn unpack(
    packed: impl Read,
    folder: &Path,
    limits: Limits,
) -> Result<BundleTree, Error> {
    let stream = aot_archive::decompress(packed)?;
    let (tree, _) = aot_archive::unpack_bundle(stream, &Folder::open(folder)?, limits)?;
    Ok(BundleTree {
        script_folder: tree.script_folder()?,
        templates: tree.templates(),
    })
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
    fn every_format_is_recognised_by_its_first_bytes() {
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
            Err(Error::Archive(aot_archive::Error::Refused { .. }))
        ));
    }
}
