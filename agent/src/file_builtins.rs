//! The built-ins that read a file: `stat` and `tail`. Called by the session, each on a thread of its own, since a path
//! may lie on a file system that never answers. Only reads; opens nothing but regular files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_host::users;
use aot_proto::builtin::{Builtin, MAX_TAIL_BYTES};
use aot_proto::v1::BuiltinReply;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Most files that are read at a time, those that hang on a dead file system among them. More are refused.
const MOST: usize = 16;
/// How long it may take: less than the master waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A file that can't be read; the message names the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}: {error}")]
    Io { path: String, error: io::Error },
    /// Only files have a last line.
    #[error("cannot show the end of {path}: it is a {kind}, not a regular file")]
    NotRegular { path: String, kind: &'static str },
    /// A file of /proc or the like, which is only read from its start.
    #[error(
        "cannot show the end of {0}: it has no size, and more than {MAX_TAIL_BYTES} bytes to read"
    )]
    NoSize(String),
    /// It takes too long.
    #[error(
        "cannot read {path}: no answer within {seconds} s; its file system may hang",
        seconds = DEADLINE.as_secs()
    )]
    Hangs { path: String },
    /// Of these the session knows the answers.
    #[error("not a request for a file")]
    NoFile,
    /// Too many at a time.
    #[error("cannot read {path}: {MOST} reads of other files have no answer yet")]
    Busy { path: String },
}

/// Bounds how many files an agent reads at once, over all its sessions.
#[derive(Debug, Clone)]
pub(crate) struct FileReads {
    free: Arc<Semaphore>,
}

impl Default for FileReads {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(MOST)),
        }
    }
}

impl FileReads {
    /// Answers a question about a file, in bounded time whatever its file system does.
    pub(crate) async fn answer(&self, id: u64, what: Builtin, etc: PathBuf) -> BuiltinReply {
        let seen = match what {
            Builtin::Stat { path } => {
                let asked = path.clone();
                self.on_own_thread(path, move || stat(&asked, &etc)).await
            }
            Builtin::Tail { path, lines } => {
                let asked = path.clone();
                self.on_own_thread(path, move || tail(&asked, lines)).await
            }
            Builtin::Ping | Builtin::Facts | Builtin::Version => Err(Error::NoFile),
        };
        let (json, error) = match seen {
            Ok(value) => (value.to_string(), String::new()),
            Err(error) => (String::new(), error.to_string()),
        };
        BuiltinReply { id, json, error }
    }

    /// Reads on a thread of its own: a blocked one must hold neither the runtime's few threads nor its end.
    async fn on_own_thread(
        &self,
        path: String,
        read: impl FnOnce() -> Result<Value, Error> + Send + 'static,
    ) -> Result<Value, Error> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            return Err(Error::Busy { path });
        };
        let (sender, seen) = oneshot::channel();
        let thread = std::thread::Builder::new().name("read".to_owned());
        let started = thread.spawn(move || {
            let result = read();
            drop(permit);
            // Whoever asked may have given up.
            let _ = sender.send(result);
        });
        if let Err(error) = started {
            return Err(Error::Io { path, error });
        }
        match timeout(DEADLINE, seen).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::Hangs { path }),
        }
    }
}

fn io_error(path: &str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Io {
        path: path.to_owned(),
        error,
    }
}

/// What stands at `path` itself, and where it leads when it is a link.
fn stat(path: &str, etc: &Path) -> Result<Value, Error> {
    let meta = fs::symlink_metadata(path).map_err(io_error(path))?;
    let mut seen = describe(path, &meta, etc);
    let is_link = meta.is_symlink();
    seen["target"] = match is_link {
        true => json!(
            fs::read_link(path)
                .map_err(io_error(path))?
                .to_string_lossy()
        ),
        false => Value::Null,
    };
    // A link may lead nowhere: that is an answer, too.
    let end =
        is_link.then(|| fs::canonicalize(path).and_then(|end| Ok((fs::metadata(&end)?, end))));
    seen["leads_to"] = match end {
        Some(Ok((meta, end))) => describe(&end.to_string_lossy(), &meta, etc),
        Some(Err(error)) => json!({"error": error.to_string()}),
        None => Value::Null,
    };
    Ok(seen)
}

fn describe(path: &str, meta: &Metadata, etc: &Path) -> Value {
    let mode = meta.mode() & 0o7777;
    json!({
        "path": path, "kind": kind(meta), "size": meta.len(), "mode": format!("{mode:04o}"),
        "uid": meta.uid(), "gid": meta.gid(),
        "user": users::name_of(meta.uid(), &etc.join("passwd")),
        "group": users::name_of(meta.gid(), &etc.join("group")),
        "mtime": rfc3339(meta.mtime(), meta.mtime_nsec()),
    })
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_block_device() => "block device",
        () if kind.is_char_device() => "character device",
        () => "unknown",
    }
}

/// `None` for a time that RFC 3339 has no words for: years have four digits there.
fn rfc3339(seconds: i64, nanos: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let time = time.replace_nanosecond(nanos.try_into().ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

/// The last lines of a file.
fn tail(path: &str, lines: usize) -> Result<Value, Error> {
    let (bytes, is_cut) = end_of(path)?;
    let (lines, truncated) = last_lines(&bytes, lines, is_cut);
    let text = lines.iter().map(|line| String::from_utf8_lossy(line));
    let replaced = lines.iter().any(|line| std::str::from_utf8(line).is_err());
    let text: Vec<_> = text.collect();
    Ok(json!({"path": path, "lines": text, "truncated": truncated, "replaced": replaced}))
}

/// The last [`MAX_TAIL_BYTES`], and whether there is more before them. Opens only what is a regular file: to open a fifo
/// or a device may wait, or do something.
fn end_of(path: &str) -> Result<(Vec<u8>, bool), Error> {
    let regular = |meta: &Metadata| match meta.is_file() {
        true => Ok(meta.len()),
        false => Err(Error::NotRegular {
            path: path.to_owned(),
            kind: kind(meta),
        }),
    };
    regular(&fs::metadata(path).map_err(io_error(path))?)?;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = opened.map_err(io_error(path))?;
    // Another file may have taken its place.
    let len = regular(&file.metadata().map_err(io_error(path))?)?;
    let bytes = read_end(file, len).map_err(io_error(path))?;
    if len == 0 && bytes.len() as u64 > MAX_TAIL_BYTES {
        return Err(Error::NoSize(path.to_owned()));
    }
    Ok((bytes, len > MAX_TAIL_BYTES))
}

/// One byte more than the limit only where the size is not known.
fn read_end(mut file: File, len: u64) -> io::Result<Vec<u8>> {
    let most = match len {
        0 => MAX_TAIL_BYTES + 1,
        _ => len.min(MAX_TAIL_BYTES),
    };
    file.seek(SeekFrom::Start(len.saturating_sub(MAX_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of `bytes`, and whether some that were asked for are missing or not whole. A newline at the end begins
/// no line.
fn last_lines(bytes: &[u8], most: usize, is_cut: bool) -> (Vec<&[u8]>, bool) {
    if bytes.is_empty() {
        return (Vec::new(), false);
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut lines: Vec<&[u8]> = text.rsplit(|byte| *byte == b'\n').take(most).collect();
    lines.reverse();
    // The first one may begin before what was read.
    let reaches_the_cut = lines
        .first()
        .is_some_and(|line| line.as_ptr() == bytes.as_ptr());
    (lines, is_cut && reaches_the_cut)
}

#[cfg(test)]
mod tests;
