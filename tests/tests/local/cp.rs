//! `cp`: folders to many and back, names, what fails and in which words, an agent that is killed while it fetches, and
//! large files beside which a ping is as quick as ever.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use aot_tests::proxy::Proxy;
use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::{process, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn launched(nodes: u32) -> Rig {
    let rig = Rig::local();
    launch(&rig, nodes);
    rig
}

fn launch(rig: &Rig, nodes: u32) {
    rig.cluster(&format!(
        "{{cluster: cp, provider: local, pools: [{{name: node, size: {nodes}}}]}}\n"
    ));
    rig.launch().expect(0);
    // A clone has what its machine has: a folder of our own.
    rig.cli(["exec", "*", "--", "mkdir", "/opt/t"]).expect(0);
}

/// One node behind a relay that can be slow: what is large is still under way when it is looked at. `proxy` is to go last.
fn behind_a_relay() -> (Proxy, Rig) {
    let proxy = Proxy::start();
    let rig = Rig::with(&[("AOT_ADVERTISE", &proxy.address().to_string())]);
    proxy.lead_to(rig.port());
    launch(&rig, 1);
    (proxy, rig)
}

/// A folder with everything that is copied.
fn sample(rig: &Rig) -> PathBuf {
    let app = rig.dir().join("app");
    fs::create_dir_all(app.join("bin/empty")).expect("folders");
    let noise: Vec<u8> = (0..700_001u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(app.join("bin/run"), noise).expect("a file");
    fs::write(app.join("secret of mine"), "s").expect("a file");
    fs::write(app.join("none"), "").expect("a file");
    fs::write(app.join("n".repeat(200)), "long").expect("a file");
    symlink("../none", app.join("bin/link")).expect("a link");
    for (path, mode) in [
        ("bin/run", 0o755),
        ("secret of mine", 0o600),
        ("bin/empty", 0o700),
        ("bin", 0o750),
    ] {
        fs::set_permissions(app.join(path), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    app
}

/// Kind, mode, time and content of everything below `root`.
fn looks(root: &Path) -> BTreeMap<String, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().expect("it is there");
        let content = if meta.is_symlink() {
            let to = fs::read_link(&path).expect("a link");
            to.to_string_lossy().into_owned().into_bytes()
        } else if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder").flatten();
            open.extend(entries.map(|entry| entry.path()));
            Vec::new()
        } else {
            fs::read(&path).expect("a file")
        };
        let name = path
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        found.insert(name, (meta.mode(), meta.mtime(), content));
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn ended(output: &Output, instance: &str) -> Value {
    output.one(|line| line["instance"] == instance)
}

#[test]
fn a_folder_to_five_and_back() {
    let rig = launched(5);
    let app = sample(&rig);

    let there = rig.cli(["cp", "--json", "app", "node*:/opt/t/new/"]);

    there.expect(0);
    let lines = there.json();
    assert_eq!(lines.len(), 6, "{}", there.shown());
    assert_eq!(
        lines.last().expect("a summary")["summary"],
        json!({"succeeded": 5})
    );
    for line in &lines[..5] {
        assert_eq!(
            (&line["outcome"], &line["exit_code"]),
            (&json!("succeeded"), &json!(0))
        );
        assert!(
            line["bytes"].as_u64().expect("a number") > 700_000,
            "{line}"
        );
    }

    let back = rig.cli(["cp", "--json", "node*:/opt/t/new/app", "back"]);

    back.expect(0);
    let all: Vec<String> = (1..=5).map(|n| format!("node{n}")).collect();
    assert_eq!(names(&rig.dir().join("back")), all);
    let wanted = looks(&app);
    for name in &all {
        let got = looks(&rig.dir().join("back").join(name).join("app"));
        assert_eq!(
            got.keys().collect::<Vec<_>>(),
            wanted.keys().collect::<Vec<_>>()
        );
        assert!(got == wanted, "{name}: modes, times or bytes differ");
    }
    // What was fetched is not kept on the instances.
    let left = rig.sh(
        "node1",
        "find /var/lib/aot/runs -name '*.part' -o -path '*fetched/*'",
    );
    assert_eq!(left, "");
}

#[test]
fn names_and_places_are_those_of_cp() {
    let rig = launched(2);
    rig.file("a", "a");
    rig.file("b", "b");

    rig.cli(["cp", "a", "node1:/opt/t/new"]).expect(0);
    assert_eq!(rig.sh("node1", "cat /opt/t/new"), "a");
    rig.cli(["cp", "b", "node1:/opt/t/new"]).expect(0);
    assert_eq!(
        rig.sh("node1", "cat /opt/t/new; ls -A /opt/t"),
        "bnew",
        "replaced as a whole"
    );
    rig.cli(["cp", "a", "b", "node1:/opt/t/both"]).expect(0);
    assert_eq!(rig.sh("node1", "cat /opt/t/both/a /opt/t/both/b"), "ab");
    rig.cli(["cp", "a", "node1:/opt/t"]).expect(0);
    assert_eq!(rig.sh("node1", "cat /opt/t/a"), "a");

    // From one that is named there is no folder of its own; from a pattern there is.
    rig.cli(["cp", "node1:/opt/t/new", "here"]).expect(0);
    assert_eq!(
        fs::read_to_string(rig.dir().join("here")).expect("a file"),
        "b"
    );
    rig.cli(["cp", "node1:/opt/t/both", "node1:/opt/t/new", "into/"])
        .expect(0);
    assert_eq!(names(&rig.dir().join("into")), ["both", "new"]);
    rig.cli(["cp", "node[1]:/opt/t/new", "each"]).expect(0);
    assert_eq!(names(&rig.dir().join("each")), ["node1"]);

    for (words, code) in [
        (&["cp", "a", "b"][..], 2),
        (&["cp", "node1:/a", "node2:/b"], 2),
        (&["cp", "a", "node1:relative"], 2),
        (&["cp", "no-such-file", "node1:/opt/t/"], 2),
        (&["cp", "node1:/opt/t/new", "no/such/folder"], 2),
        (&["cp", "a", "nobody*:/opt/t/"], 3),
        (&["cp", "nobody:/opt/t/new", "x"], 3),
    ] {
        let output = rig.cli(words);
        assert_eq!(output.code, Some(code), "{words:?}: {}", output.shown());
    }
}

#[test]
fn what_fails_says_why_and_leaves_nothing() {
    let rig = launched(2);
    rig.file("a", "a");
    rig.sh(
        "node1",
        "mkdir /opt/t/d && echo 1 > /opt/t/d/x && mkfifo /opt/t/d/pipe",
    );

    let out = rig.cli(["cp", "--json", "node*:/opt/t/d", "got"]);
    out.expect(1);
    let failed = ended(&out, "node2");
    assert_eq!(failed["outcome"], "failed");
    let detail = failed["detail"].as_str().expect("why");
    assert!(detail.contains("/opt/t/d: No such file"), "{detail}");
    let left_out = ended(&out, "node1")["stderr"].clone();
    assert!(
        left_out
            .as_str()
            .expect("text")
            .contains("/opt/t/d/pipe was left out"),
        "{left_out}"
    );
    assert_eq!(names(&rig.dir().join("got")), ["node1"]);
    assert_eq!(names(&rig.dir().join("got/node1/d")), ["x"]);
    let text = rig.cli(["cp", "node2:/opt/t/d", "x"]);
    text.expect(1);
    assert!(
        text.stderr.contains("node2 (") && text.stderr.contains("/opt/t/d: No such file"),
        "{}",
        text.shown()
    );

    let inward = rig.cli(["cp", "--json", "a", "node1:/no/such/folder"]);
    inward.expect(1);
    let detail = ended(&inward, "node1")["detail"].clone();
    assert!(
        detail.as_str().expect("why").contains("no folder /no/such"),
        "{detail}"
    );

    // A link on the instance is not written through, unless it is the path that was asked for.
    rig.sh(
        "node1",
        "mkdir /opt/t/real /opt/t/to && ln -s /opt/t/real /opt/t/to/d && ln -s /opt/t/real /opt/t/asked",
    );
    let through = rig.cli(["cp", "--json", "got/node1/d", "node1:/opt/t/to/"]);
    through.expect(1);
    assert_eq!(rig.sh("node1", "ls -A /opt/t/real"), "");
    rig.cli(["cp", "a", "node1:/opt/t/asked"]).expect(0);
    assert_eq!(rig.sh("node1", "ls -A /opt/t/real"), "a");

    rig.machine("node2").lose_power();
    let gone = || rig.status()["node2"]["agent"]["connected"] == false;
    wait::until(gone, LIMIT, "the master to see that node2 is gone");
    for words in [
        ["cp", "--json", "a", "node*:/opt/t/"],
        ["cp", "--json", "node*:/opt/t/a", "fetched"],
    ] {
        let output = rig.cli(words);
        output.expect(1);
        assert_eq!(
            ended(&output, "node2")["outcome"],
            "absent",
            "{}",
            output.shown()
        );
        assert_eq!(
            ended(&output, "node1")["outcome"],
            "succeeded",
            "{}",
            output.shown()
        );
    }
    assert_eq!(names(&rig.dir().join("fetched")), ["node1"]);
}

/// A file of noise, and its SHA-256 as sha256sum(1) prints it.
fn large(rig: &Rig, mib: u32) -> String {
    let path = rig.dir().join("large");
    let made = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "head -c {mib}M /dev/urandom > '{0}' && sha256sum < '{0}'",
            path.display()
        ))
        .output()
        .expect("runs");
    String::from_utf8(made.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// What has come of the archive on a machine: the file's number and length.
fn part(rig: &Rig, instance: &str) -> Option<(u64, u64)> {
    let init = rig.machine(instance).init_pid()?;
    let runs = fs::read_dir(format!("/proc/{init}/root/var/lib/aot/runs")).ok()?;
    let parts = runs
        .flatten()
        .filter_map(|run| fs::read_dir(run.path().join("fetched")).ok());
    let part = parts
        .flatten()
        .flatten()
        .find(|entry| entry.path().to_string_lossy().ends_with(".part"))?;
    let meta = part.metadata().ok()?;
    (meta.len() > 0).then(|| (meta.ino(), meta.len()))
}

#[test]
fn an_agent_that_is_killed_while_it_fetches_goes_on_where_it_was() {
    let (proxy, rig) = behind_a_relay();
    let sha256 = large(&rig, 200);
    proxy.slow(true);
    let copy = rig.spawn(["cp", "--json", "large", "node1:/opt/t/large"]);
    let before = wait::some(|| part(&rig, "node1"), LIMIT, "the first bytes");

    // Frozen, the master gives nothing to the next agent until what is left has been looked at.
    let master = rig.master_pid().expect("a master");
    process::send(master, Signal::SIGSTOP);
    let machine = rig.machine("node1");
    let killed = machine.kill_agent();
    let next = || machine.agent_pid().filter(|pid| *pid != killed);
    wait::some(next, LIMIT, "the next agent");
    let after = part(&rig, "node1").expect("what came is still there");
    assert_eq!(after.0, before.0, "it is the same file");
    assert!(after.1 >= before.1);
    process::send(master, Signal::SIGCONT);
    proxy.slow(false);

    let output = copy.finish(LIMIT);
    output.expect(0);
    assert_eq!(ended(&output, "node1")["outcome"], "succeeded");
    assert_eq!(rig.sh("node1", "sha256sum < /opt/t/large"), sha256);
}

#[test]
fn a_copy_goes_on_over_a_new_master() {
    let (proxy, rig) = behind_a_relay();
    let sha256 = large(&rig, 200);
    proxy.slow(true);
    let copy = rig.spawn(["cp", "--json", "large", "node1:/opt/t/large"]);
    wait::some(|| part(&rig, "node1"), LIMIT, "the first bytes");
    rig.kill_master();
    proxy.slow(false);
    copy.finish(LIMIT).expect(4);
    let whole = || rig.sh("node1", "sha256sum < /opt/t/large || true") == sha256;
    wait::until(whole, LIMIT, "the file, brought by the next master");
}

#[test]
fn a_cancelled_copy_leaves_no_half_file() {
    let (proxy, rig) = behind_a_relay();
    large(&rig, 200);
    rig.sh("node1", "head -c 300M /dev/urandom > /opt/big");
    proxy.slow(true);
    let copy = rig.spawn(["cp", "large", "node1:/opt/t/large"]);
    wait::some(|| part(&rig, "node1"), LIMIT, "the first bytes");
    let jobs = rig.cli(["jobs", "--json"]);
    let job = jobs.one(|line| line["kind"] == "copy")["job"].clone();
    rig.cli(["jobs", "cancel", job.as_str().expect("an id")]);
    let output = copy.finish(LIMIT);
    output.expect(1);
    assert!(output.stderr.contains("cancelled"), "{}", output.shown());
    assert_eq!(rig.sh("node1", "ls -A /opt/t"), "");

    // Interrupted here, what has come is removed.
    let copy = rig.spawn(["cp", "node1:/opt/big", "got/"]);
    let come = || names(&rig.dir().join("got")).len() == 1;
    wait::until(
        || rig.dir().join("got").exists() && come(),
        LIMIT,
        "the first bytes",
    );
    copy.signal(Signal::SIGINT);
    copy.finish(LIMIT).expect(130);
    assert_eq!(names(&rig.dir().join("got")), [""; 0]);
}

#[test]
fn a_hundred_megabytes_to_ten_delay_no_ping() {
    let rig = launched(10);
    let sha256 = large(&rig, 100);
    let begin = || rig.spawn(["cp", "--json", "large", "node*:/opt/t/"]);
    let mut copy = begin();
    wait::some(|| part(&rig, "node1"), LIMIT, "the first bytes");

    // The slowest answer to each ping while a copy was under way. One may be late because all stood still for a while.
    let (mut pings, mut rounds) = (Vec::new(), 0);
    while pings.len() < 9 {
        rounds += 1;
        assert!(
            rounds <= 90,
            "of 90 pings only {} were answered before the copy beside them was over",
            pings.len()
        );
        let ping = rig.cli(["exec", "--json", "*", "ping"]);
        ping.expect(0);
        let lines = ping.json();
        let seconds = lines.iter().filter_map(|line| line["seconds"].as_f64());
        let slowest = seconds.fold(0.0, f64::max);
        if copy.has_ended() {
            std::mem::replace(&mut copy, begin())
                .finish(LIMIT)
                .expect(0);
        } else {
            pings.push(slowest);
        }
    }
    copy.finish(LIMIT).expect(0);
    pings.sort_by(f64::total_cmp);
    let median = pings[pings.len() / 2];
    assert!(median < 2.0, "pings waited behind the copy: {pings:?}");
    let sums = rig.cli([
        "exec",
        "--json",
        "*",
        "--",
        "sh",
        "-c",
        "sha256sum < /opt/t/large",
    ]);
    for n in 1..=10 {
        let sum = ended(&sums, &format!("node{n}"))["stdout"].clone();
        assert_eq!(sum.as_str().expect("text").trim(), sha256, "node{n}");
    }
}

#[test]
fn what_is_there_keeps_its_owner_and_mode_and_holes_stay_holes() {
    let rig = launched(1);
    let at = |name: &str| rig.dir().join(name);
    fs::write(at("new"), "new\n").expect("a file");
    let made = "echo secret > /opt/t/conf; chown 12:34 /opt/t/conf; chmod 600 /opt/t/conf; \
                echo old > /opt/t/real; ln -s real /opt/t/link";
    rig.sh("node1", made);
    for path in ["/opt/t/conf", "/opt/t/link"] {
        rig.cli(["cp", "new", &format!("node1:{path}")]).expect(0);
    }
    let kept =
        "stat -c '%u %g %a %F' /opt/t/conf /opt/t/link /opt/t/real; cat /opt/t/conf /opt/t/real";
    assert_eq!(
        rig.sh("node1", kept).lines().collect::<Vec<_>>(),
        [
            "12 34 600 regular file",
            "0 0 777 symbolic link",
            "0 0 644 regular file",
            "new",
            "new"
        ]
    );

    // Here a link is replaced: an instance may have sent it.
    fs::write(at("mine"), "mine\n").expect("a file");
    symlink("mine", at("conf")).expect("a link");
    rig.cli(["cp", "node1:/opt/t/conf", "."]).expect(0);
    assert_eq!(fs::read(at("mine")).expect("reads"), b"mine\n");
    assert!(at("conf").symlink_metadata().expect("is there").is_file());

    let sparse = fs::File::create(at("sparse")).expect("a file");
    sparse.set_len(1 << 30).expect("a length");
    rig.cli(["cp", "sparse", "node1:/opt/t/"]).expect(0);
    rig.cli(["cp", "node1:/opt/t/sparse", "back"]).expect(0);
    let meta = fs::metadata(at("back")).expect("is there");
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}
