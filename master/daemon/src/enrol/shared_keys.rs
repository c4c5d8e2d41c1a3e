//! The keys of a master that others are to take the place of: its CA and the one behind join tokens. They lie sealed beside the
//! records, and in each master's folder as it uses them.

use std::path::{Path, PathBuf};

use aot_host::files::{read_optional, write_atomic};
use aot_store::SharedSecrets;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ca::{self, Ca};
use super::fleet_seal::{FleetSeal, SealError};
use super::{CA_FILES, JOIN_KEY_FILE, join_key};

/// Why the masters of a fleet do not have the same keys.
#[derive(Debug, thiserror::Error)]
pub enum SharedKeysError {
    /// The store.
    #[error(transparent)]
    Store(#[from] aot_store::Error),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// A file.
    #[error("cannot keep the fleet's keys in {}", path.display())]
    Io {
        /// State folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// They can't be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What was opened is not what masters keep.
    #[error(
        "the keys in the database are not those of a master: it was written by another program"
    )]
    Unknown,
    /// Sealed, and there is no key.
    #[error(
        "the keys of this database's masters are in it, sealed: name the fleet's key in AOT_FLEET_KEY"
    )]
    NoKey,
    /// There is nothing to seal anew.
    #[error("the database has no keys of masters yet: `aot-master fleet init` makes them")]
    NoKeys,
    /// Somebody else was a moment earlier.
    #[error(
        "the keys in the database were sealed anew by somebody else meanwhile: look at them and try again"
    )]
    Changed,
    /// A folder without keys.
    #[error(
        "{} has not all keys of a master (ca.key, ca.pem, join.key): its machines would trust no other", .0.display()
    )]
    Incomplete(PathBuf),
    /// The fleet has others than a folder whose records are to be brought.
    #[error(
        "{} has other keys than the fleet of this database, and its machines trust no others: import it into a database of its own, without `fleet init` before", .0.display()
    )]
    OtherFleet(PathBuf),
    /// The folder was a master of its own.
    #[error(
        "{} has other keys than the fleet of this database: name another state folder (--state-dir); machines that trust this one's keys do not trust the fleet's", .0.display()
    )]
    OtherKeys(PathBuf),
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Keys {
    ca_key: String,
    ca: String,
    /// Base64.
    join_key: String,
}

impl Keys {
    /// Those of a folder; `None` when it has not all of them.
    fn of(dir: &Path) -> std::io::Result<Option<Self>> {
        let read = |name: &str| read_optional(&dir.join(name));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let [key, pem] = CA_FILES;
        Ok(match (read(key)?, read(pem)?, read(JOIN_KEY_FILE)?) {
            (Some(ca_key), Some(ca), Some(join_key)) => Some(Self {
                ca_key: text(ca_key),
                ca: text(ca),
                join_key: STANDARD.encode(join_key),
            }),
            _ => None,
        })
    }

    async fn sealed(&self, key: &FleetSeal) -> Result<Vec<u8>, SealError> {
        let keys = serde_json::to_vec(self).expect("they are text");
        // Says whose they are without saying anything of them.
        let purpose = aot_host::hash::sha256_hex(self.ca.as_bytes());
        key.seal(&keys, &purpose).await
    }

    async fn opened(sealed: &[u8], key: &FleetSeal) -> Result<Self, SharedKeysError> {
        let keys = key.open(sealed).await?;
        serde_json::from_slice(&keys).map_err(|_| SharedKeysError::Unknown)
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        let join_key = STANDARD.decode(&self.join_key);
        let join_key = join_key.map_err(std::io::Error::other)?;
        let [key, pem] = CA_FILES;
        // The CA's certificate last: a folder that was not finished has not all of them, and is written again.
        write_atomic(&dir.join(JOIN_KEY_FILE), &join_key, 0o600)?;
        write_atomic(&dir.join(key), self.ca_key.as_bytes(), 0o600)?;
        write_atomic(&dir.join(pem), self.ca.as_bytes(), 0o600)
    }
}

/// Sees to it that this folder has the keys of all masters of its store; the first one brings its own.
///
/// # Errors
/// When it has others, or the key that they are sealed with is another.
pub(crate) async fn agree(
    dir: &Path,
    shared: &dyn SharedSecrets,
    key: Option<&FleetSeal>,
) -> Result<(), SharedKeysError> {
    let sealed = shared.read().await?;
    let Some(key) = key else {
        return match sealed {
            Some(_) => Err(SharedKeysError::NoKey),
            None => Ok(()), // one master, with its folder
        };
    };
    let io = |source| SharedKeysError::Io {
        path: dir.to_owned(),
        source,
    };
    let own = Keys::of(dir).map_err(io)?;
    let sealed = match sealed {
        Some(sealed) => sealed,
        None => {
            let first = match &own {
                Some(_) => None,
                None => Some(made(dir)?),
            };
            let first = own.as_ref().or(first.as_ref()).expect("one of both");
            shared.keep(first.sealed(key).await?).await?
        }
    };
    let keys = Keys::opened(&sealed, key).await?;
    match own {
        Some(own) if own == keys => Ok(()),
        Some(_) => Err(SharedKeysError::OtherKeys(dir.to_owned())),
        None => keys.write(dir).map_err(io),
    }
}

/// Sees to it that there are keys for the masters of a store, before the first of them; whether they were made now. What they are
/// made from lies in `scratch` meanwhile.
///
/// # Errors
/// When there are some that were sealed with another key, or none can be made.
pub async fn init(
    scratch: &Path,
    shared: &dyn SharedSecrets,
    key: &FleetSeal,
) -> Result<bool, SharedKeysError> {
    if let Some(sealed) = shared.read().await? {
        return Keys::opened(&sealed, key).await.map(|_| false);
    }
    let made = made(scratch)?;
    let kept = shared.keep(made.sealed(key).await?).await?;
    Ok(Keys::opened(&kept, key).await? == made) // or those of whoever was a moment earlier
}

/// Makes the keys of a folder those of the masters of a store, where they have none; whether that was done now.
///
/// # Errors
/// When they have others, the folder has none, or they were sealed with another key.
pub async fn bring(
    dir: &Path,
    shared: &dyn SharedSecrets,
    key: &FleetSeal,
) -> Result<bool, SharedKeysError> {
    let own = Keys::of(dir).map_err(|source| SharedKeysError::Io {
        path: dir.to_owned(),
        source,
    })?;
    let own = own.ok_or_else(|| SharedKeysError::Incomplete(dir.to_owned()))?;
    let (sealed, is_new) = match shared.read().await? {
        Some(sealed) => (sealed, false),
        None => (shared.keep(own.sealed(key).await?).await?, true),
    };
    match Keys::opened(&sealed, key).await? == own {
        true => Ok(is_new),
        false => Err(SharedKeysError::OtherFleet(dir.to_owned())),
    }
}

/// Seals the keys of the masters of a store with another key; false when they are sealed with it already. Masters that run have
/// opened them, and continue.
///
/// # Errors
/// When neither opens them, there are none, or they were changed meanwhile.
pub async fn rekey(
    shared: &dyn SharedSecrets,
    old: &FleetSeal,
    new: &FleetSeal,
) -> Result<bool, SharedKeysError> {
    let sealed = shared.read().await?.ok_or(SharedKeysError::NoKeys)?;
    let keys = match Keys::opened(&sealed, old).await {
        Ok(keys) => keys,
        Err(error) => {
            let is_done = Keys::opened(&sealed, new).await.is_ok();
            return is_done.then_some(false).ok_or(error);
        }
    };
    let anew = keys.sealed(new).await?;
    // Before the old ones are gone.
    if Keys::opened(&anew, new).await? != keys {
        return Err(SharedKeysError::Unknown);
    }
    match shared.replace(sealed, anew).await? {
        true => Ok(true),
        false => Err(SharedKeysError::Changed),
    }
}

/// New ones, in no folder yet.
fn made(dir: &Path) -> Result<Keys, SharedKeysError> {
    let io = |source| SharedKeysError::Io {
        path: dir.to_owned(),
        source,
    };
    let making = tempfile::tempdir_in(dir).map_err(io)?;
    Ca::open(making.path())?;
    join_key(making.path()).map_err(io)?;
    let made = Keys::of(making.path()).map_err(io)?;
    made.ok_or_else(|| io(std::io::Error::other("they were not made")))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aot_store::Pending;

    use super::super::fleet_key::FleetKey;
    use super::super::fleet_seal::fake::FakeService;
    use super::*;

    /// What a database has.
    #[derive(Default)]
    struct Kept(Mutex<Option<Vec<u8>>>);

    impl SharedSecrets for Kept {
        fn read(&self) -> Pending<'_, Result<Option<Vec<u8>>, aot_store::Error>> {
            let kept = self.0.lock().expect("not poisoned").clone();
            Box::pin(async { Ok(kept) })
        }

        fn keep(&self, sealed: Vec<u8>) -> Pending<'_, Result<Vec<u8>, aot_store::Error>> {
            let kept = self
                .0
                .lock()
                .expect("not poisoned")
                .get_or_insert(sealed)
                .clone();
            Box::pin(async { Ok(kept) })
        }

        fn replace(
            &self,
            was: Vec<u8>,
            sealed: Vec<u8>,
        ) -> Pending<'_, Result<bool, aot_store::Error>> {
            let mut kept = self.0.lock().expect("not poisoned");
            let is_it = *kept == Some(was);
            if is_it {
                *kept = Some(sealed);
            }
            Box::pin(async move { Ok(is_it) })
        }
    }

    fn key(byte: u8) -> FleetSeal {
        let key = FleetKey::of(&[byte; 32]).expect("a key");
        FleetSeal::File(Arc::new(key))
    }

    fn service(byte: u8) -> FleetSeal {
        FleetSeal::Service(Arc::new(FakeService(byte)))
    }

    fn ca_of(dir: &Path) -> String {
        Ca::open(dir).expect("opens").id().to_owned()
    }

    #[tokio::test]
    async fn all_masters_of_a_store_have_the_keys_of_the_first() {
        let (kept, key) = (Kept::default(), key(7));
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let first = ca_of(folders[0].path()); // a master of before
        join_key(folders[0].path()).expect("makes it");
        for folder in &folders {
            for _ in 0..2 {
                let agreed = agree(folder.path(), &kept, Some(&key)).await;
                agreed.expect("has the same");
                assert_eq!(ca_of(folder.path()), first);
            }
        }
        let of = |folder: &tempfile::TempDir| Keys::of(folder.path()).expect("reads");
        assert!(of(&folders[1]) == of(&folders[0]) && of(&folders[2]) == of(&folders[0]));
        let sealed = kept.0.lock().expect("not poisoned").clone();
        let sealed = String::from_utf8_lossy(&sealed.expect("kept")).into_owned();
        assert!(!sealed.contains("PRIVATE KEY"));
    }

    #[tokio::test]
    async fn keys_are_made_once_and_the_first_master_has_them() {
        let (kept, key) = (Kept::default(), self::key(7));
        let [scratch, folder] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let made = || init(scratch.path(), &kept, &key);
        assert!(made().await.expect("makes"));
        let sealed = kept.0.lock().expect("not poisoned").clone();
        assert!(!made().await.expect("there are some"));
        let wrong = init(scratch.path(), &kept, &self::key(8)).await;
        assert!(matches!(
            wrong,
            Err(SharedKeysError::Seal(SealError::WrongKey))
        ));
        assert_eq!(*kept.0.lock().expect("not poisoned"), sealed);
        let left = std::fs::read_dir(scratch.path()).expect("reads").count();
        assert_eq!(left, 0, "nothing of them stays there");
        agree(folder.path(), &kept, Some(&key))
            .await
            .expect("has them");
        // A folder whose machines trust other keys is not of this fleet.
        let other = tempfile::tempdir().expect("a folder");
        let none = bring(other.path(), &kept, &key).await;
        assert!(matches!(none, Err(SharedKeysError::Incomplete(_))));
        ca_of(other.path());
        join_key(other.path()).expect("makes it");
        let refused = bring(other.path(), &kept, &key).await;
        assert!(matches!(refused, Err(SharedKeysError::OtherFleet(_))));
        assert_eq!(*kept.0.lock().expect("not poisoned"), sealed);
        let empty = Kept::default();
        assert!(bring(other.path(), &empty, &key).await.expect("brings"));
        assert!(!bring(other.path(), &empty, &key).await.expect("the same"));
        let wrong = bring(other.path(), &empty, &self::key(8)).await;
        assert!(matches!(
            wrong,
            Err(SharedKeysError::Seal(SealError::WrongKey))
        ));
        let next = tempfile::tempdir().expect("a folder");
        agree(next.path(), &empty, Some(&key))
            .await
            .expect("has them");
        assert_eq!(ca_of(next.path()), ca_of(other.path()));
    }

    #[tokio::test]
    async fn a_folder_that_was_left_half_written_is_finished() {
        let (kept, key) = (Kept::default(), key(7));
        let [first, half] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        agree(first.path(), &kept, Some(&key)).await.expect("makes");
        let join_key = read_optional(&first.path().join(JOIN_KEY_FILE)).expect("reads");
        let path = half.path().join(JOIN_KEY_FILE);
        write_atomic(&path, &join_key.expect("is there"), 0o600).expect("writes");
        agree(half.path(), &kept, Some(&key)).await.expect("writes");
        assert_eq!(ca_of(half.path()), ca_of(first.path()));
    }

    #[tokio::test]
    async fn other_keys_are_never_replaced_and_the_way_out_is_said() {
        let kept = Kept::default();
        let [first, other, empty] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        // Without a key nothing is shared, and nothing made.
        agree(empty.path(), &kept, None).await.expect("as before");
        assert_eq!(std::fs::read_dir(empty.path()).expect("reads").count(), 0);
        agree(first.path(), &kept, Some(&key(7)))
            .await
            .expect("makes");
        let own = ca_of(other.path());
        join_key(other.path()).expect("makes it");
        for (refused, said) in [
            (
                agree(other.path(), &kept, Some(&key(7))).await,
                "has other keys",
            ),
            (
                agree(empty.path(), &kept, Some(&key(8))).await,
                "sealed with another key",
            ),
            (agree(empty.path(), &kept, None).await, "AOT_FLEET_KEY"),
        ] {
            let text = refused.expect_err("is refused").to_string();
            assert!(text.contains(said), "{text}");
        }
        assert_eq!(ca_of(other.path()), own);
        assert_eq!(std::fs::read_dir(empty.path()).expect("reads").count(), 0);
    }

    #[tokio::test]
    async fn keys_are_sealed_anew_and_stay_what_they_are() {
        let kept = Kept::default();
        let [first, next] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let none = rekey(&kept, &key(7), &service(1)).await;
        assert!(matches!(none, Err(SharedKeysError::NoKeys)));
        agree(first.path(), &kept, Some(&key(7)))
            .await
            .expect("makes");
        let wrong = rekey(&kept, &key(8), &service(1)).await;
        let text = wrong.expect_err("is refused").to_string();
        assert!(text.contains("sealed with another key"), "{text}");
        assert!(rekey(&kept, &key(7), &service(1)).await.expect("seals"));
        assert!(!rekey(&kept, &key(7), &service(1)).await.expect("is done"));
        let before = agree(first.path(), &kept, Some(&key(7))).await;
        let text = before.expect_err("is refused").to_string();
        assert!(text.contains("kms:alias/fake"), "{text}");
        for folder in [&first, &next] {
            let agreed = agree(folder.path(), &kept, Some(&service(1))).await;
            agreed.expect("has the same");
        }
        assert_eq!(ca_of(next.path()), ca_of(first.path()));
        // And back.
        assert!(rekey(&kept, &service(1), &key(9)).await.expect("seals"));
        agree(next.path(), &kept, Some(&key(9)))
            .await
            .expect("opens");
    }
}
