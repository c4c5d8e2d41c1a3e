//! What an editor's remote mode and other programs built on ssh do all day, through an agent: one connection that many
//! sessions share, folders by scp and rsync, sftp, ports and a proxy led through.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use aot_tests::process::Running;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::sshd::Sshd;
use aot_tests::{debian, wait};

use super::ways::{answers, has, prepared, run, server};

/// Files of a folder that is copied.
const FILES: usize = 1_000;

/// Sessions at once.
const SESSIONS: usize = 16;

/// Debian's packages of rsync and what it needs.
const RSYNC: [&str; 5] = ["rsync", "libpopt0", "libxxhash0", "liblz4-1", "libacl1"];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A folder of many small files, in folders.
fn many(rig: &Rig) -> PathBuf {
    for n in 0..FILES {
        let content = format!("{n}\n").repeat(n % 50);
        rig.file(&format!("many/{}/{n}.txt", n % 10), &content);
    }
    rig.dir().join("many")
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).expect("it was copied").flatten() {
            let path = entry.path();
            if entry.file_type().expect("its kind").is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, fs::read(&path).expect("reads"));
            }
        }
    }
    found
}

/// Sessions that each send and get their own megabyte.
fn at_once(config: &str, more: &[&str]) {
    thread::scope(|scope| {
        for n in 0..SESSIONS {
            scope.spawn(move || {
                let line = format!("{n} and more\n").repeat(100_000);
                let mut ssh = Command::new("ssh");
                ssh.args(["-F", config]).args(more).args(["head", "cat"]);
                let mut child = ssh
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("ssh starts");
                let mut stdin = child.stdin.take().expect("piped above");
                let sent = line.clone();
                let writer = thread::spawn(move || stdin.write_all(sent.as_bytes()));
                let output = child.wait_with_output().expect("it ends");
                writer.join().expect("no panic").expect("it reads all");
                assert!(output.status.success(), "session {n}: {}", output.status);
                assert!(output.stdout == line.as_bytes(), "session {n}");
            });
        }
    });
}

/// Ports led through ssh: one by name, and any by a proxy that speaks SOCKS.
fn led_through(config: &str) {
    let (named, proxy, behind) = (free_port(), free_port(), server());
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", config, "-N", "-o", "ExitOnForwardFailure=yes"])
        .args(["-L", &format!("127.0.0.1:{named}:127.0.0.1:{behind}")])
        .args(["-D", &format!("127.0.0.1:{proxy}"), "head"]);
    let running = Running::start(ssh);
    let connects = |port: u16| TcpStream::connect(("127.0.0.1", port)).ok();
    let first = wait::some(|| connects(named), LIMIT, "ssh listens");
    answers(first, "by name");
    thread::scope(|scope| {
        for n in 0..SESSIONS {
            scope.spawn(move || {
                let mut stream = connects(proxy).expect("it listens, too");
                // RFC 1928: no authentication; connect to 127.0.0.1 and the port.
                stream.write_all(&[5, 1, 0]).expect("it reads");
                let mut chosen = [0; 2];
                stream.read_exact(&mut chosen).expect("it answers");
                assert_eq!(chosen, [5, 0]);
                let [high, low] = behind.to_be_bytes();
                let to = [5, 1, 0, 1, 127, 0, 0, 1, high, low];
                stream.write_all(&to).expect("it reads");
                let mut done = [0; 10];
                stream.read_exact(&mut done).expect("it answers");
                assert_eq!(done[..2], [5, 0], "it connected");
                answers(stream, &format!("by a proxy, {n}"));
            });
        }
    });
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.finish(LIMIT);
}

fn by_scp(rig: &Rig, config: &str, many: &Path) {
    let back = rig.dir().join("back");
    run(
        "scp",
        &["-q", "-r", "-F", config, &text(many), "head:/root/many"],
    )
    .expect(0);
    run(
        "scp",
        &["-q", "-r", "-F", config, "head:/root/many", &text(&back)],
    )
    .expect(0);
    assert!(contents(&back) == contents(many), "the same comes back");
}

fn by_sftp(rig: &Rig, config: &str, many: &Path) {
    let back = rig.dir().join("sftp");
    let script = format!(
        "mkdir /root/sftp\ncd /root/sftp\nput {}/7/7.txt\nrename 7.txt eight\nchmod 600 eight\nls -l\nget eight {}\nrm eight\ncd ..\nrmdir sftp\n",
        many.display(),
        back.display()
    );
    let batch = text(&rig.file("batch", &script));
    run("sftp", &["-q", "-F", config, "-b", &batch, "head"]).expect(0);
    let sent = fs::read(many.join("7/7.txt")).expect("reads");
    assert_eq!(fs::read(back).expect("it was got"), sent);
    assert_eq!(rig.sh("head", "ls /root | grep -c sftp || true"), "0");
}

/// rsync both ways, and again after a change, by which only that is sent.
fn by_rsync(rig: &Rig, config: &str, many: &Path) -> Result<(), String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut rsync = (PathBuf::from("rsync"), String::new());
    if !has("rsync") {
        let tree = debian::unpacked(cache, "rsync", &RSYNC)?;
        let usr = format!("{}/usr/.", tree.display());
        rig.cli(["cp", &usr, "head:/usr/"]).expect(0);
        let arch = std::env::consts::ARCH;
        let libraries = tree.join(format!("usr/lib/{arch}-linux-gnu"));
        rsync = (tree.join("usr/bin/rsync"), text(&libraries));
    }
    let shell = format!("env -u LD_LIBRARY_PATH ssh -F {config}");
    let sent = |words: &[&str]| {
        let mut command = Command::new(&rsync.0);
        command.args(["-a", "--stats", "--delete", "-e", &shell]);
        command.args(words).env("LC_ALL", "C");
        if !rsync.1.is_empty() {
            command.env("LD_LIBRARY_PATH", &rsync.1);
        }
        let output = Running::start(command).finish(LIMIT);
        output.expect(0);
        let text = output.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Number of regular files transferred: "));
        let number = line.map(|number| number.replace(',', ""));
        number.and_then(|number| number.parse::<usize>().ok())
    };
    let (from, back) = (format!("{}/", many.display()), rig.dir().join("rsync"));
    assert_eq!(sent(&[&from, "head:/root/rsync/"]), Some(FILES));
    fs::write(many.join("3/3.txt"), "changed\n").expect("written");
    fs::remove_file(many.join("4/4.txt")).expect("removed");
    assert_eq!(sent(&[&from, "head:/root/rsync/"]), Some(1));
    sent(&["head:/root/rsync/", &text(&back)]);
    assert!(contents(&back) == contents(many), "the same comes back");
    Ok(())
}

#[test]
fn what_editors_do_over_ssh_works_through_an_agent() {
    let mut rig = Rig::local();
    rig.cluster("{cluster: ways, provider: local, instances: [{name: head}]}\n");
    rig.launch().expect(0);
    match Sshd::found(&rig, Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Err(why) => eprintln!("SKIPPED: what editors do, {why}"),
        Ok(sshd) => {
            let (config, _) = prepared(&rig, &sshd);
            at_once(&config, &[]);
            let path = format!("ControlPath={}/cm", rig.dir().display());
            let shared = ["-o", "ControlMaster=auto", "-o", &path];
            let mut first = Command::new("ssh");
            first.args(["-F", &config, "-N"]).args(shared).arg("head");
            let first = Running::start(first);
            let check = ["-F", &config, "-O", "check", "-o", &path, "head"];
            let open = || run("ssh", &check).code == Some(0);
            wait::until(open, LIMIT, "a connection to share");
            at_once(&config, &shared);
            run("ssh", &["-F", &config, "-O", "exit", "-o", &path, "head"]).expect(0);
            first.finish(LIMIT);
            led_through(&config);
            let many = many(&rig);
            by_scp(&rig, &config, &many);
            by_sftp(&rig, &config, &many);
            if let Err(why) = by_rsync(&rig, &config, &many) {
                eprintln!("SKIPPED: rsync, {why}");
            }
        }
    }
    assert_eq!(rig.clean(), Vec::<String>::new());
}
