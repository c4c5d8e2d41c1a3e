//! Objects as files of a folder, which masters may share: `FOLDER/KIND/NAME`. What is being written lies beside them, in
//! `FOLDER/incoming`, and is moved into its place when it is whole and synced.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aot_host::files::{private_dir, sync_dir};

use super::{BlobBytes, BlobKey, BlobKind, BlobPlace, Blobs, Error, StoredBlob, UNFINISHED};
use crate::Pending;

/// Where files lie that are not whole yet.
const INCOMING: &str = "incoming";

/// A folder of objects.
#[derive(Debug, Clone)]
pub struct BlobFolder {
    dir: PathBuf,
    place: String,
}

impl BlobFolder {
    /// Nothing is made before it is needed.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            place: dir.display().to_string(),
        }
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.dir.join(key.to_string())
    }

    fn error(&self, what: &'static str, object: impl ToString, source: io::Error) -> Error {
        let hint = match source.kind() {
            io::ErrorKind::PermissionDenied => "the master's user must own the folder",
            io::ErrorKind::StorageFull => "make room there",
            _ => {
                "check that the folder is mounted and can be written, or name another with AOT_BLOBS"
            }
        };
        Error {
            what,
            place: self.place.clone(),
            object: object.to_string(),
            hint,
            source: source.into(),
        }
    }

    /// Does something with the disk where it holds up nobody.
    async fn on_disk<T: Send + 'static>(
        &self,
        what: &'static str,
        object: impl ToString,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        let done = done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        done.map_err(|source| self.error(what, object, source))
    }

    fn write(&self, key: &BlobKey, file: &Path) -> io::Result<()> {
        let incoming = self.dir.join(INCOMING);
        private_dir(&incoming)?;
        let (mut from, mut to) = (
            File::open(file)?,
            tempfile::NamedTempFile::new_in(&incoming)?,
        );
        io::copy(&mut from, to.as_file_mut())?;
        to.as_file().sync_all()?;
        let path = self.path(key);
        let parent = path.parent().expect("a kind's folder is above it");
        private_dir(parent)?;
        to.persist(&path).map_err(|error| error.error)?;
        sync_dir(parent)
    }

    fn open(&self, key: &BlobKey, from: u64) -> io::Result<Option<(File, u64)>> {
        let Some(mut file) = if_there(File::open(self.path(key)))? else {
            return Ok(None);
        };
        let total = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(from.min(total)))?;
        Ok(Some((file, total)))
    }

    fn stat(&self, key: &BlobKey) -> io::Result<Option<StoredBlob>> {
        let Some(meta) = if_there(fs::metadata(self.path(key)))? else {
            return Ok(None);
        };
        Ok(Some(StoredBlob {
            key: key.clone(),
            bytes: meta.len(),
            age: age(&meta)?,
        }))
    }

    fn names(&self, kind: BlobKind) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for name in entries(&self.dir.join(kind.as_str()))? {
            let inside = format!("{}/{name}", kind.as_str());
            match kind {
                BlobKind::Outputs => {
                    let runs = entries(&self.dir.join(&inside))?;
                    found.extend(runs.into_iter().map(|run| format!("{inside}/{run}")));
                }
                _ => found.push(inside),
            }
        }
        Ok(found)
    }

    fn all(&self, kind: BlobKind) -> io::Result<Vec<StoredBlob>> {
        let mut found = Vec::new();
        for name in self.names(kind)? {
            // What is called otherwise is not ours.
            if let Ok(key) = name.parse() {
                found.extend(self.stat(&key)?);
            }
        }
        Ok(found)
    }

    fn drop_incoming(&self) -> io::Result<()> {
        let incoming = self.dir.join(INCOMING);
        for name in entries(&incoming)? {
            let path = incoming.join(name);
            let meta = if_there(fs::metadata(&path))?;
            if meta.is_some_and(|meta| age(&meta).is_ok_and(|age| age > UNFINISHED)) {
                if_there(fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

/// What a call comes to; `None` when what it is about is not there.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A clock that was put back makes it young.
fn age(meta: &fs::Metadata) -> io::Result<Duration> {
    let since = SystemTime::now().duration_since(meta.modified()?);
    Ok(since.unwrap_or_default())
}

/// Names in a folder; none when there is no folder.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in if_there(fs::read_dir(dir))?.into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

impl Blobs for BlobFolder {
    fn place(&self) -> &str {
        &self.place
    }

    fn put<'a>(&'a self, key: &'a BlobKey, file: &'a Path) -> Pending<'a, Result<(), Error>> {
        let (of, file) = (key.clone(), file.to_owned());
        Box::pin(self.on_disk("put", key, move |this| this.write(&of, &file)))
    }

    fn get<'a>(
        &'a self,
        key: &'a BlobKey,
        from: u64,
    ) -> Pending<'a, Result<Option<BlobBytes>, Error>> {
        let of = key.clone();
        Box::pin(async move {
            let opened = self.on_disk("read", key, move |this| this.open(&of, from));
            Ok(opened.await?.map(|(file, total)| BlobBytes {
                total,
                rest: Box::pin(tokio::fs::File::from_std(file)),
            }))
        })
    }

    fn find<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<Option<StoredBlob>, Error>> {
        let of = key.clone();
        Box::pin(self.on_disk("look for", key, move |this| this.stat(&of)))
    }

    fn delete<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<(), Error>> {
        let of = key.clone();
        Box::pin(self.on_disk("remove", key, move |this| {
            if_there(fs::remove_file(this.path(&of))).map(drop)
        }))
    }

    fn list(&self, kind: BlobKind) -> Pending<'_, Result<Vec<StoredBlob>, Error>> {
        Box::pin(self.on_disk("list", kind.as_str(), move |this| this.all(kind)))
    }

    fn drop_unfinished(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.on_disk("tidy", INCOMING, Self::drop_incoming))
    }
}

impl BlobPlace for BlobFolder {
    fn of_masters(&self, id: &str) -> Arc<dyn Blobs> {
        Arc::new(Self::new(&self.dir.join(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::contract::CHECKS;

    #[tokio::test]
    async fn it_meets_the_contract() {
        for (name, check) in CHECKS {
            println!("{name}");
            let dir = tempfile::tempdir().expect("a folder");
            check(Arc::new(BlobFolder::new(dir.path()))).await;
        }
    }

    #[tokio::test]
    async fn what_was_cut_off_goes_after_a_day_and_was_never_an_object() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = BlobFolder::new(dir.path());
        folder.drop_unfinished().await.expect("nothing is there");
        let incoming = dir.path().join(INCOMING);
        fs::create_dir(&incoming).expect("makes");
        for (name, hours) in [("new", 0), ("old", 25)] {
            let file = File::create(incoming.join(name)).expect("makes");
            let then = SystemTime::now() - Duration::from_secs(hours * 3600);
            file.set_modified(then).expect("sets");
        }
        folder.drop_unfinished().await.expect("removes");
        assert_eq!(entries(&incoming).expect("reads"), ["new"]);
        for kind in BlobKind::ALL {
            assert_eq!(folder.list(kind).await.expect("lists"), []);
        }
    }

    #[tokio::test]
    async fn masters_of_another_id_are_not_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("writes");
        let folder = BlobFolder::new(dir.path());
        let (one, two) = (folder.of_masters("one"), folder.of_masters("two"));
        let key = BlobKey::content(BlobKind::Bundles, &"a".repeat(64)).expect("a digest");
        one.put(&key, &file).await.expect("puts");
        assert!(two.find(&key).await.expect("looks").is_none());
        assert!(two.list(BlobKind::Bundles).await.expect("lists").is_empty());
    }

    #[tokio::test]
    async fn an_error_names_the_place_the_object_and_the_way_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("writes");
        let folder = BlobFolder::new(&file.join("below-a-file"));
        let key = BlobKey::content(BlobKind::Agents, &"a".repeat(64)).expect("a digest");
        let error = folder.put(&key, &file).await.expect_err("is refused");
        let text = error.to_string();
        let wanted = format!("cannot put {}/below-a-file/{key} (", file.display());
        assert!(
            text.starts_with(&wanted) && text.contains("AOT_BLOBS"),
            "{text}"
        );
    }
}
