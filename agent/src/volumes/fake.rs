//! A machine in a temporary folder, for tests: devices are files whose text says what lies on them, mounts are lines of a
//! mountinfo file, and the commands that `volumes` runs do to these what the real ones do to disks.

mod commands;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_proto::v1::Volume;

use super::VolumePaths;
use super::mountinfo::Dev;
use super::request::VolumeRequest;
use super::system::{Done, NotRun, System};
use commands::{done, label};

/// What lies on a device that holds nothing.
pub(super) const BLANK: &[u8] = &[0; 64];
/// Distinguishes a cut of the power from a test that fails.
pub(super) const CUT: &str = "the power is cut";

/// How a command goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It is not there.
    Missing,
    /// It ends with 1 and these words, before it does anything.
    Fails(&'static str),
    /// It says that all is well and does nothing.
    Lies,
}

/// Something that happens to a machine.
pub(super) type Event = Box<dyn FnOnce(&Fake)>;

pub(super) struct Fake {
    dir: tempfile::TempDir,
    pub paths: VolumePaths,
    pub ran: RefCell<Vec<String>>,
    /// By program.
    pub faults: RefCell<BTreeMap<String, Fault>>,
    /// Names of what lies on a file system, by device.
    pub files: RefCell<BTreeMap<PathBuf, Vec<String>>>,
    /// For how many checks the device is held.
    pub held: Cell<u32>,
    /// The power is cut at this command: before it, halfway, or after it.
    pub cut: Cell<Option<(usize, Moment)>>,
    /// What happens while something is waited for.
    pub late: RefCell<Option<Event>>,
    numbers: RefCell<BTreeMap<PathBuf, Dev>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    Halfway,
    After,
}

impl Fake {
    /// A machine with systemd and no device.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let under = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let paths = VolumePaths {
            state_dir: under("state"),
            units: under("units"),
            dev: under("dev"),
            sys: under("sys"),
            proc: under("proc"),
            run: under("run"),
            appear: Duration::from_millis(40),
            release: Duration::from_millis(40),
        };
        for folder in [
            "run/systemd/system",
            "sys/block",
            "sys/dev/block",
            "proc/self",
            "proc/sys/kernel/random",
        ] {
            under(folder);
        }
        let fake = Self {
            dir,
            paths,
            ran: RefCell::default(),
            faults: RefCell::default(),
            files: RefCell::default(),
            held: Cell::default(),
            cut: Cell::default(),
            late: RefCell::default(),
            numbers: RefCell::default(),
        };
        fake.boot();
        fake
    }

    /// Switches it on: nothing is mounted.
    pub(super) fn boot(&self) {
        fs::write(self.mountinfo(), "1 0 0:5 / /proc rw - proc proc rw\n").unwrap();
        self.cut.set(None);
    }

    pub(super) fn no_systemd(self) -> Self {
        aot_host::removal::remove_tree(&self.paths.run.join("systemd")).unwrap();
        self
    }

    fn mountinfo(&self) -> PathBuf {
        self.paths.proc.join("self/mountinfo")
    }

    /// A path below the machine's root, as volumes' mount points are written in these tests.
    pub(super) fn path(&self, mount: &str) -> PathBuf {
        self.dir
            .path()
            .join("root")
            .join(mount.trim_start_matches('/'))
    }

    /// A device without anything on it.
    pub(super) fn device(&self, name: &str, minor: u32) -> PathBuf {
        let path = self.paths.dev.join(name);
        fs::write(&path, BLANK).unwrap();
        let path = path.canonicalize().unwrap();
        let dev = Dev { major: 7, minor };
        self.numbers.borrow_mut().insert(path.clone(), dev);
        let by_number = self.paths.sys.join("dev/block").join(dev.to_string());
        symlink(format!("../../block/{name}"), by_number).unwrap();
        path
    }

    pub(super) fn serial(&self, name: &str, serial: &str) {
        let dir = self.paths.sys.join("block").join(name).join("device");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("serial"), serial).unwrap();
    }

    pub(super) fn link(&self, name: &str, to: &str) {
        let path = self.paths.dev.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    /// Something that happens while something is waited for.
    pub(super) fn later(&self, event: impl FnOnce(&Fake) + 'static) {
        *self.late.borrow_mut() = Some(Box::new(event));
    }

    /// vol-0a1b, mapped as /dev/sdf.
    pub(super) fn volume(&self, mount: &str, fs: &str) -> Volume {
        Volume {
            volume_id: "vol-0a1b".into(),
            device: "/dev/sdf".into(),
            mount: self.path(mount).display().to_string(),
            fs: fs.into(),
        }
    }

    pub(super) fn request(&self, mount: &str, fs: &str) -> VolumeRequest {
        VolumeRequest::new(&self.volume(mount, fs), &self.paths).unwrap()
    }

    pub(super) fn put(&self, node: &Path, text: &str) {
        fs::write(node, text).unwrap();
    }

    pub(super) fn fault(&self, program: &str, fault: Fault) {
        self.faults.borrow_mut().insert(program.to_owned(), fault);
    }

    /// Programs that ran since this was last asked.
    pub(super) fn programs(&self) -> Vec<String> {
        let word = |line: &String| line.split(' ').next().unwrap().to_owned();
        self.ran
            .borrow_mut()
            .drain(..)
            .map(|line| word(&line))
            .collect()
    }

    /// What is mounted at a path: the device's minor number and the type.
    pub(super) fn mounted(&self, mount: &str) -> Option<(u32, String)> {
        let table = self.paths.table();
        let entry = table.at(&self.path(mount).canonicalize().ok()?)?.clone();
        Some((entry.dev.minor, entry.fs))
    }

    pub(super) fn mount_by_hand(&self, node: &Path, at: &Path, fs: &str) {
        let dev = self.number(node).unwrap();
        let line = format!(
            "9 1 {dev} / {} rw - {fs} {} rw\n",
            at.display().to_string().replace(' ', "\\040"),
            node.display()
        );
        let old = fs::read_to_string(self.mountinfo()).unwrap();
        fs::write(self.mountinfo(), old + &line).unwrap();
    }
}

impl System for Fake {
    fn run(&self, argv: &[&str], _within: Duration) -> Result<Done, NotRun> {
        let nth = self.ran.borrow().len();
        let cut = self
            .cut
            .get()
            .filter(|(at, _)| *at == nth)
            .map(|(_, moment)| moment);
        assert!(cut != Some(Moment::Before), "{CUT}");
        self.ran.borrow_mut().push(argv.join(" "));
        if cut == Some(Moment::Halfway) {
            if let [program, .., node] = argv
                && program.starts_with("mkfs.")
            {
                fs::write(node, format!("TORN {}", label(argv))).unwrap();
            }
            panic!("{CUT}");
        }
        let fault = self.faults.borrow().get(argv[0]).copied();
        let done = match fault {
            Some(Fault::Missing) => return Err(NotRun::Missing(argv[0].to_owned())),
            Some(Fault::Fails(words)) => done(1, "", words),
            Some(Fault::Lies) => done(0, "", ""),
            None => self.command(argv),
        };
        assert!(cut.is_none(), "{CUT}");
        Ok(done)
    }

    fn number(&self, path: &Path) -> Option<Dev> {
        self.numbers.borrow().get(path).copied()
    }

    fn is_held(&self, _node: &Path) -> io::Result<bool> {
        let left = self.held.get();
        self.held.set(left.saturating_sub(1));
        Ok(left > 0)
    }

    fn wait(&self, _dir: &Path, _within: Duration) {
        let event = self.late.borrow_mut().take();
        if let Some(event) = event {
            event(self);
        }
    }
}
