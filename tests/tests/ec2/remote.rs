//! Every verb of remote execution on real machines: commands in systemd scopes, their cancellation, files both ways, a
//! terminal, stages run again where they failed, logs as they come, inventories, ssh, and a command kept for a machine that
//! is stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aot_tests::bundle;
use aot_tests::jobs;
use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::{Output, Running};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(120);
const REST: &str = "launch: {timeout: 240s}
pools: [{name: web, size: 2, bootstrap_sequence: [{dir: stage}]}]
";
/// Fails on one of two.
const BAD: &str = "echo ran >> /var/tmp/ran\ntest $(hostname) = web1\n";
/// Takes long enough to be followed.
const GOOD: &str = "echo mended; echo ran >> /var/tmp/ran
until test -e /var/tmp/seen; do sleep 0.1; done; echo over\n";

#[test]
fn machines_are_worked_on_from_afar() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "remote", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("stage"), BAD);
    let file = cluster_file(&dir, "remote", lab.ami(), REST);
    let mut story = Story::default();

    story.step("launch: a stage fails on one of two");
    master.launched(&file, 1);
    let ids = master.machine_ids();

    story.step("apply --failed, followed by logs -f");
    bundle::folder(&dir.join("stage"), GOOD);
    applies(&mut story, &lab, &master, &ids);

    story.step("exec goes on while its agent is restarted");
    outlives(&mut story, &lab, &master, &ids["web1"]);

    story.step("cancel ends a whole scope");
    cancels(&mut story, &lab, &master, &ids);

    story.step("cp both ways");
    copies(&mut story, &lab, &master, &ids);

    story.step("shell");
    shells(&mut story, &master);

    story.step("inventory and ssh-config");
    inventories(&mut story, &master);
    reaches_by_ssh(&mut story, &lab, &master, &ids);

    story.step("a command kept for a machine that is stopped");
    queues(&mut story, &master);

    story.same(master.cleanup("remote").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}

type Ids = BTreeMap<String, String>;

#[track_caller]
fn exec(master: &Master, flags: &[&str], target: &str, line: &str) -> Output {
    let words = [
        &["exec", "--json"],
        flags,
        &[target, "--", "sh", "-c", line],
    ];
    master.run(&words.concat())
}

/// What is on record of a job once `settled` holds of it.
#[track_caller]
fn on_record(
    master: &Master,
    id: &str,
    what: &str,
    settled: impl Fn(&jobs::Shown) -> bool,
) -> jobs::Shown {
    let look = || {
        let shown = jobs::shown(master.run(&["jobs", "show", "--json", id]));
        settled(&shown).then_some(shown)
    };
    wait::some(look, LONG, what)
}

fn applies(story: &mut Story, lab: &Lab, master: &Master, ids: &Ids) {
    let mut logs = master.spawn(&["logs", "-f", "--json", "web*"]);
    let apply = master.spawn(&["apply", "--failed", "--json"]);
    let says = |line: &Value, name: &str, text: &str| {
        line["instance"] == name
            && line["data"]
                .as_str()
                .is_some_and(|data| data.contains(text))
    };
    logs.until(
        |line| says(line, "web2", "mended"),
        LONG,
        "logs -f shows what comes",
    );
    lab.sure(&ids["web2"], "touch /var/tmp/seen");
    logs.until(
        |line| says(line, "web2", "over"),
        SOON,
        "logs -f shows the rest",
    );
    logs.signal(Signal::SIGINT);
    let left = logs.finish(SOON);
    story.same(left.code, Some(130), "Ctrl-C ends logs -f");
    let applied = apply.finish(LONG);
    story.same(applied.code, Some(0), "apply --failed");
    for (name, runs) in [("web1", 1), ("web2", 2)] {
        let ran = lab.sure(&ids[name], "cat /var/tmp/ran");
        story.same(ran.lines().count(), runs, "only what failed is run again");
        story.same(master.status(name)["phase"].as_str(), Some("ready"), name);
    }
    let nothing = master.run(&["apply", "--failed"]);
    story.check(
        matches!(nothing.code, Some(0 | 3)),
        "nothing has failed any more",
        &nothing,
    );
}

fn outlives(story: &mut Story, lab: &Lab, master: &Master, machine: &str) {
    let line = "grep ^0:: /proc/self/cgroup; seq 1 2000; touch /var/tmp/begun
until test -e /var/tmp/go; do sleep 0.1; done; seq 2001 4000; exit 6";
    let begun = exec(master, &["--detach"], "web1", line);
    begun.expect(0);
    let id = jobs::id(&begun);
    let there = || lab.on(machine, "test -e /var/tmp/begun").code == Some(0);
    wait::until(there, SOON, "the command to begin");
    let pid = "systemctl show -p MainPID --value aot-agent";
    let before = lab.sure(machine, pid);
    lab.sure(machine, "systemctl restart aot-agent && touch /var/tmp/go");
    story.check(
        lab.sure(machine, pid) != before,
        "the agent is another",
        &before,
    );

    let shown = on_record(master, &id, "the end of the command", |shown| {
        shown
            .outcomes()
            .get("web1")
            .is_some_and(|word| word == "failed")
    });
    let end = shown.of("web1");
    story.same(end["exit_code"].clone(), json!(6), "its exit code is known");
    let text = end["stdout"].as_str().unwrap_or_default();
    let (cgroup, rest) = text.split_once('\n').unwrap_or_default();
    story.check(
        cgroup.contains("/aot-commands-") && cgroup.contains(".scope"),
        "commands have a scope",
        cgroup,
    );
    let all: String = (1..=4000).map(|n| format!("{n}\n")).collect();
    let numbers = rest.find("1\n2\n3\n").map_or("", |at| &rest[at..]);
    story.check(numbers == all, "its output is whole", text.len());
}

fn cancels(story: &mut Story, lab: &Lab, master: &Master, ids: &Ids) {
    let line = "rm -f /var/tmp/begun; setsid sleep 86531 & (sleep 86532 &); \
                (trap '' TERM; sleep 86533 & wait) & touch /var/tmp/begun; sleep 86534";
    let begun = exec(master, &["--detach"], "*", line);
    begun.expect(0);
    let id = jobs::id(&begun);
    for machine in ids.values() {
        let there = || {
            let found = lab.on(machine, "pgrep -c -f '^sleep 8653[1-4]$'");
            found.text().trim() == "4"
        };
        wait::until(there, SOON, "the whole tree is there");
    }
    let cancelled = master.run(&["jobs", "cancel", "--json", "--grace", "1s", &id]);
    let report = jobs::shown(cancelled);
    let wanted: BTreeMap<String, String> = ids
        .keys()
        .map(|name| (name.clone(), "cancelled".to_owned()))
        .collect();
    story.same(report.outcomes(), wanted, "each is told to be cancelled");
    for machine in ids.values() {
        let left = || lab.on(machine, "pgrep -f '^sleep 8653[1-4]$'").code == Some(1);
        story.check(
            wait::maybe(|| left().then_some(()), SOON).is_some(),
            "nothing of the tree is left",
            machine,
        );
        let alone = || only_shims(&lab.sure(machine, IN_SCOPES)).then_some(());
        story.check(
            wait::maybe(alone, SOON).is_some(),
            "no scope has more than its shim",
            lab.on(machine, IN_SCOPES),
        );
    }
    story.step("one command after the other in one scope");
    let scope = || {
        let line = "grep -o 'aot-commands-.*scope' /proc/self/cgroup | sort -u; echo $PPID";
        let shown = jobs::shown(exec(master, &[], "web1", line));
        let text = shown.of("web1")["stdout"].as_str();
        text.unwrap_or_default().to_owned()
    };
    // A shim that is not free yet when the next command comes is left out, so it may take more than three.
    let mut scopes = vec![scope(), scope(), scope()];
    let same = |scopes: &[String]| scopes.windows(2).all(|pair| pair[0] == pair[1]);
    while !same(&scopes[scopes.len() - 3..]) && scopes.len() < 12 {
        scopes.push(scope());
    }
    let last = scopes[scopes.len() - 3..].to_vec();
    story.check(last[0].contains(".scope\n"), "a scope and a shim", &scopes);
    story.check(same(&last), "the same again", &scopes);
}

/// The command lines of what is in the scopes of commands.
const IN_SCOPES: &str = "grep -ls aot-commands- /proc/[0-9]*/cgroup |
    while read -r file; do tr '\\0' ' ' <${file%cgroup}cmdline; echo; done";

fn only_shims(lines: &str) -> bool {
    lines.lines().all(|line| line.ends_with(" shim "))
}

fn copies(story: &mut Story, lab: &Lab, master: &Master, ids: &Ids) {
    let here = lab.dir().join("copies");
    let text: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    std::fs::create_dir_all(here.join("tree/deep")).expect("makes the folder");
    std::fs::write(here.join("tree/deep/big"), &text).expect("writes");
    std::fs::write(here.join("tree/tool"), "#!/bin/sh\n").expect("writes");
    let tool = here.join("tree/tool");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    std::fs::set_permissions(&tool, mode).expect("its mode");
    let tree = here.join("tree").display().to_string();

    let sent = master.run(&["cp", &tree, "web*:/var/tmp/"]);
    story.same(sent.code, Some(0), "a folder to all");
    story.check(sent.code == Some(0), "it goes well", &sent);
    for machine in ids.values() {
        let seen = lab.on(
            machine,
            "cd /var/tmp/tree && wc -c < deep/big && stat -c %a tool && sha256sum deep/big",
        );
        let mut lines = seen.text();
        lines.truncate(lines.find("  ").unwrap_or(lines.len()));
        let wanted = format!("{}\n750\n", text.len());
        story.check(lines.starts_with(&wanted), "size and mode there", &seen);
    }
    lab.sure(&ids["web2"], "echo two > /var/tmp/tree/mine");
    lab.sure(&ids["web1"], "echo one > /var/tmp/tree/mine");
    let back = here.join("back").display().to_string();
    std::fs::create_dir_all(&back).expect("makes the folder");
    let fetched = master.run(&["cp", "web*:/var/tmp/tree", &back]);
    story.check(fetched.code == Some(0), "a folder from all", &fetched);
    for (name, wanted) in [("web1", "one\n"), ("web2", "two\n")] {
        let theirs = Path::new(&back).join(name).join("tree");
        let mine = std::fs::read_to_string(theirs.join("mine")).unwrap_or_default();
        story.same(mine.as_str(), wanted, "one folder an instance");
        let big = std::fs::read_to_string(theirs.join("deep/big")).unwrap_or_default();
        story.check(big == text, "its content came back", big.len());
    }
    let missing = master.run(&["cp", "web*:/var/tmp/not-there", &back]);
    story.same(missing.code, Some(1), "what is not there is exit code 1");
}

fn shells(story: &mut Story, master: &Master) {
    let plain = master.run(&[
        "shell",
        "web1",
        "--",
        "sh",
        "-c",
        "echo at $(hostname); exit 7",
    ]);
    story.same(plain.code, Some(7), "the exit code is the command's");
    story.check(plain.text().contains("at web1"), "and its output", &plain);

    // In a real terminal of a size that nobody has by chance.
    let line = format!(
        "stty rows 41 cols 123; {} shell web2 -- sh -c 'stty size; tty; exit 9'",
        aot_tests::rig::master_program().display()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    master.as_operator(&mut command);
    let shown = Running::start(command).finish(SOON);
    story.same(shown.code, Some(9), "the exit code in a terminal");
    story.check(
        shown.text().contains("41 123"),
        "its size is known there",
        &shown,
    );
    story.check(
        shown.text().contains("/dev/pts/"),
        "it is a terminal there",
        &shown,
    );
    let (_, all) = master.json(&["jobs"]);
    let kinds = all.iter().filter(|job| job["kind"] == "shell").count();
    story.same(kinds, 2, "terminals are jobs on record");
    let two = master.run(&["shell", "web*", "--", "true"]);
    story.same(two.code, Some(2), "a terminal is on one instance");
}

fn inventories(story: &mut Story, master: &Master) {
    let output = master.run(&["inventory", "--ansible", "--list"]);
    output.expect(0);
    let seen: Value = serde_json::from_slice(&output.stdout).expect("an inventory is JSON");
    story.same(
        seen["web"]["hosts"].clone(),
        json!(["web1", "web2"]),
        "pools are groups",
    );
    for name in ["web1", "web2"] {
        let vars = &seen["_meta"]["hostvars"][name];
        story.check(
            vars["ansible_host"].is_string(),
            "hosts have an address",
            vars,
        );
    }
}

/// By the Host blocks alone, with strict checking. An operator's key is put there as one would be by a key pair.
fn reaches_by_ssh(story: &mut Story, lab: &Lab, master: &Master, ids: &Ids) {
    let here = lab.dir().join("ssh");
    std::fs::create_dir(&here).expect("makes the folder");
    let hosts = here.join("known_hosts").display().to_string();
    let output = master.run(&["ssh-config", "--known-hosts", &hosts]);
    output.expect(0);
    let text = output.text();
    story.check(text.contains("Host web1"), "a block an instance", &output);
    let key = here.join("key").display().to_string();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    Running::start(keygen).finish(SOON).expect(0);
    let public = std::fs::read_to_string(format!("{key}.pub")).expect("reads");
    let add = format!(
        "install -d -m 700 -o admin -g admin ~admin/.ssh && echo '{}' >> ~admin/.ssh/authorized_keys",
        public.trim()
    );
    for (name, id) in ids {
        lab.sure(id, &add);
        let block = text
            .split("Host ")
            .find(|block| block.starts_with(name.as_str()));
        let named = block.and_then(|block| {
            let line = block
                .lines()
                .find(|line| line.trim().starts_with("HostName"))?;
            line.split_whitespace().nth(1).map(str::to_owned)
        });
        // Public addresses of this lab lead nowhere: the private one is put in their place.
        let status = master.status(name);
        let address = status["private_ip"].as_str().unwrap_or_default();
        if named.as_deref() == status["public_ip"].as_str() {
            eprintln!("SKIPPED: ssh to the public address of {name}; its private one is taken");
        }
        let config = here.join(format!("config-{name}"));
        let body = match named {
            Some(named) => text.replace(&named, address),
            None => text.clone(),
        };
        std::fs::write(&config, body).expect("writes");
        let known = std::fs::read_to_string(&hosts).expect("the known hosts are written");
        story.check(
            known.contains(name.as_str()),
            "its host key is known by name",
            &known,
        );
        let mut ssh = lab.inside(Path::new("/usr/bin/ssh"));
        ssh.arg("-F").arg(&config).args(["-i", &key]);
        ssh.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        ssh.args(["-o", "ConnectTimeout=10", name, "hostname"]);
        let said = Running::start(ssh).finish(SOON);
        story.check(
            said.code == Some(0) && said.text().trim() == name,
            "ssh by the block reaches the machine",
            &said,
        );
    }
}

fn queues(story: &mut Story, master: &Master) {
    master.run(&["stop", "web2", "--yes"]).expect(0);
    let now = exec(master, &[], "web*", "true");
    let outcomes = jobs::shown(now).outcomes();
    story.same(
        outcomes["web2"].as_str(),
        "absent",
        "who is stopped is absent",
    );
    story.same(
        outcomes["web1"].as_str(),
        "succeeded",
        "who is there is not",
    );
    let kept = exec(master, &["--detach", "--queue", "5m"], "web*", "hostname");
    kept.expect(0);
    let id = jobs::id(&kept);
    master.run(&["start", "web2"]).expect(0);
    let shown = on_record(master, &id, "the command's end on both", |shown| {
        shown
            .outcomes()
            .values()
            .filter(|word| *word == "succeeded")
            .count()
            == 2
    });
    story.same(
        shown.of("web2")["stdout"].clone(),
        json!("web2\n"),
        "it ran there",
    );
}
