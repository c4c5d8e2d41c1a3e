//! Brings a bundle, or the files of a copy, onto this machine's disk: on a connection of its own, resumed where it was cut,
//! verified before anyone sees it. Called by the runner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aot_archive::Digest;
use aot_host::chain::Chain;
use aot_host::files::shut_dir;
use aot_proto::limits::MAX_MESSAGE_BYTES;
use aot_proto::v1::FetchRequest;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::backoff::{Backoff, unit};
use crate::identity::ClientIdentity;
use crate::link::{self, Link};

/// A fetch that brings nothing new for this long is given up.
const NO_PROGRESS: Duration = Duration::from_secs(600);
/// A stream on which nothing comes for this long is cut.
const SILENCE: Duration = Duration::from_secs(30);
/// Bundles that are kept, so that another attempt of a stage need not fetch again.
const KEPT: usize = 4;

/// A bundle that could not be brought here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot store it")]
    Disk(#[from] io::Error),
    #[error("no master was reached")]
    Link(#[from] link::Error),
    /// The master refused or broke off.
    #[error("the master answered: {0}")]
    Refused(String),
    /// The stream was cut.
    #[error("the transfer broke off: {0}")]
    Cut(String),
    /// What came is something else.
    #[error("its SHA-256 is {got}, not the one announced")]
    Digest {
        /// Of what came.
        got: String,
    },
    /// More came than was promised, or may.
    #[error("it has more than the {0} bytes that were announced")]
    TooLong(u64),
}

impl Error {
    /// Whether another try may help.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Cut(_))
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedBundle<'a> {
    /// Its SHA-256, hex.
    pub sha256: &'a str,
    pub bytes: u64,
    /// Most that are taken.
    pub limit: u64,
}

/// The verified file that is wanted in `dir`, fetched unless it is there already. Cancel safe: what came stays, and the
/// next fetch continues from there. `came` is called now and then with how many bytes are here.
///
/// # Errors
/// When the master refuses, the digest is wrong, the disk is full, or nothing came for ten minutes.
pub(crate) async fn obtain(
    dir: &Path,
    wanted: WantedBundle<'_>,
    link: &Link,
    identity: Option<&ClientIdentity>,
    came: &(dyn Fn(u64) + Sync),
) -> Result<PathBuf, Error> {
    let WantedBundle {
        sha256,
        bytes,
        limit,
    } = wanted;
    if bytes > limit {
        return Err(Error::TooLong(limit));
    }
    shut_dir(dir)?;
    let whole = dir.join(sha256);
    if verified(&whole, sha256).await? {
        // Its age says how long it was not used.
        File::open(&whole)?.set_modified(SystemTime::now())?;
        return Ok(whole);
    }
    prune(dir, sha256)?;
    let part = dir.join(format!("{sha256}.part"));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    let (mut reached, mut since) = (length(&part), Instant::now());
    let mut wrong = 0;
    loop {
        let error = match pull(&part, wanted, link, identity, came).await {
            Ok(got) if got == sha256 => {
                fs::rename(&part, &whole)?;
                return Ok(whole);
            }
            Ok(got) => {
                fs::remove_file(&part)?;
                wrong += 1;
                // The part may have been spoilt by an earlier crash: a whole transfer decides.
                if wrong > 1 || reached == 0 {
                    return Err(Error::Digest { got });
                }
                Error::Digest { got }
            }
            Err(error) if !error.may_pass() => return Err(error),
            Err(error) => error,
        };
        let now_at = length(&part);
        if now_at != reached {
            (reached, since) = (now_at, Instant::now());
            backoff.reset();
        }
        if since.elapsed() > NO_PROGRESS {
            return Err(error);
        }
        tracing::info!(bytes = reached, error = %Chain(&error), "transfer interrupted, resuming");
        sleep(backoff.next(unit())).await;
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Appends to `part` what is missing, until the stream's end; the digest of the whole. Nothing is synced: what a
/// power cut takes is noticed by the digest, and fetched again.
async fn pull(
    part: &Path,
    wanted: WantedBundle<'_>,
    link: &Link,
    identity: Option<&ClientIdentity>,
    came: &(dyn Fn(u64) + Sync),
) -> Result<String, Error> {
    let bytes = wanted.bytes;
    let (mut digest, offset) = begun(part).await?;
    if offset >= bytes && bytes > 0 {
        return Ok(digest.hex());
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(part)?;
    let channel = link.connect(identity).await?;
    let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let request = FetchRequest {
        sha256: wanted.sha256.to_owned(),
        offset,
    };
    let cut = |why: &str| Error::Cut(why.to_owned());
    let call = timeout(SILENCE, client.fetch(request))
        .await
        .map_err(|_| cut("no answer in 30 s"))?;
    let mut stream = call.map_err(status)?.into_inner();
    let mut at = offset;
    loop {
        let chunk = timeout(SILENCE, stream.message())
            .await
            .map_err(|_| cut("nothing received for 30 s"))?;
        let Some(chunk) = chunk.map_err(status)? else {
            break;
        };
        at += chunk.data.len() as u64;
        if at > bytes {
            return Err(Error::TooLong(bytes));
        }
        digest.update(&chunk.data);
        file.write_all(&chunk.data)?;
        came(at);
    }
    if at < bytes {
        return Err(cut("the stream ended too early"));
    }
    Ok(digest.hex())
}

/// The digest of what an earlier fetch brought, and its length.
async fn begun(part: &Path) -> io::Result<(Digest, u64)> {
    if length(part) == 0 {
        return Ok((Digest::default(), 0));
    }
    let part = part.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut digest = Digest::default();
        let bytes = digest.update_from_file(&mut File::open(&part)?)?;
        Ok((digest, bytes))
    })
    .await
    .map_err(io::Error::other)?
}

fn status(status: tonic::Status) -> Error {
    match status.code() {
        Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented => Error::Refused(status.message().to_owned()),
        _ => Error::Cut(status.message().to_owned()),
    }
}

/// Whether the file is there and has that digest.
async fn verified(path: &Path, sha256: &str) -> io::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let path = path.to_owned();
    let got = tokio::task::spawn_blocking(move || Digest::of_file(&mut File::open(&path)?))
        .await
        .map_err(io::Error::other)??;
    Ok(got == sha256)
}

/// Makes room: of the other bundles only the last used stay, of cut transfers none.
fn prune(dir: &Path, sha256: &str) -> io::Result<()> {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(sha256) {
            continue;
        }
        if name.ends_with(".part") {
            fs::remove_file(entry.path())?;
        } else {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    others.sort();
    let surplus = others.len().saturating_sub(KEPT - 1);
    others
        .drain(..surplus)
        .try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_keeps_the_last_used_and_the_one_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..6u64 {
            let path = dir.path().join(format!("sha{n}"));
            File::create(&path)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(n))
                .unwrap();
        }
        fs::write(dir.path().join("old.part"), "x").unwrap();
        fs::write(dir.path().join("sha0.part"), "x").unwrap();
        prune(dir.path(), "sha0").unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["sha0", "sha0.part", "sha3", "sha4", "sha5"]);
    }

    #[tokio::test]
    async fn a_bundle_that_is_there_is_verified_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::write(&path, "abc").unwrap();
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(verified(&path, sha).await.unwrap());
        fs::write(&path, "abd").unwrap();
        assert!(!verified(&path, sha).await.unwrap());
        assert!(!verified(&dir.path().join("none"), sha).await.unwrap());
    }
}
