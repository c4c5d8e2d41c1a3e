//! What was started and what was forgotten, on disk before anything happens, so that nothing runs twice. Used by the
//! runner only. `runs/<run id>/spec.json` is a run; a line in `tombstones` is one that the master has dropped.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use aot_proto::v1::StartRun;
use aot_proto::v1::start_run::What;
use serde::{Deserialize, Serialize};

use crate::files::{private_dir, write_atomic, write_private};
use crate::runner::command::STDIN;
use crate::runner::spool::SPOOL;

/// Tombstones are compacted when there are more.
const MOST_TOMBSTONES: usize = 20_000;
/// How long the folder of a forgotten run stays, at most how many of them, and how much output each may have.
const GONE: Duration = Duration::from_secs(30);
const MOST_GONE: usize = 256;
const SMALL_BYTES: u64 = 16 << 10;

/// Name of the record in a run's folder: one line. Held (flock) by a shim until it has written the end, and by the agent
/// while it writes one in a dead shim's stead. A second line is the pid of the shim, which is also its session; without it
/// no shim got so far as to start something. One file for all that, as each costs more than all that is in it.
pub const SPEC: &str = "spec.json";

/// One run as it was asked for. Never printed: its environment may hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The run.
    pub run_id: RunId,
    /// The job that it belongs to.
    pub job_id: String,
    /// Boot during which it was journalled.
    pub boot_id: String,
    /// 0 = none.
    pub timeout_ms: u64,
    /// 0 = none.
    pub silence_timeout_ms: u64,
    /// Output that is kept; 0 = the default.
    pub output_cap_bytes: u64,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// What to run.
    pub what: Work,
}

/// What a run does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A command.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// Empty = /.
        cwd: String,
        /// Empty = root.
        user: String,
    },
    /// One attempt of a stage.
    Stage {
        /// From 0.
        index: u32,
        /// For people.
        name: String,
        /// Of the bundle, hex.
        bundle_sha256: String,
        /// Of the bundle, packed.
        bundle_bytes: u64,
        /// Of bootstrap.sh.
        args: Vec<String>,
        /// From 1.
        attempt: u32,
        /// How often it asked for a reboot.
        reboots: u32,
    },
    /// Files to this machine.
    CopyIn {
        /// Of the archive, hex.
        sha256: String,
        /// Of the archive.
        bytes: u64,
        /// Where they go, absolute.
        path: String,
        /// `path` is a folder, made when missing.
        into: bool,
    },
    /// Files from this machine.
    CopyOut {
        /// Absolute.
        paths: Vec<String>,
    },
}

/// A run that can't be journalled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master sent a run that means nothing.
    #[error("the run is no good: {0}")]
    Bad(String),
    /// The journal can't be written.
    #[error("cannot write the journal: {0}")]
    Io(#[from] io::Error),
}

impl Spec {
    /// Checks what the master sent.
    ///
    /// # Errors
    /// When the id is none, or nothing is to be run, or the bundle's digest is none.
    pub fn from_wire(start: &StartRun, boot_id: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Bad(why.to_owned());
        let what = match &start.what {
            None => return Err(bad("it says neither command nor stage")),
            Some(What::Exec(exec)) if exec.argv.first().is_none_or(String::is_empty) => {
                return Err(bad("the command is empty"));
            }
            Some(What::Exec(exec)) => Work::Exec {
                argv: exec.argv.clone(),
                cwd: exec.cwd.clone(),
                user: exec.user.clone(),
            },
            Some(What::CopyIn(copy)) if !is_sha256(&copy.sha256) => {
                return Err(bad("the archive's SHA-256 is not 64 lower-case hex digits"));
            }
            Some(What::CopyIn(copy)) if !copy.path.starts_with('/') => {
                return Err(bad("the path to copy to is not absolute"));
            }
            Some(What::CopyIn(copy)) => Work::CopyIn {
                sha256: copy.sha256.clone(),
                bytes: copy.bytes,
                path: copy.path.clone(),
                into: copy.into,
            },
            Some(What::CopyOut(copy))
                if copy.paths.is_empty()
                    || !copy.paths.iter().all(|path| path.starts_with('/')) =>
            {
                return Err(bad("a path to copy from is not absolute"));
            }
            Some(What::CopyOut(copy)) => Work::CopyOut {
                paths: copy.paths.clone(),
            },
            Some(What::Stage(stage)) => {
                let sha = &stage.bundle_sha256;
                if !is_sha256(sha) {
                    return Err(bad("the bundle's SHA-256 is not 64 lower-case hex digits"));
                }
                Work::Stage {
                    index: stage.index,
                    name: stage.name.clone(),
                    bundle_sha256: sha.clone(),
                    bundle_bytes: stage.bundle_bytes,
                    args: stage.args.clone(),
                    attempt: stage.attempt,
                    reboots: stage.reboots,
                }
            }
        };
        if let Some(key) = start
            .env
            .keys()
            .find(|key| key.is_empty() || key.contains(['=', '\0']))
        {
            return Err(bad(&format!("{key:?} is no name of a variable")));
        }
        Ok(Self {
            run_id: start
                .run_id
                .parse()
                .map_err(|error: aot_proto::ids::BadId| bad(&error.to_string()))?,
            job_id: start.job_id.clone(),
            boot_id: boot_id.to_owned(),
            timeout_ms: start.timeout_ms,
            silence_timeout_ms: start.silence_timeout_ms,
            output_cap_bytes: start.output_cap_bytes,
            env: start
                .env
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            what,
        })
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// The journal of one agent.
pub struct Journal {
    runs_dir: PathBuf,
    runs_folder: File,
    tombstones_path: PathBuf,
    tombstones_file: Option<File>,
    tombstones: HashSet<RunId>,
    most_tombstones: usize,
    /// Folders of forgotten runs, with the time of that.
    gone: VecDeque<(Instant, PathBuf)>,
}

impl Journal {
    /// Opens the journal in `state_dir`, clearing what a crash left half made. Returns the runs in it as well.
    ///
    /// # Errors
    /// As mkdir(2), readdir(3), read(2).
    pub fn open(state_dir: &Path) -> io::Result<(Self, Vec<RunId>)> {
        let runs_dir = state_dir.join("runs");
        private_dir(&runs_dir)?;
        let tombstones_path = state_dir.join("tombstones");
        let text = match fs::read_to_string(&tombstones_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let tombstones: HashSet<RunId> =
            text.lines().filter_map(|line| line.parse().ok()).collect();
        let mut runs = Vec::new();
        for entry in fs::read_dir(&runs_dir)? {
            let entry = entry?;
            let id: Option<RunId> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            match id {
                Some(id) if !tombstones.contains(&id) => runs.push(id),
                // Half made, or forgotten but not yet removed.
                _ => fs::remove_dir_all(entry.path())?,
            }
        }
        runs.sort_unstable();
        Ok((
            Self {
                runs_folder: File::open(&runs_dir)?,
                runs_dir,
                tombstones_path,
                tombstones_file: None,
                tombstones,
                most_tombstones: MOST_TOMBSTONES,
                gone: VecDeque::new(),
            },
            runs,
        ))
    }

    /// Folder of a run.
    pub fn dir(&self, id: RunId) -> PathBuf {
        self.runs_dir.join(id.to_string())
    }

    /// Whether the run was ever journalled here.
    pub fn knows(&self, id: RunId) -> bool {
        self.tombstones.contains(&id) || self.dir(id).exists()
    }

    /// Writes the run down; that it is known is on disk when this returns, by one sync of the folder that holds all runs.
    /// What it was to do may be lost by a power cut: nobody takes it up again after one, its end is all that is told.
    ///
    /// # Errors
    /// As write(2); then the run is not in the journal.
    pub fn begin(&self, spec: &Spec, stdin: &[u8]) -> io::Result<PathBuf> {
        let dir = self.dir(spec.run_id);
        let fresh = self.runs_dir.join(format!("{}.new", spec.run_id));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&fresh)?;
        write_private(&fresh.join(SPEC), &serde_json::to_vec(spec)?)?;
        if !stdin.is_empty() {
            write_private(&fresh.join(STDIN), stdin)?;
        }
        fs::rename(&fresh, &dir)?;
        self.runs_folder.sync_all()?;
        Ok(dir)
    }

    /// The record of a run.
    ///
    /// # Errors
    /// As read(2); when it is garbled.
    pub fn spec(&self, id: RunId) -> io::Result<Spec> {
        let text = fs::read(self.dir(id).join(SPEC))?;
        let line = text.split(|byte| *byte == b'\n').next();
        Ok(serde_json::from_slice(line.unwrap_or_default())?)
    }

    /// Drops the run's folder and keeps its id. First the id, so that a killed agent knows one or the other. Not synced:
    /// the master says this when the end is on its own disk, and never starts that run again. What a power cut takes is of
    /// use only against a start that came before and is still on its way, and no session outlives one. A small folder stays
    /// aside for a while: no command should wait for its removal, and ext4 without a journal takes no inode again for minutes
    /// after it was freed, which it finds out one by one (`recently_deleted` in Linux's fs/ext4/ialloc.c).
    ///
    /// # Errors
    /// As write(2), unlink(2).
    pub fn forget(&mut self, id: RunId, now: Instant) -> io::Result<()> {
        if !self.dir(id).exists() {
            return Ok(());
        }
        if self.tombstones.insert(id) {
            self.bury(id)?;
        }
        if self.tombstones.len() > self.most_tombstones {
            self.compact()?;
        }
        // Out of the way first: a shim that comes up late must find the end or nothing, not a folder half removed.
        let gone = self.runs_dir.join(format!("{id}.gone"));
        fs::rename(self.dir(id), &gone)?;
        if self.gone.len() < MOST_GONE && is_small(&gone)? {
            self.gone.push_back((now, gone));
            return Ok(());
        }
        fs::remove_dir_all(gone)
    }

    /// Removes what is left of runs that were forgotten a while ago.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn sweep(&mut self, now: Instant) -> io::Result<()> {
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= GONE;
        while self.gone.front().is_some_and(|(since, _)| is_due(since)) {
            if let Some((_, gone)) = self.gone.pop_front() {
                fs::remove_dir_all(gone)?;
            }
        }
        Ok(())
    }

    /// Appends an id to the tombstones.
    fn bury(&mut self, id: RunId) -> io::Result<()> {
        let file = match &mut self.tombstones_file {
            Some(file) => file,
            none => none.insert(
                File::options()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(&self.tombstones_path)?,
            ),
        };
        file.write_all(format!("{id}\n").as_bytes())
    }

    /// Keeps the newer half: ids sort by time.
    fn compact(&mut self) -> io::Result<()> {
        let mut ids: Vec<RunId> = self.tombstones.iter().copied().collect();
        ids.sort_unstable();
        let kept = ids.split_off(ids.len() / 2);
        let text: String = kept.iter().map(|id| format!("{id}\n")).collect();
        write_atomic(&self.tombstones_path, text.as_bytes(), 0o600)?;
        self.tombstones = kept.into_iter().collect();
        // It was replaced by another one.
        self.tombstones_file = None;
        Ok(())
    }
}

/// Whether the folder has nothing but the record and little output.
fn is_small(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_small = name == SPEC || name == SPOOL && entry.metadata()?.len() <= SMALL_BYTES;
        if !is_small {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The shim that a run has or had; `None` when none came so far as to start something.
pub fn pid_in(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join(SPEC)).ok()?;
    text.split_once('\n')?.1.trim().parse().ok()
}

/// Takes a run's lock if no shim holds it: while the file is open no shim can start.
///
/// # Errors
/// As open(2) and flock(2).
pub fn lock_if_free(dir: &Path) -> io::Result<Option<File>> {
    let mut lock = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join(SPEC))?;
    lock.flush()?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::v1::{CopyInSpec, CopyOutSpec, ExecSpec, StageSpec};

    fn id(n: u128) -> RunId {
        RunId::from_parts(1_700_000_000_000 + n as u64, n)
    }

    fn start(id: RunId) -> StartRun {
        StartRun {
            run_id: id.to_string(),
            what: Some(What::Exec(ExecSpec {
                argv: vec!["true".into()],
                ..ExecSpec::default()
            })),
            ..StartRun::default()
        }
    }

    #[test]
    fn a_run_is_found_again_and_forgotten_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, runs) = Journal::open(dir.path()).unwrap();
        assert!(runs.is_empty());
        let spec = Spec::from_wire(&start(id(1)), "boot").unwrap();
        let run_dir = journal.begin(&spec, b"in").unwrap();
        assert_eq!(fs::read(run_dir.join(STDIN)).unwrap(), b"in");
        fs::create_dir(dir.path().join("runs/run-half.new")).unwrap();
        let (_, runs) = Journal::open(dir.path()).unwrap();
        assert_eq!(runs, [id(1)]);
        assert!(journal.spec(id(1)).unwrap() == spec);
        assert!(!dir.path().join("runs/run-half.new").exists());
        journal.forget(id(1), Instant::now()).unwrap();
        journal.forget(id(2), Instant::now()).unwrap();
        assert!(journal.knows(id(1)) && !journal.knows(id(2)));
        let (journal, runs) = Journal::open(dir.path()).unwrap();
        assert!(
            runs.is_empty() && journal.knows(id(1)),
            "a tombstone is kept over a restart"
        );
    }

    #[test]
    fn what_is_small_is_removed_a_while_after_it_was_forgotten_and_the_rest_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        let left = || fs::read_dir(dir.path().join("runs")).unwrap().count();
        let t = Instant::now();
        let cases = [("", 0), ("", SMALL_BYTES), ("in", 0), ("", SMALL_BYTES + 1)];
        for (n, (stdin, bytes)) in (0..).zip(cases) {
            let spec = Spec::from_wire(&start(id(n)), "b").unwrap();
            let run_dir = journal.begin(&spec, stdin.as_bytes()).unwrap();
            let spool = File::create(run_dir.join(SPOOL)).unwrap();
            spool.set_len(bytes).unwrap();
            journal.forget(id(n), t).unwrap();
            assert!(!run_dir.exists() && journal.knows(id(n)));
        }
        assert_eq!(left(), 2);
        journal.sweep(t + GONE - Duration::from_millis(1)).unwrap();
        assert_eq!(left(), 2);
        journal.sweep(t + GONE).unwrap();
        assert_eq!(left(), 0);
        let many = u128::try_from(MOST_GONE).unwrap();
        for n in 10..12 + many {
            let spec = Spec::from_wire(&start(id(n)), "b").unwrap();
            journal.begin(&spec, b"").unwrap();
            journal.forget(id(n), t).unwrap();
        }
        assert_eq!(left(), MOST_GONE, "there is an end to it");
        Journal::open(dir.path()).unwrap();
        assert_eq!(left(), 0, "nor does it outlive the agent for long");
    }

    #[test]
    fn a_shim_adds_its_number_to_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let mut asked = start(id(1));
        asked.env = [("A".into(), "one\ntwo".into())].into();
        let spec = Spec::from_wire(&asked, "boot").unwrap();
        let run_dir = journal.begin(&spec, b"").unwrap();
        assert_eq!(pid_in(&run_dir), None);
        let mut lock = lock_if_free(&run_dir).unwrap().unwrap();
        lock.write_all(b"\n4711").unwrap();
        assert_eq!(pid_in(&run_dir), Some(4711));
        assert!(journal.spec(id(1)).unwrap() == spec);
        assert_eq!(pid_in(dir.path()), None, "no record at all");
    }

    #[test]
    fn tombstones_are_compacted_to_the_newer_half() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.most_tombstones = 10;
        for n in 0..11 {
            journal
                .begin(&Spec::from_wire(&start(id(n)), "b").unwrap(), b"")
                .unwrap();
            journal.forget(id(n), Instant::now()).unwrap();
        }
        let (journal, _) = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.tombstones.len(), 6);
        assert!(journal.knows(id(10)) && !journal.knows(id(0)));
    }

    #[test]
    fn a_run_that_means_nothing_is_refused() {
        let good = start(id(1));
        let stage = |sha: &str| {
            Some(What::Stage(StageSpec {
                bundle_sha256: sha.into(),
                ..StageSpec::default()
            }))
        };
        for (name, bad) in [
            (
                "no id",
                StartRun {
                    run_id: "../../etc".into(),
                    ..good.clone()
                },
            ),
            (
                "nothing",
                StartRun {
                    what: None,
                    ..good.clone()
                },
            ),
            (
                "no program",
                StartRun {
                    what: Some(What::Exec(ExecSpec::default())),
                    ..good.clone()
                },
            ),
            (
                "no digest",
                StartRun {
                    what: stage("../x"),
                    ..good.clone()
                },
            ),
            (
                "a copy without a digest",
                StartRun {
                    what: Some(What::CopyIn(CopyInSpec {
                        path: "/opt".into(),
                        ..CopyInSpec::default()
                    })),
                    ..good.clone()
                },
            ),
            (
                "a copy to nowhere",
                StartRun {
                    what: Some(What::CopyIn(CopyInSpec {
                        sha256: "a".repeat(64),
                        path: "opt".into(),
                        ..CopyInSpec::default()
                    })),
                    ..good.clone()
                },
            ),
            (
                "a copy of nothing",
                StartRun {
                    what: Some(What::CopyOut(CopyOutSpec::default())),
                    ..good.clone()
                },
            ),
            (
                "bad variable",
                StartRun {
                    env: [("A=B".into(), "c".into())].into(),
                    ..good.clone()
                },
            ),
        ] {
            assert!(Spec::from_wire(&bad, "b").is_err(), "{name}");
        }
        assert!(
            Spec::from_wire(
                &StartRun {
                    what: stage(&"a".repeat(64)),
                    ..good
                },
                "b"
            )
            .is_ok()
        );
    }

    #[test]
    fn a_lock_is_free_only_while_nobody_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_if_free(dir.path()).unwrap();
        assert!(held.is_some());
        assert!(lock_if_free(dir.path()).unwrap().is_none());
        drop(held);
        assert!(lock_if_free(dir.path()).unwrap().is_some());
    }
}
