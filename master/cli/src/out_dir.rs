//! `--out DIR`: what each instance printed, as files, and `outcomes.jsonl`. Writes as output comes, and never outside of
//! the folder.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aot_proto::ids::InstanceName;
use aot_proto::v1::{JobEnded, JobOutput};
use rustix::fs::OFlags;

use super::error::Error;
use crate::view::{harmless_json, outcome_json};

/// Most files that are open at a time; the one opened first is closed for one more.
const MAX_OPEN: usize = 128;

/// One of the two streams of an instance.
type Stream = (String, bool);

/// A folder of outputs.
#[derive(Debug)]
pub(crate) struct OutDir {
    dir: PathBuf,
    outcomes: File,
    open: HashMap<Stream, File>,
    order: VecDeque<Stream>,
    written_bytes: HashMap<Stream, u64>,
}

impl OutDir {
    /// Makes the folder when it is missing, and a new `outcomes.jsonl` in it.
    ///
    /// # Errors
    /// When one of them can't be made.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|source| write_error(dir, source))?;
        Ok(Self {
            dir: dir.to_owned(),
            outcomes: fresh(&dir.join("outcomes.jsonl"))?,
            open: HashMap::new(),
            order: VecDeque::new(),
            written_bytes: HashMap::new(),
        })
    }

    /// Appends some output.
    ///
    /// # Errors
    /// When its file can't be made or written; the error names it.
    pub(crate) fn output(&mut self, output: &JobOutput) -> Result<(), Error> {
        let stream = (output.instance.clone(), output.stderr);
        let path = self.file_of(&stream)?;
        let written = self.open(&stream, &path)?.write_all(&output.data);
        written.map_err(|source| write_error(&path, source))?;
        *self.written_bytes.entry(stream).or_default() += output.data.len() as u64;
        Ok(())
    }

    /// Writes how a target ended. It has both its files then, also when it printed nothing.
    ///
    /// # Errors
    /// As [`OutDir::output`].
    pub(crate) fn ended(&mut self, job: &str, ended: &JobEnded) -> Result<(), Error> {
        let mut bytes = [0; 2];
        for stderr in [false, true] {
            let stream = (ended.instance.clone(), stderr);
            let path = self.file_of(&stream)?;
            self.open(&stream, &path)?;
            self.open.remove(&stream);
            self.order.retain(|other| *other != stream);
            bytes[usize::from(stderr)] = self.written_bytes[&stream];
        }
        let line = outcome_json(job, ended, bytes[0], bytes[1]);
        writeln!(self.outcomes, "{}", harmless_json(&line.to_string()))
            .map_err(|source| write_error(&self.dir.join("outcomes.jsonl"), source))
    }

    /// `DIR/web1.out`: a name that is not a name of an instance could lead anywhere, and is refused.
    fn file_of(&self, (instance, stderr): &Stream) -> Result<PathBuf, Error> {
        let ending = if *stderr { "err" } else { "out" };
        match instance.parse::<InstanceName>() {
            Ok(name) => Ok(self.dir.join(format!("{name}.{ending}"))),
            Err(bad) => Err(write_error(
                &self.dir,
                io::Error::new(io::ErrorKind::InvalidInput, bad),
            )),
        }
    }

    fn open(&mut self, stream: &Stream, path: &Path) -> Result<&mut File, Error> {
        if !self.open.contains_key(stream) {
            let file = match self.written_bytes.contains_key(stream) {
                true => again(path)?,
                false => fresh(path)?,
            };
            if self.open.len() >= MAX_OPEN
                && let Some(first) = self.order.pop_front()
            {
                self.open.remove(&first);
            }
            self.written_bytes.entry(stream.clone()).or_default();
            self.order.push_back(stream.clone());
            self.open.insert(stream.clone(), file);
        }
        Ok(self
            .open
            .get_mut(stream)
            .expect("it was there or has just been put there"))
    }
}

/// A new file in place of whatever had its name: a link there is taken away, not followed.
fn fresh(path: &Path) -> Result<File, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, error)),
        _ => File::options()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(|source| write_error(path, source)),
    }
}

/// A file that [`fresh`] made and that was closed for others.
fn again(path: &Path) -> Result<File, Error> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    File::options()
        .append(true)
        .custom_flags(no_link)
        .open(path)
        .map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(instance: &str, stderr: bool, data: &[u8]) -> JobOutput {
        JobOutput {
            instance: instance.into(),
            stderr,
            data: data.to_vec().into(),
        }
    }

    fn ended(instance: &str) -> JobEnded {
        JobEnded {
            instance: instance.into(),
            outcome: crate::view::samples::outcome("succeeded"),
            exit_code: Some(0),
            ..JobEnded::default()
        }
    }

    #[test]
    fn every_instance_has_two_files_and_a_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("deep/er");
        let mut out = OutDir::create(&dir).expect("made");
        out.output(&output("web1", false, b"a\xff"))
            .expect("written");
        out.output(&output("web1", false, b"b\n")).expect("written");
        out.ended("job-1", &ended("web1")).expect("written");
        let read = |name: &str| fs::read(dir.join(name)).expect("a file");
        assert_eq!(read("web1.out"), b"a\xffb\n");
        assert_eq!(read("web1.err"), b"");
        assert_eq!(
            String::from_utf8(read("outcomes.jsonl")).expect("UTF-8"),
            concat!(
                r#"{"job":"job-1","instance":"web1","outcome":"succeeded","exit_code":0,"stdout_bytes":4,"#,
                r#""stderr_bytes":0,"seconds":0.0}"#,
                "\n"
            )
        );
    }

    #[test]
    fn more_instances_than_open_files_lose_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut out = OutDir::create(dir.path()).expect("made");
        for round in 0..3 {
            for n in 0..2 * MAX_OPEN {
                let text = format!("{n} {round}\n");
                out.output(&output(&format!("n{n}"), n % 2 == 1, text.as_bytes()))
                    .expect("written");
            }
            assert!(out.open.len() <= MAX_OPEN && out.order.len() == out.open.len());
        }
        for n in 0..2 * MAX_OPEN {
            let name = format!("n{n}.{}", ["out", "err"][n % 2]);
            let text = fs::read_to_string(dir.path().join(name)).expect("a file");
            assert_eq!(text, format!("{n} 0\n{n} 1\n{n} 2\n"));
        }
    }

    #[test]
    fn nothing_is_written_outside_and_nothing_old_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = dir.path().join("outside");
        fs::write(&outside, "mine").expect("written");
        let inside = dir.path().join("out");
        fs::create_dir(&inside).expect("made");
        for name in ["web1.out", "outcomes.jsonl"] {
            std::os::unix::fs::symlink(&outside, inside.join(name)).expect("linked");
        }
        fs::write(inside.join("web1.err"), "old").expect("written");
        let mut out = OutDir::create(&inside).expect("made");
        out.output(&output("web1", false, b"new")).expect("written");
        out.ended("job-1", &ended("web1")).expect("written");
        assert_eq!(fs::read(&outside).expect("there"), b"mine");
        assert_eq!(fs::read(inside.join("web1.out")).expect("there"), b"new");
        assert_eq!(fs::read(inside.join("web1.err")).expect("there"), b"");

        for name in ["../outside", "/etc/passwd", "..", "", "a/b"] {
            let error = out.output(&output(name, false, b"x")).expect_err(name);
            assert!(matches!(error, Error::Write { .. }), "{name}");
        }
        assert_eq!(fs::read(&outside).expect("there"), b"mine");
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let report = OutDir::create(&file)
            .expect_err("no folder")
            .report(crate::view::Style::default());
        assert!(
            report.is_some_and(|text| text.contains(&format!("cannot write {}", file.display())))
        );
        fs::create_dir(dir.path().join("web1.err")).expect("made");
        let mut out = OutDir::create(dir.path()).expect("made");
        let report = out
            .ended("job-1", &ended("web1"))
            .expect_err("a folder")
            .report(crate::view::Style::default());
        assert!(report.is_some_and(|text| text.contains("web1.err: ")));
    }
}
