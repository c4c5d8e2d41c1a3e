//! The key that the masters of a fleet share by hand: with it they seal what they share by their database.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a key (AES-256).
const BYTES: usize = 32;

/// What is sealed is only opened for the same purpose.
const PURPOSE: &[u8] = b"aot fleet secrets 1";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum FleetKeyError {
    /// The file.
    #[error("cannot read the fleet's key in {} (AOT_FLEET_KEY)", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A new one.
    #[error("cannot make the fleet's key in {} (AOT_FLEET_KEY)", path.display())]
    Make {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others can read it.
    #[error("others can read the fleet's key in {}: chmod 600 it", .0.display())]
    Open(PathBuf),
    /// It is none.
    #[error(
        "{} has no key: 32 bytes, or their base64, as `openssl rand -base64 32` makes it", .0.display()
    )]
    NoKey(PathBuf),
}

/// The key.
#[derive(Debug)]
pub struct FleetKey(RandomizedNonceKey);

impl FleetKey {
    /// From a file that nobody else can read.
    ///
    /// # Errors
    /// When it can't be read, others can, or it has no key.
    pub fn read(path: &Path) -> Result<Self, FleetKeyError> {
        let file = |source| FleetKeyError::File {
            path: path.to_owned(),
            source,
        };
        let mode = std::fs::metadata(path).map_err(file)?.mode();
        if mode & 0o077 != 0 {
            return Err(FleetKeyError::Open(path.to_owned()));
        }
        let bytes = std::fs::read(path).map_err(file)?;
        let key = match bytes.len() {
            BYTES => Some(bytes),
            _ => STANDARD.decode(bytes.trim_ascii()).ok(),
        };
        key.and_then(|key| Self::of(&key))
            .ok_or_else(|| FleetKeyError::NoKey(path.to_owned()))
    }

    /// Of these bytes; `None` unless they are as many as a key has.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes);
        key.ok().map(Self)
    }

    /// A new one, in a file that is not there yet.
    ///
    /// # Errors
    /// When there is a file, or it can't be written.
    pub fn create(path: &Path) -> Result<Self, FleetKeyError> {
        Self::written(path).map_err(|source| FleetKeyError::Make {
            path: path.to_owned(),
            source,
        })?;
        Self::read(path)
    }

    /// All of it or nothing, and never in the place of another.
    fn written(path: &Path) -> io::Result<()> {
        let mut key = [0; BYTES];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no random bytes"))?;
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let mut file = tempfile::NamedTempFile::new_in(dir)?; // mode 0600
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        aot_host::files::sync_dir(dir)
    }

    /// Nonce, then ciphertext and tag (NIST SP 800-38D).
    pub(crate) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.seal_for(PURPOSE, plain)
    }

    /// What was sealed with this key; `None` when it was another one, or was changed.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_for(PURPOSE, sealed)
    }

    /// [`FleetKey::seal`] for another purpose, which is to be said again to open it.
    pub(crate) fn seal_for(&self, purpose: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose), &mut text)
            .expect("AES-GCM takes more than memory has");
        [&nonce.as_ref()[..], &text].concat()
    }

    /// What was sealed with this key for this purpose.
    pub(crate) fn open_for(&self, purpose: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(aws_lc_rs::aead::NONCE_LEN)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::from(purpose), &mut text);
        plain.ok().map(|plain| plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_host::files::write_atomic;

    fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("fleet.key");
        write_atomic(&path, bytes, mode).expect("writes");
        (dir, path)
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_alone_and_as_it_was() {
        let raw = file(&[7; 32], 0o600);
        let text = file(format!("{}\n", STANDARD.encode([7; 32])).as_bytes(), 0o400);
        let other = file(&[8; 32], 0o600);
        let [raw, text, other] =
            [&raw.1, &text.1, &other.1].map(|path| FleetKey::read(path).expect("reads"));
        let sealed = raw.seal(b"secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(raw.seal(b"secret"), sealed, "each has its own nonce");
        assert_eq!(text.open(&sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(other.open(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(raw.open(&changed), None, "byte {at}");
        }
        assert_eq!(raw.open(b"short"), None);
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_never_replaces_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("fleet.key");
        let made = FleetKey::create(&path).expect("makes");
        let sealed = made.seal(b"secret");
        let text = std::fs::read(&path).expect("reads");
        assert_eq!(text.len(), BYTES);
        let mode = std::fs::metadata(&path).expect("is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = FleetKey::create(&path).expect_err("is refused");
        assert!(matches!(again, FleetKeyError::Make { .. }), "{again}");
        let read = FleetKey::read(&path).expect("reads");
        assert_eq!(read.open(&sealed).as_deref(), Some(&b"secret"[..]));
        let other = FleetKey::create(&dir.path().join("other.key")).expect("makes");
        assert_eq!(other.open(&sealed), None);
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 2);
    }

    #[test]
    fn a_key_that_is_none_or_that_others_can_read_is_refused_by_its_name() {
        let said = |bytes: &[u8], mode| {
            let (_dir, path) = file(bytes, mode);
            let error = FleetKey::read(&path).expect_err("is refused");
            (error.to_string(), path.display().to_string())
        };
        let (text, path) = said(&[7; 32], 0o640);
        assert!(text.contains(&path) && text.contains("chmod 600"), "{text}");
        for bytes in [&b""[..], &[7; 31], b"c2hvcnQ=\n"] {
            let (text, path) = said(bytes, 0o600);
            assert!(
                text.contains(&path) && text.contains("openssl rand"),
                "{text}"
            );
        }
        let missing = FleetKey::read(Path::new("/nonexistent/fleet.key"));
        assert!(matches!(missing, Err(FleetKeyError::File { .. })));
    }
}
