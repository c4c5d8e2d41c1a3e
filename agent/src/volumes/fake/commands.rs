//! What the commands that `volumes` runs do to the machine in a folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Done, Fake};

impl Fake {
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
        let unit = |name: &str| fs::read_to_string(self.paths.units.join(name)).unwrap();
        let wants = self.paths.units.join("local-fs.target.wants");
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

    pub(super) fn command(&self, argv: &[&str]) -> Done {
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

/// Type and UUID that mkfs was given.
pub(super) fn label(argv: &[&str]) -> String {
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

pub(super) fn done(code: i32, stdout: &str, stderr: &str) -> Done {
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
