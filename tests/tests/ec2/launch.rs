//! The life of a cluster on EC2: launched, looked at, launched again, changed, grown, cleaned up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{Master, events_of};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Output;
use aot_tests::wait;
use serde_json::Value;

/// Reaches every peer by name as root with strict checking, then notes that it ran.
const REACH_PEERS: &str = r#"set -eu
for peer in $(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1])))' "$AOT_CLUSTER_FACTS"); do
  ssh -o BatchMode=yes -o StrictHostKeyChecking=yes "$peer" true
  echo "reached $peer"
done
echo "$AOT_STAGE $AOT_CLUSTER $AOT_INSTANCE $AOT_ATTEMPT $AOT_REBOOTS $HOME $(id -un)" >> /var/tmp/ran
"#;
/// Takes long enough that whoever does not wait for it is seen to be early.
const SECOND: &str =
    "sleep 1\necho \"$AOT_STAGE $*\" >> /var/tmp/ran\ngrep ^0:: /proc/self/cgroup\n";
/// What every machine's entry in the facts file holds.
const FACTS: [&str; 16] = [
    "name",
    "ip_address",
    "hostname",
    "subnet",
    "main_user",
    "owner",
    "public_ip",
    "private_dns",
    "public_dns",
    "machine_id",
    "instance_type",
    "availability_zone",
    "region",
    "pool",
    "ssh_host_keys",
    "node",
];
/// The facts file as a machine has it, its state and sum, and how many of its names lead to the right address.
const LOOK_AT_FACTS: &str = r#"python3 -c '
import hashlib, json, socket
raw = open("/etc/cluster_facts.json", "rb").read()
facts = json.loads(raw)
known = sum(socket.gethostbyname(name) in (entry["ip_address"], "127.0.1.1") for name, entry in facts.items())
print(json.dumps({"facts": facts, "state": json.load(open("/etc/aot/cluster_state.json")),
                  "sha256": hashlib.sha256(raw).hexdigest(), "known": known}))
'"#;
const SOON: Duration = Duration::from_secs(120);

fn file(dir: &Path, ami: &str, size: usize) -> PathBuf {
    let rest = format!(
        "launch: {{timeout: 240s}}
instances:
  - name: manager
    bootstrap_sequence: [{{dir: first}}, {{dir: second, args: [--level, '0']}}]
pools:
  - name: web
    size: {size}
    bootstrap_sequence: [{{dir: first}}, {{dir: second, needs: [manager/1]}}]
    update: {{concurrency: 1}}
    health: test -s /var/tmp/ran
"
    );
    cluster_file(dir, "life", ami, &rest)
}

#[test]
fn a_cluster_is_launched_grown_and_cleaned_up() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "life", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("first"), REACH_PEERS);
    bundle::folder(&dir.join("second"), SECOND);
    let small = file(&dir, lab.ami(), 3);
    let mut story = Story::default();

    story.step("launch of one instance and a pool of three");
    let launched = master.launched(&small, 0);
    stages_ran_in_order(&mut story, &launched);
    what_ec2_was_asked(&mut story, &lab);

    story.step("every machine is as the contract says");
    let ids = master.machine_ids();
    assert_eq!(ids.len(), 4, "four instances: {ids:?}");
    for (name, id) in &ids {
        machine_is_right(&mut story, &lab, name, id);
    }
    facts_are_right(&mut story, &lab, &master, 4);
    runs_have_scopes(&mut story, &master);

    story.step("exec");
    commands_run(&mut story, &master);

    story.step("a second launch changes nothing and says so");
    let calls = lab.calls("RunInstances");
    let again = master.launched(&small, 0);
    let end = &again.events("launch-ended")[0];
    story.same(
        end["changed"].as_bool(),
        Some(false),
        "launch-ended says whether anything changed",
    );
    let said = end["message"].as_str().unwrap_or_default().to_owned();
    story.check(said.contains("nothing to do"), "it says so", said);
    story.same(
        lab.calls("RunInstances"),
        calls,
        "no RunInstances call is made",
    );
    story.same(master.machine_ids(), ids.clone(), "the machines stay");
    for id in ids.values() {
        story.same(stages(&lab, id), vec!["0", "1"], "no stage runs again");
    }

    story.step("an agent that is killed comes back by itself");
    agent_comes_back(&mut story, &lab, &master, &ids["web1"]);

    story.step("a changed bundle runs again from there");
    bundle::folder(&dir.join("second"), &format!("{SECOND}echo changed\n"));
    let changed = master.launched(&small, 0);
    one_at_a_time(&mut story, &changed);
    story.same(master.machine_ids(), ids.clone(), "the machines stay");
    for id in ids.values() {
        story.same(
            stages(&lab, id),
            vec!["0", "1", "1"],
            "stage 1 runs again, stage 0 does not",
        );
    }
    let logs = master.run(&["logs", "web2", "--stage", "1"]);
    story.check(
        logs.text().contains("changed"),
        "its output is on record",
        logs,
    );

    story.step("one more in the pool");
    grows(&mut story, &lab, &master, &file(&dir, lab.ami(), 4), &ids);

    story.step("cleanup leaves nothing");
    cleans_up(&mut story, &lab, &master);
    master.stop();
    lab.end();
    story.end();
}

/// The pool's instances were changed one after the other, each once the one before had passed its check.
fn one_at_a_time(story: &mut Story, changed: &Output) {
    let events = changed.json();
    let kinds = ["update-started", "health-check-started", "instance-ready"];
    let of_pool = events.iter().filter_map(|event| {
        let (name, kind) = (event["instance"].as_str()?, event["event"].as_str()?);
        let is_meant = name.starts_with("web") && kinds.contains(&kind);
        is_meant.then_some((name, kind))
    });
    let wanted = ["web1", "web2", "web3"];
    let wanted = wanted
        .iter()
        .flat_map(|name| kinds.iter().map(move |kind| (*name, *kind)));
    story.same(
        of_pool.collect::<Vec<_>>(),
        wanted.collect::<Vec<_>>(),
        "the pool is changed one by one",
    );
}

fn stages_ran_in_order(story: &mut Story, launched: &Output) {
    let events = launched.json();
    let place = |name: &str, kind: &str, stage: u64| {
        let found = events.iter().position(|event| {
            event["instance"] == name && event["event"] == kind && event["stage"] == stage
        });
        found.unwrap_or_else(|| panic!("no {kind} of stage {stage} of {name}"))
    };
    let applied = events
        .iter()
        .rposition(|event| event["event"] == "cluster-facts-applied");
    for name in ["manager", "web1", "web2", "web3"] {
        story.same(
            events_of(launched, name, "stage-started").len(),
            2,
            "each stage starts once",
        );
        let (ended, next) = (
            place(name, "stage-ended", 0),
            place(name, "stage-started", 1),
        );
        story.check(ended < next, "stage 1 starts after stage 0 has ended", name);
        let first = place(name, "stage-started", 0);
        story.check(
            applied < Some(first),
            "no stage 0 before everyone has the facts",
            name,
        );
        if name != "manager" {
            let needed = place("manager", "stage-ended", 1);
            story.check(needed < next, "a stage waits for those that it needs", name);
        }
    }
    let last = events.last().expect("a launch says something");
    story.same(
        last["summary"]["ready"].as_u64(),
        Some(4),
        "the last line is the summary",
    );
}

fn what_ec2_was_asked(story: &mut Story, lab: &Lab) {
    story.same(lab.calls("RunInstances"), 2, "one RunInstances call a pool");
    let cloud = lab.cloud("life");
    story.same(cloud.instances.len(), 4, "four machines are there");
    let reservations: BTreeSet<_> = cloud.instances.iter().map(|i| &i.reservation).collect();
    story.same(reservations.len(), 2, "a pool is one reservation");
    let tokens: BTreeSet<_> = cloud.instances.iter().map(|i| i.token.as_str()).collect();
    story.same(tokens.len(), 2, "each call has a ClientToken of its own");
    story.check(
        tokens.iter().all(|t| (8..=64).contains(&t.len())),
        "ClientTokens have at most 64 characters",
        &tokens,
    );
    let names: BTreeSet<_> = cloud
        .instances
        .iter()
        .map(|i| i.tags["Name"].as_str())
        .collect();
    story.same(
        names.into_iter().collect::<Vec<_>>(),
        vec!["manager", "web1", "web2", "web3"],
        "the Name tags",
    );
    for instance in &cloud.instances {
        story.same(instance.http_tokens.as_str(), "required", "IMDSv2 alone");
        story.same(
            instance.tags.get("Cluster").map(String::as_str),
            Some("life"),
            "tag Cluster",
        );
        story.same(
            instance.tags.get("Owner").map(String::as_str),
            Some("ops"),
            "tag Owner",
        );
    }
    story.check(
        cloud.volumes.len() >= 4,
        "volumes are tagged too",
        &cloud.volumes,
    );
    story.check(
        cloud.interfaces.len() >= 4,
        "interfaces are tagged too",
        &cloud.interfaces,
    );
}

fn machine_is_right(story: &mut Story, lab: &Lab, name: &str, id: &str) {
    let seen = lab.sure(
        id,
        "systemctl is-active aot-agent.service; systemctl is-enabled aot-agent.service; hostname
stat -c %U:%a /var/lib/aot/stages/stage-0 /etc/aot/agent.toml; cat /var/tmp/ran",
    );
    let first = format!("0 life {name} 1 0 /root root");
    let second = if name == "manager" {
        "1 --level 0"
    } else {
        "1 "
    };
    for (n, (wanted, what)) in [
        ("active", "the agent is a service"),
        ("enabled", "and comes back after a boot"),
        (name, "the host name is the instance's name"),
        ("root:700", "stages are root's alone"),
        ("root:600", "so are the settings"),
        (&first, "what stage 0 saw"),
        (second, "what stage 1 saw"),
    ]
    .into_iter()
    .enumerate()
    {
        story.same(seen.lines().nth(n), Some(wanted), what);
    }
    story.same(seen.lines().count(), 7, "each stage ran once");
}

fn stages(lab: &Lab, id: &str) -> Vec<String> {
    let ran = lab.sure(id, "cut -d' ' -f1 /var/tmp/ran");
    ran.lines().map(str::to_owned).collect()
}

/// The facts file and its state, the same on all `count` machines. Gives the generation.
fn facts_are_right(story: &mut Story, lab: &Lab, master: &Master, count: usize) -> u64 {
    let ids = master.machine_ids();
    let mut generations = BTreeSet::new();
    for (name, id) in &ids {
        let seen: Value =
            serde_json::from_str(&lab.sure(id, LOOK_AT_FACTS)).expect("it prints JSON");
        let entries = seen["facts"]
            .as_object()
            .expect("the facts file is an object");
        story.same(
            entries.keys().collect::<Vec<_>>(),
            ids.keys().collect::<Vec<_>>(),
            "the facts file has every instance",
        );
        for (peer, entry) in entries {
            entry_is_right(story, peer, entry, &ids[peer]);
        }
        let state = &seen["state"];
        story.same(&state["sha256"], &seen["sha256"], "sha256 is the file's");
        story.same(state["complete"].as_bool(), Some(true), "nobody is missing");
        story.same(
            state["missing"].as_array().map(Vec::len),
            Some(0),
            "nobody is missing",
        );
        story.same(
            seen["known"].as_u64(),
            Some(count as u64),
            &format!("{name} knows all names"),
        );
        generations.insert(state["generation"].as_u64());
    }
    story.same(
        generations.len(),
        1,
        "all machines have the same generation",
    );
    generations.into_iter().next().flatten().unwrap_or_default()
}

fn entry_is_right(story: &mut Story, name: &str, entry: &Value, machine: &str) {
    for key in FACTS {
        story.check(
            entry.get(key).is_some(),
            &format!("{name} has the fact {key}"),
            entry,
        );
    }
    story.same(entry["machine_id"].as_str(), Some(machine), "machine_id");
    for (key, wanted) in [
        ("name", name),
        ("hostname", name),
        ("owner", "ops"),
        ("main_user", "admin"),
        ("instance_type", "t3.micro"),
        ("region", "us-east-1"),
    ] {
        story.same(entry[key].as_str(), Some(wanted), key);
    }
    let begins = |key: &str, with: &str| entry[key].as_str().is_some_and(|v| v.starts_with(with));
    story.check(
        begins("ip_address", "172.31."),
        "ip_address is the private one",
        entry,
    );
    story.check(
        begins("availability_zone", "us-east-1"),
        "availability_zone",
        entry,
    );
    story.check(begins("subnet", "subnet-"), "subnet", entry);
    story.check(
        entry["public_ip"]
            .as_str()
            .is_some_and(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok()),
        "public_ip is an address",
        entry,
    );
    let pool = if name == "manager" {
        Value::Null
    } else {
        "web".into()
    };
    story.same(&entry["pool"], &pool, "pool");
}

fn runs_have_scopes(story: &mut Story, master: &Master) {
    let logs = master.run(&["logs", "web1", "--stage", "1"]);
    story.check(
        logs.text().contains("/aot-run-") && logs.text().contains(".scope"),
        "a stage runs in a systemd scope of its own",
        logs,
    );
}

fn commands_run(story: &mut Story, master: &Master) {
    let (code, lines) = master.json(&["exec", "*", "ping"]);
    story.same(code, Some(0), "exec '*' ping");
    story.same(
        lines.last().map(|l| l["summary"]["succeeded"].clone()),
        Some(Value::from(4)),
        "all answer",
    );
    let (code, lines) = master.json(&["exec", "pool:web", "--", "uname", "-a"]);
    story.same(code, Some(0), "exec pool:web -- uname -a");
    let answers: Vec<&Value> = lines.iter().filter(|l| l["instance"].is_string()).collect();
    let names: BTreeSet<_> = answers
        .iter()
        .filter_map(|l| l["instance"].as_str())
        .collect();
    story.same(
        names.into_iter().collect::<Vec<_>>(),
        vec!["web1", "web2", "web3"],
        "who was asked",
    );
    for answer in answers {
        let stdout = answer["stdout"].as_str().unwrap_or_default();
        story.check(stdout.starts_with("Linux "), "uname answers", answer);
    }
    let bad = master.run(&["exec", "web{1,2}", "--", "sh", "-c", "exit 7"]);
    story.same(
        bad.code,
        Some(1),
        "a command that fails somewhere is exit code 1",
    );
    let nobody = master.run(&["exec", "db*", "ping"]);
    story.same(nobody.code, Some(3), "no such instance is exit code 3");
}

fn agent_comes_back(story: &mut Story, lab: &Lab, master: &Master, id: &str) {
    let pid = "systemctl show -p MainPID --value aot-agent";
    let before = lab.sure(id, pid);
    lab.sure(id, "systemctl kill -s KILL aot-agent");
    let another = || {
        let now = lab.sure(id, pid);
        now != before && now.trim() != "0"
    };
    wait::until(another, SOON, "systemd starts the agent again");
    let answers = || master.run(&["exec", "web1", "ping"]).code == Some(0);
    wait::until(answers, SOON, "the agent is connected again");
    let status = master.status("web1");
    story.same(
        status["agent"]["connected"].as_bool(),
        Some(true),
        "status says so",
    );
    story.same(
        status["phase"].as_str(),
        Some("ready"),
        "a restart of the agent changes no phase",
    );
}

fn grows(
    story: &mut Story,
    lab: &Lab,
    master: &Master,
    file: &Path,
    before: &std::collections::BTreeMap<String, String>,
) {
    let old = facts_are_right(story, lab, master, 4);
    let calls = lab.calls("RunInstances");
    master.launched(file, 0);
    story.same(lab.calls("RunInstances"), calls + 1, "one call");
    let mut ids = master.machine_ids();
    story.same(
        lab.cloud("life").instances.len(),
        5,
        "five machines are there",
    );
    let generation = facts_are_right(story, lab, master, 5);
    story.check(generation > old, "a new generation", (old, generation));
    let new = ids.remove("web4").expect("web4 has a machine");
    story.same(&ids, before, "the others stay as they are");
    story.same(
        stages(lab, &new),
        vec!["0", "1"],
        "the new one runs its stages",
    );
    for id in ids.values() {
        story.same(
            stages(lab, id),
            vec!["0", "1", "1"],
            "the others run nothing",
        );
    }
    let logs = master.run(&["logs", "web4", "--stage", "0"]);
    story.same(
        logs.text().matches("reached").count(),
        5,
        "the new one reaches all",
    );
    let back = lab.on(
        &ids["manager"],
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes web4 true",
    );
    story.same(back.code, Some(0), "the old ones reach the new one");
}

fn cleans_up(story: &mut Story, lab: &Lab, master: &Master) {
    let ids: BTreeSet<String> = master.machine_ids().into_values().collect();
    let done = master.cleanup("life");
    story.same(done.code, Some(0), "cleanup");
    for id in &ids {
        story.check(
            done.text().contains(id.as_str()),
            "the receipt names every machine",
            &done,
        );
    }
    let cloud = lab.cloud("life");
    story.check(cloud.instances.is_empty(), "no instance is left", &cloud);
    story.check(cloud.volumes.is_empty(), "no volume is left", &cloud);
    story.check(cloud.interfaces.is_empty(), "no interface is left", &cloud);
    story.same(
        cloud.terminated.into_iter().collect::<BTreeSet<_>>(),
        ids,
        "all are terminated",
    );
    story.check(
        lab.machines().iter().all(|m| !m.running),
        "no machine runs",
        lab.machines(),
    );
    let (code, left) = master.json(&["status"]);
    story.same((code, left.len()), (Some(0), 0), "status shows no cluster");
}
