//! Brings an object into a file, whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aot_archive::Digest;
use aot_host::chain::Chain;
use aot_host::files::sync_dir;
use aot_host::in_a_row::InARow;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BlobKey, Blobs, Error};

/// How often an object breaks off with nothing new of it, before it is given up; it is asked for from there on each time.
const BREAKS: u32 = 4;

/// Bytes on their way to the disk.
const PIECE_BYTES: usize = 256 << 10;

/// Writes an object to `path`, in the place of what may be there. `false` when there is no such object. Of one that is named
/// by its content no other content is taken. It gets this mode, or one that only its owner can read.
///
/// # Errors
/// When the place can't be asked, the disk refuses, or it is another content; then nothing is at `path` that was not before.
pub async fn fetch(
    blobs: &dyn Blobs,
    key: &BlobKey,
    path: &Path,
    mode: Option<u32>,
) -> Result<bool, Error> {
    let failed = |hint: &'static str| {
        move |source: io::Error| Error {
            what: "fetch",
            place: blobs.place().to_owned(),
            object: key.to_string(),
            hint,
            source: source.into(),
        }
    };
    const DISK: &str = "check the disk of the state folder";
    let dir = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(dir).map_err(failed(DISK))?;
    let mut incoming = ArrivingBlob {
        file: file.as_file().try_clone().map_err(failed(DISK))?,
        digest: Digest::default(),
        bytes: 0,
    };
    let mut breaks = InARow::new(BREAKS);
    loop {
        let before = incoming.bytes;
        let Some(blob) = blobs.get(key, before).await? else {
            return Ok(false);
        };
        let error = match incoming.take(blob.rest).await {
            Ok(()) if incoming.bytes == blob.total => break,
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        if incoming.bytes > before {
            breaks.came();
        }
        if !breaks.failed() {
            return Err(failed("try again")(error));
        }
        tracing::debug!(%key, bytes = incoming.bytes, error = %Chain(&error), "an object broke off");
    }
    let sha256 = incoming.digest.hex();
    if key.sha256().is_some_and(|wanted| wanted != sha256) {
        let other = io::Error::new(io::ErrorKind::InvalidData, "its content is another one");
        return Err(failed("remove the object there")(other));
    }
    let persisted = || {
        if let Some(mode) = mode {
            file.as_file()
                .set_permissions(Permissions::from_mode(mode))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_dir(dir)
    };
    persisted().map_err(failed(DISK))?;
    Ok(true)
}

/// What has come.
struct ArrivingBlob {
    file: File,
    digest: Digest,
    bytes: u64,
}

impl ArrivingBlob {
    async fn take(&mut self, mut rest: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        // A write that failed may have written a part.
        self.file.seek(SeekFrom::Start(self.bytes))?;
        loop {
            let len = rest.read(&mut piece).await?;
            if len == 0 {
                return Ok(());
            }
            self.file.write_all(&piece[..len])?;
            self.digest.update(&piece[..len]);
            self.bytes += len as u64;
        }
    }
}
