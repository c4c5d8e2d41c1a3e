//! Secrets on clones: given to stages and commands, hidden in all that is printed, and in no file of the master or of a machine, whatever
//! is killed meanwhile.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_host::hash::sha256_hex;
use aot_tests::process;
use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::wait;
use tempfile::TempDir;

/// Time for a launch.
const LAUNCH: Duration = Duration::from_secs(180);

const DB: &str = "s3cr3t-of-the-db";
const NEW_DB: &str = "an0ther-0ne-of-the-db";
const TLS: &str =
    "-----BEGIN KEY-----\nbHVuY2ggaXMgYXQgbm9vbg\nZG9uJ3QgYmUgbGF0ZQ\n-----END KEY-----\n";
const API: &str = "t0ken-1-of-2-t0ken-2-of-2";

/// What no file and no output may have.
const PLAIN: [&str; 5] = [
    DB,
    NEW_DB,
    "bHVuY2ggaXMgYXQgbm9vbg",
    "ZG9uJ3QgYmUgbGF0ZQ",
    API,
];

/// Notes that it ran.
const LEDGER: &str = "mkdir -p /opt; echo $AOT_STAGE >> /opt/ledger\n";

/// A rig, what its commands printed, and a folder beside it with what is secret.
struct Story {
    rig: Rig,
    printed: RefCell<Vec<String>>,
    hidden: TempDir,
}

impl Story {
    fn new(stages: &str) -> Self {
        let mut rig = Rig::local();
        let hidden = tempfile::tempdir().expect("a folder");
        fs::write(hidden.path().join("tls.key"), TLS).expect("written");
        rig.set_env("HUSH_DB", DB);
        rig.bundle("plain", LEDGER);
        rig.cluster(&format!(
            "
cluster: hush
provider: local
secrets:
  db: {{env: HUSH_DB}}
  tls: {{file: {}/tls.key}}
  api: {{command: \"printf '%s-' t0ken-1-of-2; printf '%s\\\\n' t0ken-2-of-2\"}}
instances:
  - name: head
    bootstrap_sequence:
{stages}",
            hidden.path().display()
        ));
        Self {
            rig,
            printed: RefCell::default(),
            hidden,
        }
    }

    #[track_caller]
    fn cli(&self, words: &[&str]) -> Output {
        self.keep(self.rig.cli_within(LAUNCH, words))
    }

    fn keep(&self, output: Output) -> Output {
        let text = format!("{}\n{}", output.text(), output.stderr);
        self.printed.borrow_mut().push(text);
        output
    }

    #[track_caller]
    fn launch(&self) -> Output {
        let output = self.cli(&["launch", "--json", "--yes", "cluster.yml"]);
        output.expect(0);
        output
    }

    /// Nothing that is secret is in a file below the test's folder, with all state and all clones; nor in what is left in the memory
    /// of a clone, nor in anything that was printed.
    #[track_caller]
    fn nothing_is_told(&self) {
        let mut files = files_with_secrets(self.rig.dir());
        for machine in self.rig.machines() {
            if let Some(init) = machine.init_pid() {
                files.extend(files_with_secrets(Path::new(&format!(
                    "/proc/{init}/root/run"
                ))));
            }
        }
        assert_eq!(files, Vec::<PathBuf>::new());
        for text in self.printed.borrow().iter() {
            assert!(!has_secret(text.as_bytes()), "{text}");
        }
    }

    fn ledger(&self) -> String {
        self.rig.sh("head", "tr -d '\\n' < /opt/ledger")
    }

    /// Folders of secrets that the clone has now.
    fn folders(&self) -> String {
        self.rig
            .sh("head", "ls /run/aot/secrets 2>/dev/null | wc -l")
    }

    #[track_caller]
    fn ledger_has(&self, line: &str) {
        let read = || self.rig.machines().first()?.read("/opt/ledger");
        let has = || read().is_some_and(|text| text.lines().any(|found| found == line));
        wait::until(has, LIMIT, &format!("{line:?} in the ledger"));
    }

    /// Lets what waits in the clone continue, without a command.
    fn release(&self) {
        let init = self.rig.machine("head").init_pid().expect("up");
        fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
    }
}

fn has_secret(bytes: &[u8]) -> bool {
    PLAIN.iter().any(|plain| {
        let plain = plain.as_bytes();
        bytes.windows(plain.len()).any(|window| window == plain)
    })
}

fn files_with_secrets(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            found.extend(files_with_secrets(&path));
        } else if kind.is_ok_and(|kind| kind.is_file())
            && fs::read(&path).is_ok_and(|bytes| has_secret(&bytes))
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn stages_and_commands_have_them_and_nothing_tells_them() {
    let mut story = Story::new(
        "
      - {dir: plain}
      - {dir: reads, secrets: [tls, {name: db, env: DB_PASSWORD}, api]}
      - {dir: follows, secrets: db, rerun_on_secret: true}
      - {dir: plain, name: last}
",
    );
    let reads = "stat -c '%a %n' $AOT_SECRETS/* | sed 's|/run.*/||' > /opt/modes
cat $AOT_SECRETS/tls; echo db is $DB_PASSWORD; cat $AOT_SECRETS/api >&2
(cd $AOT_SECRETS; cat tls | sha256sum; printf '%s' \"$DB_PASSWORD\" | sha256sum; sha256sum < api) | cut -c1-64 > /opt/sums
";
    story.rig.bundle("reads", &format!("{LEDGER}{reads}"));
    let follows = "sha256sum < $AOT_SECRETS/db | cut -c1-64 > /opt/db\n";
    story.rig.bundle("follows", &format!("{LEDGER}{follows}"));

    story
        .cli(&["check", "cluster.yml", "--expanded", "--json"])
        .expect(0);
    story.cli(&["plan", "--json", "cluster.yml"]).expect(0);
    story.launch();
    let sums = [TLS, DB, API].map(|value| sha256_hex(value.as_bytes()));
    assert_eq!(story.rig.sh("head", "cat /opt/sums"), sums.join("\n"));
    assert_eq!(
        story.rig.sh("head", "cat /opt/modes"),
        "600 api\n600 db\n600 tls"
    );
    let logs = story.cli(&["logs", "head", "--stage", "1"]);
    let logs = logs.text() + &logs.stderr;
    for line in ["| [secret tls]", "| db is [secret db]", "| [secret api]"] {
        assert!(logs.contains(line), "{line}: {logs}");
    }
    assert_eq!(story.folders(), "0");

    // Commands: files, a variable, and what is printed by chance.
    let script = "echo $DB; cat $AOT_SECRETS/tls; sha256sum < $AOT_SECRETS/db | cut -c1-64";
    let exec = [
        "exec", "--json", "--secret", "tls", "--secret", "db=DB", "head", "--", "sh", "-c", script,
    ];
    let output = story.cli(&exec);
    let ended = output.one(|line| line["instance"] == "head");
    assert_eq!(
        ended["stdout"],
        format!("[secret db]\n[secret tls]\n{}\n", sums[1]),
        "{}",
        output.shown()
    );
    let user = [
        "exec",
        "--json",
        "--user",
        "nobody",
        "--secret",
        "db",
        "head",
        "--",
        "sh",
        "-c",
        "sha256sum < $AOT_SECRETS/db | cut -c1-64",
    ];
    let ended = story.cli(&user).one(|line| line["instance"] == "head");
    assert_eq!(ended["stdout"], format!("{}\n", sums[1]), "{ended}");
    let none = story.cli(&["exec", "--secret", "dbx", "head", "--", "true"]);
    none.expect(2);
    assert!(
        none.stderr.contains("it has: api, db, tls"),
        "{}",
        none.shown()
    );
    for given in [
        ["--secret", "db=X", "--secret", "api=X"],
        ["-e", "X=plain", "--secret", "db=X"],
    ] {
        let words = [&["exec"][..], &given, &["head", "--", "true"]].concat();
        let twice = story.cli(&words);
        twice.expect(2);
        assert!(
            twice.stderr.contains("X is given twice"),
            "{}",
            twice.shown()
        );
    }
    // With its secrets, a command is one message to an agent.
    let long = "x".repeat(120 << 10);
    let words = [&["exec", "head", "--", "true"][..], &[&*long; 14]].concat();
    let too_long = story.cli(&words);
    too_long.expect(2);
    assert!(too_long.stderr.contains("1.5 MiB"), "{}", too_long.stderr);
    assert_eq!(story.folders(), "0");

    let jobs = story.cli(&["jobs", "--json"]).json();
    let exec = jobs.iter().find(|job| job["kind"] == "exec");
    let id = exec.expect("one was run")["job"]
        .as_str()
        .expect("an id")
        .to_owned();
    for words in [
        &["jobs", "show", &id][..],
        &["jobs", "show", "--json", &id],
        &["list", "-s", "--json", "head"],
        &["status", "--json"],
        &["facts", "--json", "head"],
        &["plan", "--json", "cluster.yml"],
    ] {
        story.cli(words).expect(0);
    }
    story.nothing_is_told();

    // Another value runs again what asks for that.
    fs::write(
        story.hidden.path().join("tls.key"),
        TLS.replace("-----END", "eHh4eHh4eA\n-----END"),
    )
    .expect("written");
    story.launch();
    assert_eq!(story.ledger(), "0123", "no stage follows that one");
    story.rig.set_env("HUSH_DB", NEW_DB);
    let plan = story.cli(&["plan", "--json", "cluster.yml"]).text();
    assert!(plan.contains("secret db"), "{plan}");
    story.launch();
    assert_eq!(story.ledger(), "012323");
    let sum = sha256_hex(NEW_DB.as_bytes());
    assert_eq!(story.rig.sh("head", "cat /opt/db"), sum);
    // What is run again on purpose has what the last launch brought, whatever the environment says.
    story.rig.unset_env("HUSH_DB");
    story.cli(&["apply", "--force", "--json"]).expect(0);
    assert_eq!(story.ledger(), "0123230123");
    let missing = story.cli(&["launch", "--json", "--yes", "cluster.yml"]);
    missing.expect(2);
    assert!(
        missing.stderr.contains("HUSH_DB is not set"),
        "{}",
        missing.shown()
    );
    story.nothing_is_told();
}

/// A story whose only stage waits with its secrets, and then says what they are.
fn waiting() -> Story {
    let story = Story::new("      - {dir: waits, secrets: [{name: db, env: DB}, tls]}\n");
    let waits = "mkdir -p /opt; echo begin $AOT_ATTEMPT >> /opt/ledger
until test -e /opt/go; do sleep 0.05; done
cat $AOT_SECRETS/tls; echo $DB; printf '%s' \"$DB\" | sha256sum | cut -c1-64 > /opt/db
echo end $AOT_ATTEMPT >> /opt/ledger
";
    story.rig.bundle("waits", waits);
    story
}

#[track_caller]
fn said_masked(story: &Story) {
    let sum = sha256_hex(DB.as_bytes());
    assert_eq!(story.rig.sh("head", "cat /opt/db"), sum);
    let logs = story.cli(&["logs", "head", "--stage", "0"]).text();
    assert!(
        logs.contains("[secret tls]") && logs.contains("[secret db]"),
        "{logs}"
    );
    assert_eq!(story.folders(), "0");
    story.nothing_is_told();
}

#[test]
fn they_stay_hidden_when_master_and_agent_are_killed_amid_a_stage() {
    let story = waiting();
    let launch = story
        .rig
        .spawn(["launch", "--json", "--yes", "cluster.yml"]);
    story.ledger_has("begin 1");
    let machine = story.rig.machine("head");
    story.rig.kill_master();
    machine.kill_agent();
    story.release();
    story.keep(launch.finish(LIMIT)).expect(0);
    assert_eq!(story.rig.sh("head", "cat /opt/ledger"), "begin 1\nend 1");
    said_masked(&story);
}

#[test]
fn a_stage_that_loses_power_is_given_them_again() {
    let story = waiting();
    let mut launch = story
        .rig
        .spawn(["launch", "--json", "--yes", "cluster.yml"]);
    story.ledger_has("begin 1");
    let machine = story.rig.machine("head");
    machine.lose_power();
    story.nothing_is_told();
    let up = ["machine-run", machine.dir.to_str().expect("a path")];
    story.rig.cli(up).expect(0);
    launch.event("stage-interrupted", "head", LIMIT);
    story.ledger_has("begin 2");
    story.release();
    story.keep(launch.finish(LIMIT)).expect(0);
    said_masked(&story);
}

#[test]
fn what_a_killed_shim_leaves_goes_with_its_run() {
    let story = waiting();
    let mut launch = story
        .rig
        .spawn(["launch", "--json", "--yes", "cluster.yml"]);
    story.ledger_has("begin 1");
    let init = story.rig.machine("head").init_pid().expect("up");
    let shims = process::tree(init).into_iter().filter(|pid| {
        let line = process::command_line(*pid);
        line.ends_with(" shim") || line.contains("aot-agent shim")
    });
    let shims: Vec<u32> = shims.collect();
    assert!(!shims.is_empty());
    for shim in shims {
        process::kill_hard(shim);
    }
    launch.event("stage-interrupted", "head", LIMIT);
    story.ledger_has("begin 2");
    story.release();
    story.keep(launch.finish(LIMIT)).expect(0);
    said_masked(&story);
}
