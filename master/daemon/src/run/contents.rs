//! Files that are named by their content: bundles, agents, uploads. A folder of this master has them, and, where masters have
//! a place for what is long, that has them too: another master brings what it lacks into its own folder when it is needed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aot_host::hash::is_sha256;
use aot_store::blobs::{self, BlobKey, BlobKind, Blobs};
use futures::future::BoxFuture;
use tokio::sync::Mutex;

/// The mode of an agent: the machines of this host run it from here.
const AGENT_MODE: u32 = 0o755;

/// All files of one kind.
pub(crate) struct Contents {
    kind: BlobKind,
    dir: Arc<Path>,
    blobs: Option<Arc<dyn Blobs>>,
    /// Held while one is fetched: a thousand machines may want it at once.
    fetching: Mutex<()>,
}

impl Contents {
    /// In `dir`, and in `blobs` where there is such a place.
    pub(crate) fn new(kind: BlobKind, dir: &Path, blobs: Option<Arc<dyn Blobs>>) -> Self {
        Self {
            kind,
            dir: dir.into(),
            blobs,
            fetching: Mutex::default(),
        }
    }

    /// This master's folder.
    pub(crate) fn dir(&self) -> &Arc<Path> {
        &self.dir
    }

    /// Where the file is, or would be. `None` when that is no SHA-256.
    pub(crate) fn path(&self, sha256: &str) -> Option<PathBuf> {
        is_sha256(sha256).then(|| self.dir.join(sha256))
    }

    /// The place for what is long, and the file's name there.
    fn elsewhere(&self, sha256: &str) -> Option<(&dyn Blobs, BlobKey)> {
        let key = BlobKey::content(self.kind, sha256)?;
        self.blobs.as_deref().map(|blobs| (blobs, key))
    }

    /// Has a file of this folder put where other masters find it, unless it is there and will stay until it is named.
    ///
    /// # Errors
    /// When the place can't be asked, or does not take it.
    pub(crate) async fn put(&self, sha256: &str) -> Result<(), blobs::Error> {
        let Some((blobs, key)) = self.elsewhere(sha256) else {
            return Ok(());
        };
        let found = blobs.find(&key).await?;
        if found.is_some_and(|blob| blob.age < blobs::UNNAMED / 2) {
            return Ok(());
        }
        blobs.put(&key, &self.dir.join(sha256)).await
    }

    /// Whether the file is in this folder, once it was fetched where it can be.
    ///
    /// # Errors
    /// When the place can't be asked, or the disk refuses.
    pub(crate) async fn bring(&self, sha256: &str) -> Result<bool, blobs::Error> {
        let Some(path) = self.path(sha256) else {
            return Ok(false);
        };
        if path.is_file() {
            return Ok(true);
        }
        let Some((blobs, key)) = self.elsewhere(sha256) else {
            return Ok(false);
        };
        let _turn = self.fetching.lock().await;
        if path.is_file() {
            return Ok(true);
        }
        let mode = (self.kind == BlobKind::Agents).then_some(AGENT_MODE);
        let fetched = blobs::fetch(blobs, &key, &path, mode).await?;
        if fetched {
            tracing::info!(object = %key, place = blobs.place(), "fetched what another master has put");
        }
        Ok(fetched)
    }

    /// Puts what is named, is here and is not there; removes what has been there for a while and nothing names, for as long as
    /// this master may.
    ///
    /// # Errors
    /// When the place can't be asked, or refuses; why it can't be known what is named.
    pub(crate) async fn tidy<'a, E: From<blobs::Error>>(
        &self,
        named: impl Fn() -> BoxFuture<'a, Result<HashSet<String>, E>> + Sync,
        may_remove: impl Fn() -> bool + Sync,
    ) -> Result<(), E> {
        let Some(blobs) = &self.blobs else {
            return Ok(());
        };
        let listed = blobs.list(self.kind).await?.into_iter();
        let there: HashMap<String, BlobKey> = listed
            .filter_map(|blob| Some((blob.key.sha256()?.to_owned(), blob.key)))
            .collect();
        let lacking = named().await?.into_iter();
        for sha256 in lacking.filter(|named| !there.contains_key(named)) {
            let sha256 = &sha256;
            if self.path(sha256).is_some_and(|path| path.is_file()) {
                self.put(sha256).await?;
            }
        }
        let named = named().await?;
        let unnamed = there
            .into_iter()
            .filter(|(sha256, _)| !named.contains(sha256));
        for (_, key) in unnamed {
            // It may have been put again since: for whom it is about to be named.
            let found = blobs.find(&key).await?;
            if found.is_some_and(|blob| blob.age > blobs::UNNAMED) && may_remove() {
                blobs.delete(&key).await?;
                tracing::info!(object = %key, "removed what nothing names");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_host::hash::sha256_hex;
    use aot_store::blobs::BlobFolder;
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;
    use tempfile::TempDir;

    /// Masters with a folder each, and a place that they share.
    struct Rig {
        dir: TempDir,
        blobs: Arc<dyn Blobs>,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let blobs = Arc::new(BlobFolder::new(&dir.path().join("blobs")));
            Self { dir, blobs }
        }

        fn master(&self, name: &str) -> Contents {
            let dir = self.dir.path().join(name);
            fs::create_dir(&dir).expect("makes");
            Contents::new(BlobKind::Agents, &dir, Some(self.blobs.clone()))
        }

        /// Makes what is there so much older.
        fn age(&self, sha256: &str, by: std::time::Duration) {
            let path = self.dir.path().join("blobs/agents").join(sha256);
            let file = File::open(path).expect("is there");
            file.set_modified(SystemTime::now() - by).expect("sets");
        }

        async fn is_there(&self, sha256: &str) -> bool {
            let key = BlobKey::content(BlobKind::Agents, sha256).expect("a digest");
            self.blobs.find(&key).await.expect("looks").is_some()
        }
    }

    fn write(contents: &Contents, text: &str) -> String {
        let sha256 = sha256_hex(text.as_bytes());
        fs::write(contents.dir().join(&sha256), text).expect("writes");
        sha256
    }

    #[tokio::test]
    async fn what_one_master_puts_another_brings_and_nothing_else() {
        let rig = Rig::new();
        let (one, other) = (rig.master("one"), rig.master("other"));
        let sha256 = write(&one, "agent");
        assert!(!other.bring(&sha256).await.expect("looks"));
        one.put(&sha256).await.expect("puts");
        for _ in 0..2 {
            assert!(other.bring(&sha256).await.expect("brings"));
        }
        let path = other.path(&sha256).expect("a digest");
        assert_eq!(fs::read(&path).expect("reads"), b"agent");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, AGENT_MODE, "clones run it from there");
        assert!(!other.bring("../../etc/passwd").await.expect("is no digest"));
        let alone = Contents::new(BlobKind::Agents, rig.dir.path(), None);
        alone
            .put(&sha256)
            .await
            .expect("there is nowhere to put it");
        assert!(!alone.bring(&sha256).await.expect("looks here alone"));
    }

    #[tokio::test]
    async fn what_is_named_is_put_and_what_is_not_goes_when_it_is_old() {
        let rig = Rig::new();
        let one = rig.master("one");
        let [named, old, young] = ["named", "old", "young"].map(|text| write(&one, text));
        for sha256 in [&old, &young] {
            one.put(sha256).await.expect("puts");
        }
        rig.age(&old, 2 * blobs::UNNAMED);
        let names = || all([named.clone(), sha256_hex(b"not here")]);
        one.tidy(names, || false).await.expect("tidies");
        assert!(
            rig.is_there(&old).await,
            "its master may not remove anything"
        );
        one.tidy(names, || true).await.expect("tidies");
        assert!(rig.is_there(&named).await && rig.is_there(&young).await);
        assert!(!rig.is_there(&old).await);
    }

    fn all<const N: usize>(
        names: [String; N],
    ) -> BoxFuture<'static, Result<HashSet<String>, blobs::Error>> {
        Box::pin(std::future::ready(Ok(HashSet::from(names))))
    }

    /// It may go at any moment, and whoever puts it is about to name it.
    #[tokio::test]
    async fn what_is_old_is_put_again() {
        let rig = Rig::new();
        let one = rig.master("one");
        let sha256 = write(&one, "agent");
        one.put(&sha256).await.expect("puts");
        rig.age(&sha256, 2 * blobs::UNNAMED);
        one.put(&sha256).await.expect("puts");
        one.tidy(|| all([]), || true).await.expect("tidies");
        assert!(rig.is_there(&sha256).await, "it is young again");
    }
}
