//! `aot-agent pack` and `aot-agent unpack`: what the shim runs for a copy. Plain blocking code: no network, no decisions
//! of its own; the journal, the spool and the cancellation around it are those of any run.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aot_archive::{DestinationError, Digesting, Limits, Links, PackError, Rules, Tops};
use aot_host::chain::Chain;
use aot_proto::limits::{MAX_COPY_BYTES, MAX_COPY_ENTRIES};
use nix::sys::signal::{SigSet, Signal};

/// Bytes that go to the pipe at once.
const PIPE_BYTES: usize = 64 << 10;

/// Why a copy fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The archive that was fetched.
    #[error("cannot read the files that were fetched")]
    Archive(#[source] io::Error),
    /// Where it goes.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// What is in it.
    #[error(transparent)]
    Unpack(#[from] aot_archive::Error),
    /// What is to be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("ended by a signal before it was done")]
    Ended,
    /// Signals can't be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Packs `paths` to standard output; the last line of standard error is the archive's SHA-256 in hex.
pub fn pack(paths: &[PathBuf]) -> ExitCode {
    report(pack_to(paths, io::stdout().lock()).map(|sha256| eprintln!("{sha256}")))
}

fn pack_to(paths: &[PathBuf], out: impl Write) -> Result<String, Error> {
    let sources = aot_archive::sources(paths)?;
    let mut out = Digesting::new(BufWriter::with_capacity(PIPE_BYTES, out));
    aot_archive::pack(&sources, &mut out, &mut |note| eprintln!("{note}"))?;
    Ok(out.finish().1)
}

/// Unpacks the file `archive` to `path` and removes it; at its top may stand what `only` names, or anything when it names
/// nothing. Ended by a signal (TERM, INT, HUP), it leaves no half file.
pub fn unpack(archive: &Path, path: &Path, into: bool, only: Vec<OsString>) -> ExitCode {
    let ended = Arc::new(AtomicBool::new(false));
    report(
        stop_on_signals(&ended)
            .map_err(Error::Signals)
            .and_then(|()| unpack_to(archive, path, into, Tops::from_names(only), &ended)),
    )
}

fn unpack_to(
    from: &Path,
    path: &Path,
    into: bool,
    tops: Tops,
    ended: &AtomicBool,
) -> Result<(), Error> {
    let file = File::open(from).map_err(Error::Archive)?;
    let to = aot_archive::destination(path, into, Links::Followed)?;
    let rules = Rules {
        limits: Limits {
            bytes: MAX_COPY_BYTES,
            entries: MAX_COPY_ENTRIES,
        },
        tops,
        rename: to.rename,
    };
    let unpacked = aot_archive::unpack(Stoppable { file, ended }, &to.folder, &rules);
    // It is of no use any more, and its folder goes when the master has taken the result.
    let _ = std::fs::remove_file(from);
    match unpacked {
        Err(_) if ended.load(Ordering::Relaxed) => Err(Error::Ended),
        other => Ok(other.map(drop)?),
    }
}

/// Reads until a signal has asked for the end.
struct Stoppable<'a> {
    file: File,
    ended: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.file.read(buffer)
    }
}

/// Signals are blocked for the whole process and waited for by one thread, which ends with the process.
fn stop_on_signals(ended: &Arc<AtomicBool>) -> io::Result<()> {
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    set.thread_block()?;
    let ended = ended.clone();
    thread::Builder::new().spawn(move || {
        if set.wait().is_ok() {
            ended.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

fn report(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", Chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn why_a_copy_fails_is_reported_once() {
        for (path, why) in [
            ("/no/such/file", "(os error 2)"),
            ("/dev/null", "is a device"),
        ] {
            let error = pack_to(&[PathBuf::from(path)], io::sink()).expect_err(path);
            let text = Chain(&error).to_string();
            assert_eq!(text.matches(why).count(), 1, "{text}");
            assert_eq!(text.matches(path).count(), 1, "{text}");
        }
    }

    #[test]
    fn files_go_out_and_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("app")).unwrap();
        fs::write(at("app/x"), "text").unwrap();
        let mut bytes = Vec::new();
        let sha256 = pack_to(&[at("app")], &mut bytes).unwrap();
        fs::write(at("archive"), &bytes).unwrap();
        let mut file = File::open(at("archive")).unwrap();
        assert_eq!(aot_archive::Digest::of_file(&mut file).unwrap(), sha256);
        let only = || Tops::from_names(["app"]);
        let on = AtomicBool::new(false);
        unpack_to(&at("archive"), &at("new"), false, only(), &on).unwrap();
        assert_eq!(fs::read(at("new/x")).unwrap(), b"text");
        assert!(!at("archive").exists(), "it takes room");
    }

    #[test]
    fn one_that_is_asked_to_end_reports_that_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("x"), "text").unwrap();
        let mut bytes = Vec::new();
        pack_to(&[at("x")], &mut bytes).unwrap();
        fs::write(at("archive"), &bytes).unwrap();
        let ended = unpack_to(
            &at("archive"),
            &at("to"),
            true,
            Tops::Any,
            &AtomicBool::new(true),
        );
        assert!(matches!(ended, Err(Error::Ended)));
        assert_eq!(fs::read_dir(at("to")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = pack_to(&["/no/such/file".into()], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let error = unpack_to(
            Path::new("/no/such/archive"),
            Path::new("/tmp"),
            false,
            Tops::Any,
            &AtomicBool::new(false),
        );
        assert!(matches!(error, Err(Error::Archive(_))));
    }
}
