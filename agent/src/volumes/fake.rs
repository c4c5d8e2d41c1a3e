//! A machine in a temporary folder, for tests: devices are files whose text says what lies on them, mounts are lines of a
//! mountinfo file, and the commands that `volumes` runs do to these what the real ones do to disks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Places;
use super::system::{Done, NotRun, System};
use super::table::Dev;
use super::wish::Wish;
use aot_proto::v1::Volume;

/// What lies on a device that holds nothing.
pub const BLANK: &[u8] = &[0; 64];
/// How a cut of the power is told from a test that fails.
pub const CUT: &str = "the power is cut";

/// How a command goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It ends with 1 and these words, before it does anything.
    Fails(&'static str),
    /// It says that all is well and does nothing.
    Lies,
}

/// Something that happens to a machine.
pub type Event = Box<dyn FnOnce(&Fake)>;

pub struct Fake {
    dir: tempfile::TempDir,
    pub places: Places,
    /// Commands so far.
    pub ran: RefCell<Vec<String>>,
    /// By program.
    pub faults: RefCell<BTreeMap<String, Fault>>,
    /// Names of what lies on a file system, by device.
    pub files: RefCell<BTreeMap<PathBuf, Vec<String>>>,
    /// For how many looks the device is held.
    pub held: Cell<u32>,
    /// The power is cut at this command: before it, halfway, or after it.
    pub cut: Cell<Option<(usize, Moment)>>,
    /// What happens while something is waited for.
    pub late: RefCell<Option<Event>>,
    numbers: RefCell<BTreeMap<PathBuf, Dev>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    Halfway,
    After,
}

impl Fake {
    /// A machine with systemd and no device.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let under = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let places = Places {
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
            places,
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
    pub fn boot(&self) {
        fs::write(self.mountinfo(), "1 0 0:5 / /proc rw - proc proc rw\n").unwrap();
        self.cut.set(None);
    }

    pub fn no_systemd(self) -> Self {
        fs::remove_dir_all(self.places.run.join("systemd")).unwrap();
        self
    }

    fn mountinfo(&self) -> PathBuf {
        self.places.proc.join("self/mountinfo")
    }

    /// A path below the machine's root, as volumes' mount points are written in these tests.
    pub fn path(&self, mount: &str) -> PathBuf {
        self.dir
            .path()
            .join("root")
            .join(mount.trim_start_matches('/'))
    }

    /// A device without anything on it.
    pub fn device(&self, name: &str, minor: u32) -> PathBuf {
        let path = self.places.dev.join(name);
        fs::write(&path, BLANK).unwrap();
        let path = path.canonicalize().unwrap();
        let dev = Dev { major: 7, minor };
        self.numbers.borrow_mut().insert(path.clone(), dev);
        let by_number = self.places.sys.join("dev/block").join(dev.to_string());
        symlink(format!("../../block/{name}"), by_number).unwrap();
        path
    }

    pub fn serial(&self, name: &str, serial: &str) {
        let dir = self.places.sys.join("block").join(name).join("device");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("serial"), serial).unwrap();
    }

    pub fn link(&self, name: &str, to: &str) {
        let path = self.places.dev.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    /// Something that happens while something is waited for.
    pub fn later(&self, event: impl FnOnce(&Fake) + 'static) {
        *self.late.borrow_mut() = Some(Box::new(event));
    }

    /// vol-0a1b, mapped as /dev/sdf.
    pub fn volume(&self, mount: &str, fs: &str) -> Volume {
        Volume {
            volume_id: "vol-0a1b".into(),
            device: "/dev/sdf".into(),
            mount: self.path(mount).display().to_string(),
            fs: fs.into(),
        }
    }

    pub fn wish(&self, mount: &str, fs: &str) -> Wish {
        Wish::new(&self.volume(mount, fs), &self.places).unwrap()
    }

    pub fn put(&self, node: &Path, text: &str) {
        fs::write(node, text).unwrap();
    }

    pub fn fault(&self, program: &str, fault: Fault) {
        self.faults.borrow_mut().insert(program.to_owned(), fault);
    }

    /// Programs that ran since this was last asked.
    pub fn programs(&self) -> Vec<String> {
        let word = |line: &String| line.split(' ').next().unwrap().to_owned();
        self.ran
            .borrow_mut()
            .drain(..)
            .map(|line| word(&line))
            .collect()
    }

    /// What is mounted at a path: the device's minor number and the type.
    pub fn mounted(&self, mount: &str) -> Option<(u32, String)> {
        let table = self.places.table();
        let entry = table.at(&self.path(mount).canonicalize().ok()?)?.clone();
        Some((entry.dev.minor, entry.fs))
    }

    pub fn mount_by_hand(&self, node: &Path, at: &Path, fs: &str) {
        let dev = self.number(node).unwrap();
        let line = format!(
            "9 1 {dev} / {} rw - {fs} {} rw\n",
            at.display().to_string().replace(' ', "\\040"),
            node.display()
        );
        let old = fs::read_to_string(self.mountinfo()).unwrap();
        fs::write(self.mountinfo(), old + &line).unwrap();
    }

    fn mount(&self, fs: &str, node: &Path, at: &Path) -> Done {
        let node = &fs::canonicalize(node).unwrap_or_else(|_| node.to_owned());
        let text = fs::read_to_string(node).unwrap_or_default();
        if !text.starts_with(&format!("FS {fs} ")) {
            let words = format!("mount: {}: wrong fs type", at.display());
            return done(32, "", &words);
        }
        self.mount_by_hand(node, at, fs);
        for name in self.files.borrow().get(node).into_iter().flatten() {
            fs::write(at.join(name), "").unwrap();
        }
        done(0, "", "")
    }

    fn umount(&self, at: &Path) -> Done {
        let text = fs::read_to_string(self.mountinfo()).unwrap();
        let here = format!(" {} rw", at.display());
        let rest: String = text
            .lines()
            .filter(|line| !line.contains(&here))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(self.mountinfo(), rest).unwrap();
        for name in fs::read_dir(at).unwrap() {
            fs::remove_file(name.unwrap().path()).unwrap();
        }
        done(0, "", "")
    }

    fn systemctl(&self, args: &[&str]) -> Done {
        let unit = |name: &str| fs::read_to_string(self.places.units.join(name)).unwrap();
        let wants = self.places.units.join("local-fs.target.wants");
        match args {
            ["daemon-reload"] => done(0, "", ""),
            ["enable", name] => {
                assert!(unit(name).contains("WantedBy=local-fs.target"));
                fs::create_dir_all(&wants).unwrap();
                symlink(format!("../{name}"), wants.join(name)).unwrap();
                done(0, "", "")
            }
            ["disable", name] => {
                fs::remove_file(wants.join(name)).unwrap();
                done(0, "", "")
            }
            ["start", name] => {
                let unit = unit(name);
                let value = |key: &str| {
                    let line = unit.lines().find_map(|line| line.strip_prefix(key));
                    line.unwrap().replace("%%", "%")
                };
                let (what, at) = (value("What="), value("Where="));
                let done = self.mount(&value("Type="), Path::new(&what), Path::new(&at));
                Done {
                    code: done.code.map(|code| code.min(1)),
                    ..done
                }
            }
            ["status", .., name] => done(3, &format!("x y z mount[7]: mount: {name} is bad\n"), ""),
            other => panic!("systemctl {other:?}"),
        }
    }

    fn command(&self, argv: &[&str]) -> Done {
        match argv {
            ["blkid", "-p", "-o", "export", node] => blkid(&fs::read(node).unwrap()),
            ["mount", "-t", fs, "-o", _, node, at] => {
                self.mount(fs, Path::new(node), Path::new(at))
            }
            ["umount", at] => self.umount(Path::new(at)),
            ["systemctl", rest @ ..] => self.systemctl(rest),
            [program, .., node] if program.starts_with("mkfs.") => {
                self.files.borrow_mut().remove(Path::new(node));
                fs::write(node, format!("FS {}", label(argv))).unwrap();
                done(0, "", "")
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Type and UUID that a mkfs was told.
fn label(argv: &[&str]) -> String {
    let uuid = argv
        .iter()
        .find_map(|word| word.strip_prefix("uuid="))
        .or_else(|| {
            argv.iter()
                .skip_while(|word| **word != "-U")
                .nth(1)
                .copied()
        });
    format!(
        "{} {}\n",
        argv[0].trim_start_matches("mkfs."),
        uuid.unwrap_or_default()
    )
}

fn done(code: i32, stdout: &str, stderr: &str) -> Done {
    Done {
        code: Some(code),
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    }
}

/// What blkid says of the texts that these tests write on devices.
fn blkid(text: &[u8]) -> Done {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    match words[..] {
        ["FS" | "TORN", fs, uuid] => done(
            0,
            &format!("UUID={uuid}\nTYPE={fs}\nUSAGE=filesystem\n"),
            "",
        ),
        ["FS" | "TORN", fs] => done(0, &format!("TYPE={fs}\nUSAGE=filesystem\n"), ""),
        ["PT", kind] => done(0, &format!("PTTYPE={kind}\n"), ""),
        ["OTHER", kind] => done(0, &format!("TYPE={kind}\nUSAGE=raid\n"), ""),
        ["AMBIVALENT"] => done(8, "", "blkid: ambivalent"),
        ["BROKEN"] => done(2, "", "error: Input/output error"),
        _ => done(2, "", ""),
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
