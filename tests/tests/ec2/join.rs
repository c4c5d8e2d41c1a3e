//! Who may join, and how a machine that does not come up, or a stage that fails, is told.

use std::path::Path;
use std::time::Duration;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

const REST: &str = "launch: {timeout: 240s}
instances:
  - {name: solo, bootstrap_sequence: [{dir: bad}, {dir: never}]}
pools:
  - {name: pair, size: 2}
";
const SOON: Duration = Duration::from_secs(120);

#[test]
fn only_the_right_machine_with_the_right_agent_joins() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "join", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(
        &dir.join("bad"),
        "echo to-stdout\necho to-stderr >&2\nexit 3\n",
    );
    bundle::folder(&dir.join("never"), "touch /var/tmp/never\n");
    let file = cluster_file(&dir, "join", lab.ami(), REST);
    let mut story = Story::default();

    story.step("an agent that was tampered with is not installed");
    let agent = handed_out(&master);
    let good = std::fs::read(&agent).expect("reads the agent");
    replace(&agent, &[&good[..], b"tampered"].concat());
    let mut launch = master.launch(&file);
    let failed = launch.event("boot-failed", "solo", LAUNCH);
    let why = failed["message"].as_str().unwrap_or_default();
    story.check(
        why.contains("SHA-256"),
        "the failure names the checksum",
        why,
    );
    story.check(
        why.contains("198.51.100.1:7440"),
        "and where the agent came from",
        why,
    );
    let solo = failed["machine_id"]
        .as_str()
        .expect("it has a machine")
        .to_owned();
    let installed = lab.on(&solo, "test -e /usr/local/bin/aot-agent");
    story.same(installed.code, Some(1), "it is not on the machine");
    let status = master.run(&["status"]).text();
    story.check(status.contains("SHA-256"), "status shows why", &status);

    story.step(
        "once it is whole again the machine comes up, and a stage that fails fails the launch",
    );
    replace(&agent, &good);
    let launched = launch.finish(LAUNCH);
    launched.expect(1);
    story.same(
        launched.events("instance-enrolled").len(),
        3,
        "all three enrol",
    );
    a_stage_failed(&mut story, &lab, &master, &solo);

    story.step("a token joins its machine once");
    let joined = key_is_known(&lab, &solo, "/var/lib/aot");
    story.check(joined, "whoever is admitted has a certificate there", &solo);
    let before = master.log().len();
    let other = master.machine("pair1");
    let used = lab.second_agent(&other, "used", "true", "refused");
    story.check(
        used.contains("refused"),
        "the agent says that it was refused",
        &used,
    );
    let refused = format!("{other} has already enrolled with another key");
    story.check(
        master.logs(before, &refused),
        "the master says why",
        &master.log()[before..],
    );
    story.check(
        !key_is_known(&lab, &other, "/run/second-used/state"),
        "no certificate",
        &used,
    );

    story.step("a token joins no machine of another launch");
    let before = master.log().len();
    let token = lab.sure(
        &other,
        "sed -n 's/^token = \"\\(.*\\)\"$/\\1/p' /etc/aot/agent.toml",
    );
    let swap = format!(
        "sed -i 's/^token = .*/token = \"{}\"/' $config",
        token.trim()
    );
    let foreign = lab.second_agent(&solo, "foreign", &swap, "refused");
    let refused = format!("the join token belongs to other machines than {solo}");
    story.check(
        foreign.contains("refused"),
        "the agent says that it was refused",
        &foreign,
    );
    story.check(
        master.logs(before, &refused),
        "the master says why",
        &master.log()[before..],
    );
    story.check(
        !master.log().contains(token.trim()),
        "no token in the log",
        "",
    );

    story.step("a made-up token joins nothing");
    let before = master.log().len();
    let made_up = lab.second_agent(
        &solo,
        "made-up",
        "sed -i 's/^token = .*/token = \"0123456789abcdef\"/' $config",
        "refused",
    );
    story.check(
        made_up.contains("refused"),
        "the agent says that it was refused",
        &made_up,
    );
    story.check(
        master.logs(before, "the join token is unknown"),
        "the master says why",
        "",
    );

    story.step("a machine cannot say that it is another");
    let before = master.log().len();
    let pair2 = master.machine("pair2");
    let lie = lab.second_agent(
        &other,
        "lie",
        &format!("sed -i 's/^machine_id = .*/machine_id = \"{pair2}\"/' $config"),
        "refused|cannot enrol",
    );
    story.check(
        !key_is_known(&lab, &other, "/run/second-lie/state"),
        "no certificate",
        &lie,
    );
    story.check(
        lie.contains("refused") || lie.contains("cannot enrol"),
        "the agent says that it was refused",
        (&lie, &master.log()[before..]),
    );

    story.step("an agent believes no master of another CA");
    let ca = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj '/CN=aot CA false' -addext basicConstraints=critical,CA:TRUE -keyout /dev/null -out $dir/ca.pem 2>/dev/null
sed -i '/^ca_pem/,/^\"\"\"/d' $config
sed -i \"1i ca_file = \\\"$dir/ca.pem\\\"\" $config";
    let strange = lab.second_agent(&other, "strange", ca, "certificate|unknownissuer");
    let words = strange.to_lowercase();
    story.check(
        words.contains("certificate") || words.contains("unknownissuer"),
        "the agent names the certificate as the cause",
        &strange,
    );
    story.check(
        !words.contains("refused to enrol"),
        "it never got as far as asking",
        &strange,
    );

    story.step("none of that touched those who are in");
    for name in ["solo", "pair1", "pair2"] {
        wait::until(
            || master.status(name)["agent"]["connected"].as_bool() == Some(true),
            SOON,
            "it is connected",
        );
    }
    story.same(
        master.run(&["exec", "*", "ping"]).code,
        Some(0),
        "all answer",
    );
    story.same(master.cleanup("join").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}

/// The only agent that the master hands out.
fn handed_out(master: &Master) -> std::path::PathBuf {
    let folder = std::fs::read_dir(master.state_dir().join("agents")).expect("reads");
    let files: Vec<_> = folder.map(|entry| entry.expect("reads").path()).collect();
    assert_eq!(files.len(), 1, "one agent: {files:?}");
    files.into_iter().next().expect("one")
}

/// In one step, so that nobody reads half a file.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).expect("writes");
    std::fs::rename(&new, path).expect("renames");
}

fn a_stage_failed(story: &mut Story, lab: &Lab, master: &Master, solo: &str) {
    let status = master.status("solo");
    story.same(status["phase"].as_str(), Some("failed"), "its phase");
    story.same(
        status["machine_id"].as_str(),
        Some(solo),
        "the machine is kept",
    );
    story.check(lab.machine(solo).running, "and runs", solo);
    story.same(
        lab.on(solo, "test -e /var/tmp/never").code,
        Some(1),
        "no later stage runs",
    );
    let logs = master.run(&["logs", "solo"]);
    for word in ["to-stdout", "to-stderr"] {
        let both = format!("{}{}", logs.text(), logs.stderr);
        story.check(both.contains(word), "what it printed is on record", &logs);
    }
    let text = master.run(&["status"]).text();
    story.check(
        text.contains("failed in bad (exit 3"),
        "status names the exit code",
        &text,
    );
    let (_, listed) = master.json(&["list", "-s", "solo"]);
    story.same(
        listed[0]["stages"][0]["exit_code"].as_i64(),
        Some(3),
        "so does list -s",
    );
    for name in ["pair1", "pair2"] {
        story.same(
            master.status(name)["phase"].as_str(),
            Some("ready"),
            "the others are ready",
        );
    }
}

/// Whether an agent with this state folder has got a certificate.
fn key_is_known(lab: &Lab, machine: &str, state: &str) -> bool {
    lab.on(machine, &format!("test -e {state}/identity.pem"))
        .code
        == Some(0)
}
