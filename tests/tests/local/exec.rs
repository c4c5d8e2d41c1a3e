//! `exec`: targets, outcomes, exit codes, `--json`, output of every kind and size, and a master that is killed meanwhile.

use std::collections::BTreeSet;

use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::{process, wait};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getsid};
use serde_json::{Value, json};

fn launched(nodes: u32) -> Rig {
    let rig = Rig::local();
    rig.cluster(&format!(
        "
cluster: exec
provider: local
instances: [{{name: head}}]
pools: [{{name: node, size: {nodes}}}]
"
    ));
    rig.launch().expect(0);
    rig
}

fn alone() -> Rig {
    let rig = Rig::local();
    rig.cluster("{cluster: exec, provider: local, instances: [{name: head}]}\n");
    rig.launch().expect(0);
    rig
}

fn keys(line: &Value) -> BTreeSet<&str> {
    line.as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

#[track_caller]
fn ended(output: &Output, instance: &str) -> Value {
    output.one(|line| line["instance"] == instance)
}

#[test]
fn json_has_one_object_a_target_and_a_summary() {
    let rig = launched(2);

    let output = rig.cli([
        "exec",
        "--json",
        "*",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);

    output.expect(0);
    let lines = output.json();
    assert_eq!(lines.len(), 4);
    let (summary, ends) = lines.split_last().expect("lines");
    let wanted = [
        "job",
        "instance",
        "outcome",
        "exit_code",
        "stdout",
        "stderr",
        "seconds",
    ];
    for end in ends {
        assert_eq!(keys(end), wanted.into(), "{end}");
        assert_eq!(
            (&end["outcome"], &end["exit_code"]),
            (&json!("succeeded"), &json!(0))
        );
        assert_eq!(
            (&end["stdout"], &end["stderr"]),
            (&json!("out\n"), &json!("err\n"))
        );
        assert_eq!(end["job"], summary["job"]);
    }
    assert_eq!(keys(summary), ["job", "summary"].into());
    assert_eq!(summary["summary"], json!({"succeeded": 3}));

    let plain = rig.cli(["exec", "head", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(plain.text(), "head | out\n", "{}", plain.shown());
    assert!(plain.stderr.contains("head | err\n"), "{}", plain.shown());
}

#[test]
fn targets_and_builtins() {
    let rig = launched(3);
    for (target, wanted) in [
        ("*", &["head", "node1", "node2", "node3"][..]),
        ("node*", &["node1", "node2", "node3"]),
        ("node{1,3}", &["node1", "node3"]),
        ("head,node2", &["head", "node2"]),
        ("pool:node and not name:node3", &["node1", "node2"]),
        ("re:^node[12]$", &["node1", "node2"]),
        ("fact:os.name=debian and name:head", &["head"]),
        ("state:ready", &["head", "node1", "node2", "node3"]),
    ] {
        let output = rig.cli(["exec", "--json", target, "ping"]);
        output.expect(0);
        let lines = output.json();
        let mut names: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["instance"].as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, wanted, "{target}");
    }
    let version = ended(&rig.cli(["exec", "--json", "head", "version"]), "head");
    assert_eq!(
        version["result"],
        rig.status()["head"]["agent"]["version"],
        "{version}"
    );
    let facts = ended(&rig.cli(["exec", "--json", "head", "facts"]), "head");
    assert_eq!(facts["result"]["hostname"], "head", "{facts}");
    let host = rig.cli(["exec", "--json", "head", "--", "ping"]);
    assert_ne!(
        ended(&host, "head")["result"],
        json!(true),
        "after -- it is the host's ping"
    );
}

#[test]
fn exit_codes_and_outcomes() {
    let rig = launched(1);

    let failed = rig.cli([
        "exec",
        "--json",
        "*",
        "--",
        "sh",
        "-c",
        "test $(hostname) = head || exit 17",
    ]);
    failed.expect(1);
    let end = ended(&failed, "node1");
    assert_eq!(
        (&end["outcome"], &end["exit_code"]),
        (&json!("failed"), &json!(17))
    );
    assert_eq!(
        failed.json().last().expect("a summary")["summary"],
        json!({"failed": 1, "succeeded": 1})
    );

    let signalled = rig.cli(["exec", "--json", "head", "--", "sh", "-c", "kill -9 $$"]);
    signalled.expect(1);
    assert_eq!(ended(&signalled, "head")["outcome"], "failed");

    let unknown = rig.cli(["exec", "--json", "head", "--", "no-such-program-anywhere"]);
    unknown.expect(1);
    let outcome = ended(&unknown, "head")["outcome"].clone();
    assert!(
        outcome == "rejected" || outcome == "failed",
        "{}",
        unknown.shown()
    );

    rig.cli(["exec", "nobody*", "ping"]).expect(3);
    rig.cli(["exec", "head"]).expect(2);
    rig.cli(["exec", "pool:", "ping"]).expect(2);
    rig.cli(["exec", "head", "--timeout", "soon", "ping"])
        .expect(2);
}

#[test]
fn nobody_to_ask_is_exit_code_4() {
    let rig = Rig::local();
    rig.cli(["exec", "*", "ping"]).expect(4);
    assert_eq!(rig.master_pid(), None, "no master is started for nothing");
}

/// Its bit in a mask of signals; Rust's runtime ignores it in every program.
const SIGPIPE: u64 = 1 << 12;

/// Signals that this process ignores.
fn inherited() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find(|line| line.starts_with("SigIgn:"));
    let mask = line.and_then(|line| line.rsplit('\t').next());
    u64::from_str_radix(mask.expect("proc(5) has it"), 16).expect("hex")
}

#[test]
fn commands_start_with_no_signal_blocked_or_ignored() {
    let rig = alone();
    // Not through a shell: some clear their mask when they start.
    let output = rig.cli([
        "exec",
        "--json",
        "head",
        "--",
        "grep",
        "-E",
        "Sig(Blk|Ign)",
        "/proc/self/status",
    ]);
    let end = ended(&output, "head");
    let masks: Vec<u64> = end["stdout"]
        .as_str()
        .expect("text")
        .lines()
        .map(|line| {
            u64::from_str_radix(line.rsplit('\t').next().expect("a value"), 16).expect("hex")
        })
        .collect();
    // Signals 32 and up are the C library's own (signal(7)); what this test was started with (nohup(1)) is not aot's doing.
    let ours = inherited() & !SIGPIPE;
    let standard = |mask: &u64| mask & 0x7fff_ffff & !ours;
    let shown = end["stdout"].as_str().expect("text");
    assert_eq!(
        masks.iter().map(standard).collect::<Vec<_>>(),
        [0, 0],
        "blocked or ignored:\n{shown}"
    );
}

#[test]
fn a_master_in_the_background_leads_a_session_of_its_own() {
    let rig = alone();
    let master = rig.master_pid().and_then(|pid| i32::try_from(pid).ok());
    let master = master.map(Pid::from_raw).expect("it runs");
    assert_eq!(getsid(Some(master)), Ok(master));
}

#[test]
fn master_and_agents_have_a_larger_share_of_the_processors_than_what_they_start() {
    let enabled = std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    if !enabled.is_ok_and(|text| text.trim() == "1") || !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: shares by session (autogroup) are off here, or may not be asked for");
        return;
    }
    let rig = alone();
    let share = |path: &str| {
        let text = std::fs::read_to_string(path).expect("a process's group");
        text.trim().rsplit(' ').next().map(str::to_owned)
    };
    let master = rig.master_pid().expect("it runs");
    assert_eq!(
        share(&format!("/proc/{master}/autogroup")).as_deref(),
        Some("-10")
    );
    let line = "cat /proc/self/autogroup; \
                for p in /proc/[0-9]*; do read name <$p/comm; [ \"$name\" != aot-agent ] || cat $p/autogroup; done";
    let output = rig.cli(["exec", "--json", "--shell", "head", "--", line]);
    let end = ended(&output, "head");
    let shown = end["stdout"].as_str().expect("text");
    let shares: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(shares, ["0", "-10"], "{shown}");
}

#[test]
fn commands_get_the_environment_folder_user_and_input_that_were_asked_for() {
    let rig = alone();
    let output = rig.cli([
        "exec",
        "--json",
        "--env",
        "A=b c",
        "--cwd",
        "/usr",
        "--user",
        "nobody",
        "head",
        "--",
        "sh",
        "-c",
        "echo $A; pwd; id -un; id -Gn; cat",
    ]);
    output.expect(0);
    assert_eq!(
        ended(&output, "head")["stdout"],
        "b c\n/usr\nnobody\nnogroup\n"
    );

    rig.file("input", "one\ntwo\n");
    let output = rig.cli([
        "exec", "--json", "--stdin", "input", "head", "--", "wc", "-l",
    ]);
    assert_eq!(
        ended(&output, "head")["stdout"].as_str().map(str::trim),
        Some("2")
    );
}

#[test]
fn output_that_is_no_text_is_base64() {
    let rig = alone();
    let output = rig.cli(["exec", "--json", "head", "--", "printf", r"a\377b\000"]);
    output.expect(0);
    let end = ended(&output, "head");
    assert_eq!(end["stdout_base64"], "Yf9iAA==");
    assert_eq!((end.get("stdout"), &end["stderr"]), (None, &json!("")));
}

#[test]
fn twenty_megabytes_arrive_whole_and_in_order() {
    let rig = alone();
    let output = rig.cli(["exec", "head", "--", "seq", "-w", "1", "2500000"]);
    output.expect(0);
    let mut count = 0_u32;
    for line in output.text().lines() {
        count += 1;
        assert_eq!(line, format!("head | {count:07}"));
    }
    assert_eq!(count, 2_500_000);
    assert!(!output.stderr.contains("cut"), "{}", output.stderr);
}

#[test]
fn json_output_is_whole_or_says_that_it_is_not() {
    let rig = alone();
    let output = rig.cli(["exec", "--json", "head", "--", "seq", "-w", "1", "2500000"]);
    output.expect(0);
    let end = ended(&output, "head");
    let text = end["stdout"].as_str().expect("text");
    let first = |count: u32| (1..=count).map(|n| format!("{n:07}\n")).collect::<String>();
    if end["truncated"] == true {
        assert!(text.len() >= 16 << 20, "{} bytes are kept", text.len());
        assert!(
            first(2_500_000).starts_with(text),
            "what is kept is the beginning"
        );
    } else {
        assert!(text == first(2_500_000), "{} bytes", text.len());
    }
}

#[test]
fn a_command_outlives_the_master_and_its_result_is_on_record() {
    let rig = alone();
    let line = "echo begun; touch /opt/begun; until test -e /opt/go; do sleep 0.05; done; echo done; exit 5";
    let exec = rig.spawn(["exec", "--json", "head", "--", "sh", "-c", line]);
    let machine = rig.machine("head");
    let begun = || machine.read("/opt/begun").is_some();
    wait::until(begun, LIMIT, "the command to begin");

    rig.kill_master();
    let init = machine.init_pid().expect("up");
    std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");

    let over = exec.finish(LIMIT);
    over.expect(1);
    let end = ended(&over, "head");
    assert_eq!(
        (&end["exit_code"], &end["stdout"]),
        (&json!(5), &json!("begun\ndone\n"))
    );
    assert_eq!(
        over.stderr.matches("the master is gone").count(),
        1,
        "{}",
        over.shown()
    );
    let job = || {
        let jobs = rig.cli(["jobs", "--json"]);
        jobs.expect(0);
        let job = jobs.one(|job| job["kind"] == "exec");
        (!job["ended"].is_null()).then_some(job)
    };
    let job = wait::some(job, LIMIT, "the end of the job");
    assert_eq!(job["summary"], json!({"failed": 1}), "{job}");
    assert_eq!(
        rig.sh("head", "ls /opt/begun /opt/go"),
        "/opt/begun\n/opt/go",
        "all is well again"
    );
}

#[test]
fn an_exec_asked_while_agents_are_coming_back_reaches_them() {
    let rig = launched(2);
    rig.kill_master();
    let output = rig.cli(["exec", "--json", "*", "--", "hostname"]);
    output.expect(0);
    assert_eq!(
        output.json().last().expect("a summary")["summary"],
        json!({"succeeded": 3})
    );
}

#[test]
fn a_builtin_asked_while_agents_are_coming_back_reaches_them() {
    let rig = launched(2);
    rig.kill_master();
    let output = rig.cli(["exec", "--json", "*", "ping"]);
    output.expect(0);
    assert_eq!(
        output.json().last().expect("a summary")["summary"],
        json!({"succeeded": 3})
    );
}

#[test]
fn an_interrupted_exec_goes_on() {
    let rig = alone();
    let line = "touch /opt/begun; until test -e /opt/go; do sleep 0.05; done; touch /opt/done";
    let exec = rig.spawn(["exec", "head", "--", "sh", "-c", line]);
    let machine = rig.machine("head");
    wait::until(
        || machine.read("/opt/begun").is_some(),
        LIMIT,
        "the command to begin",
    );
    exec.signal(Signal::SIGINT);
    let output = exec.finish(LIMIT);
    output.expect(130);
    assert!(
        output.stderr.contains("aot-master jobs"),
        "{}",
        output.shown()
    );
    rig.sh("head", "touch /opt/go");
    wait::until(
        || machine.read("/opt/done").is_some(),
        LIMIT,
        "the command to end",
    );
}

#[test]
fn a_machine_without_power_is_absent_and_a_command_on_it_lost() {
    let rig = launched(1);
    let machine = rig.machine("node1");
    let exec = rig.spawn([
        "exec",
        "--json",
        "*",
        "--",
        "sh",
        "-c",
        "touch /opt/begun; test $(hostname) = head || sleep 4246",
    ]);
    wait::until(
        || machine.read("/opt/begun").is_some(),
        LIMIT,
        "the command to begin",
    );
    machine.lose_power();

    let output = exec.finish(LIMIT);
    output.expect(1);
    assert_eq!(ended(&output, "head")["outcome"], "succeeded");
    assert_eq!(
        ended(&output, "node1")["outcome"],
        "lost_contact",
        "{}",
        output.shown()
    );

    let output = rig.cli(["exec", "--json", "*", "ping"]);
    output.expect(1);
    assert_eq!(ended(&output, "node1")["outcome"], "absent");
    assert_eq!(
        output.json().last().expect("a summary")["summary"],
        json!({"absent": 1, "succeeded": 1})
    );
    let status = rig.status();
    assert_eq!(status["node1"]["agent"]["connected"], false);
    assert_eq!(status["node1"]["state"], "stopped");
}

#[test]
fn an_agent_that_is_frozen_is_seen_as_gone_and_is_back_when_it_thaws() {
    let rig = alone();
    let agent = rig.machine("head").agent_pid().expect("an agent");
    process::send(agent, Signal::SIGSTOP);
    let connected = || rig.status()["head"]["agent"]["connected"] == true;
    wait::until(|| !connected(), LIMIT, "the master to miss the agent");
    let output = rig.cli(["exec", "--json", "head", "ping"]);
    output.expect(1);
    assert_eq!(ended(&output, "head")["outcome"], "absent");
    process::send(agent, Signal::SIGCONT);
    wait::until(connected, LIMIT, "the agent to come back");
    rig.cli(["exec", "head", "ping"]).expect(0);
}
