//! Where the daemon's log goes: standard error. Of a master in the background that is `master.log` in its state, which is
//! turned over: the file never grows past its bound, and a few old ones stay beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aot_host::log::LogFormat;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The file is set aside when it would grow past this.
const MOST_BYTES: u64 = 16 << 20;

/// Files that were set aside and stay: `master.log.1` is the youngest.
const OLD: u32 = 3;

/// What is logged where no filter is given, by how often `-v` was. Targets are compared by how they begin (EnvFilter,
/// "Directives"), and the names of our crates, and of no others, begin with `aot_`.
pub fn filter(verbose: u8) -> &'static str {
    match verbose {
        0 => "info",
        1 => "aot_=debug,info",
        _ => "debug",
    }
}

/// What writes the log, a line an event. As JSON, the fields of an event stand below `fields`, so that none of them can be taken for
/// its time or level.
pub fn log<W>(filter: EnvFilter, format: LogFormat, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer);
    match format {
        LogFormat::Text => Box::new(log.finish()),
        LogFormat::Json => Box::new(log.json().with_span_list(false).finish()),
    }
}

/// Standard error, which is a file with a bound.
#[derive(Debug)]
pub struct Turning {
    path: PathBuf,
    most: u64,
    len: Mutex<u64>,
}

impl Turning {
    /// When standard error is this very file, and so ours to set aside.
    pub fn of_stderr(path: &Path) -> Option<Self> {
        let ours = fs::metadata(path).ok()?;
        let stderr = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        let same = (ours.dev(), ours.ino()) == (stderr.st_dev, stderr.st_ino);
        same.then(|| Self {
            path: path.to_owned(),
            most: MOST_BYTES,
            len: Mutex::new(ours.len()),
        })
    }

    /// Makes room for this many bytes in `out`; gives the new file when the old one was set aside.
    fn turn(&self, bytes: usize) -> io::Result<Option<File>> {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        *len += bytes as u64;
        if *len <= self.most {
            return Ok(None);
        }
        // Should that fail, it is tried again after as much.
        *len = bytes as u64;
        let old = |number: u32| self.path.with_added_extension(number.to_string());
        for number in (1..OLD).rev() {
            match fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, old(1))?;
        let fresh = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        Ok(Some(fresh))
    }
}

/// One line on its way.
#[derive(Debug)]
pub struct Line<'a>(&'a Turning);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Panics and what libraries print go to the same file.
        if let Ok(Some(fresh)) = self.0.turn(line.len()) {
            rustix::stdio::dup2_stdout(&fresh)?;
            rustix::stdio::dup2_stderr(&fresh)?;
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Turning {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_cli::view::LogLines;

    #[test]
    fn the_log_never_grows_past_its_bound_and_the_last_lines_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("master.log");
        let log = Turning {
            path: path.clone(),
            most: 100,
            len: Mutex::new(0),
        };
        let mut out = File::create(&path).expect("a file");
        for number in 0..100 {
            let line = format!("line {number:04} of the log\n");
            if let Some(fresh) = log.turn(line.len()).expect("turns") {
                out = fresh;
            }
            out.write_all(line.as_bytes()).expect("writes");
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .expect("reads")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["master.log", "master.log.1", "master.log.2", "master.log.3"]
        );
        for name in &names {
            let file = fs::metadata(dir.path().join(name)).expect("is there");
            assert!(file.len() <= 100, "{name:?} has {} bytes", file.len());
        }
        let last = fs::read_to_string(&path).expect("reads");
        assert!(last.ends_with("line 0099 of the log\n"), "{last}");
    }

    #[test]
    fn verbose_shows_all_of_our_crates_and_no_more() {
        let shown = |verbose, write: fn()| {
            let lines = Lines::default();
            let log = log(filter(verbose).into(), LogFormat::Text, lines.clone());
            tracing::subscriber::with_default(log, write);
            let lines = lines.0.lock().expect("fine").clone();
            !lines.is_empty()
        };
        let ours = || tracing::debug!(target: "aot_store::writer", "x");
        let others = || tracing::debug!(target: "hyper::client", "x");
        assert_eq!(
            [0, 1, 2].map(|verbose| shown(verbose, ours)),
            [false, true, true]
        );
        assert_eq!(
            [0, 1, 2].map(|verbose| shown(verbose, others)),
            [false, false, true]
        );
    }

    #[test]
    fn a_line_of_json_is_one_event_with_what_it_says() {
        let lines = Lines::default();
        let log = log("info".into(), LogFormat::Json, LogLines(lines.clone()));
        tracing::subscriber::with_default(log, || {
            let span = tracing::info_span!("session", agent = "web1");
            let _in = span.enter();
            tracing::warn!(
                level = "mine",
                text = "a\n\"b\"\u{1b}[31m",
                count = 3,
                "it happened"
            );
            tracing::debug!("not this");
        });
        let text = lines.0.lock().expect("fine").clone();
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let wanted = serde_json::json!({
            "message": "it happened", "level": "mine", "text": "a\n\"b\"\u{1b}[31m", "count": 3,
        });
        assert_eq!(line["fields"], wanted, "{text}");
        assert_eq!(line["level"], "WARN", "{text}");
        assert_eq!(line["span"]["agent"], "web1", "{text}");
        for key in ["timestamp", "target"] {
            assert!(line[key].is_string(), "{key}: {text}");
        }
    }

    /// What a test has logged.
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("fine").extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_file_that_is_not_standard_error_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(Turning::of_stderr(file.path()).is_none());
        assert!(Turning::of_stderr(Path::new("/no/such/file")).is_none());
    }
}
