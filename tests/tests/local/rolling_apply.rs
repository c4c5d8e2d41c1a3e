//! Changes that go over a pool of ready clones at a pace: a health check that fails stops them, the rest stays as it was, and
//! `apply` continues; a master that is killed in the middle loses nothing, and keeps the pace.

use std::time::Duration;

use aot_tests::process::Output;
use aot_tests::rig::Rig;
use serde_json::Value;

/// Time for a pool to be changed.
const SOON: Duration = Duration::from_secs(180);

on_both_stores![
    a_health_check_that_fails_leaves_the_rest_as_it_was_and_apply_goes_on,
    a_master_killed_amid_a_change_keeps_its_pace,
];

/// Notes when it began, and what it is; `also` is what else it does.
fn version(name: &str, also: &str) -> String {
    format!(
        "echo \"begin $(date +%s%N)\" >> /opt/times
echo {name} >> /opt/ledger
{also}
"
    )
}

/// The time at which it asked, unless the machine is sick.
const HEALTH: &str =
    "test ! -e /opt/sick || { echo it is sick >&2; exit 7; }; echo end $(date +%s%N) >> /opt/times";

fn six(rig: &Rig) {
    rig.bundle("base", &version("one", "mkdir -p /opt"));
    rig.cluster(&format!(
        "
cluster: rolled
provider: local
pools:
  - name: web
    size: 6
    bootstrap_sequence: [{{dir: base}}]
    update: {{concurrency: 2, canary: 1, max_errors: 0}}
    health: {{command: '{HEALTH}', retries: 1, wait: 300ms}}
"
    ));
    let launched = rig.launch();
    launched.expect(0);
    assert_eq!(launched.events("health-check-started"), Vec::<Value>::new());
}

fn names() -> impl Iterator<Item = String> {
    (1..=6).map(|number| format!("web{number}"))
}

fn read(rig: &Rig, name: &str, path: &str) -> String {
    rig.machine(name).read(path).unwrap_or_default()
}

/// What ran on each of them, in order.
fn ledgers(rig: &Rig) -> Vec<String> {
    let ledger = |name: String| {
        read(rig, &name, "/opt/ledger")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    names().map(ledger).collect()
}

/// The most that were under change at once, each from the beginning of its stage until its check passed; after the first launch.
fn most_at_once(rig: &Rig) -> usize {
    let mut moments: Vec<(u64, i64)> = Vec::new();
    for name in names() {
        let times = read(rig, &name, "/opt/times");
        let mut open = false;
        for line in times.lines().skip(1) {
            let (what, time) = line.split_once(' ').expect("two words");
            let time = time.parse().expect("a time");
            match (what, open) {
                ("begin", false) => moments.push((time, 1)),
                ("end", true) => moments.push((time, -1)),
                _ => continue,
            }
            open = what == "begin";
        }
    }
    moments.sort_unstable();
    let mut now = 0;
    let counts = moments.into_iter().map(|(_, step)| {
        now += step;
        now
    });
    usize::try_from(counts.max().unwrap_or_default()).expect("a count")
}

/// The bundle from which the stage of each of them has run, or is to run.
fn bundles(rig: &Rig) -> Vec<String> {
    let bundle = |name: String| {
        rig.stages(&name)[0]["bundle_sha256"]
            .as_str()
            .expect("a hash")
            .to_owned()
    };
    names().map(bundle).collect()
}

fn actions(plan: &Output) -> Vec<(String, Value)> {
    let lines = plan
        .json()
        .into_iter()
        .filter(|line| line["instance"].is_string());
    let action = |line: Value| {
        let name = line["instance"].as_str().expect("text").to_owned();
        (name, line["action"].clone())
    };
    lines.map(action).collect()
}

fn a_health_check_that_fails_leaves_the_rest_as_it_was_and_apply_goes_on(rig: &Rig) {
    six(rig);
    for name in ["web2", "web3"] {
        rig.sh(name, "touch /opt/sick");
    }
    let old = bundles(rig)[0].clone();
    rig.bundle("base", &version("two", ""));

    let stopped = rig.launch();

    stopped.expect(1);
    let ended = stopped.one(|line| line["event"] == "launch-ended");
    assert_eq!(ended["left"], 3, "{}", stopped.shown());
    let message = ended["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(
            "3 instances are as before (web4, web5, web6); `aot-master apply` continues there"
        ),
        "{}",
        stopped.shown()
    );
    assert_eq!(
        stopped.events("update-stopped").len(),
        1,
        "{}",
        stopped.shown()
    );
    assert_eq!(
        ledgers(rig),
        ["one two", "one two", "one two", "one", "one", "one"]
    );
    let status = rig.status();
    for name in names() {
        let failed = ["web2", "web3"].contains(&&*name);
        assert_eq!(
            status[&name]["phase"],
            if failed { "failed" } else { "ready" },
            "{name}"
        );
    }

    // Who is on which version: for people, and for programs.
    let found = bundles(rig);
    assert!(
        found[..3]
            .iter()
            .all(|bundle| *bundle == found[0] && *bundle != old),
        "{found:?}"
    );
    assert!(found[3..].iter().all(|bundle| *bundle == old), "{found:?}");
    let (new, old) = (&found[0][..12], &old[..12]);
    let said = rig.cli(["status"]).expect(0).text();
    let versions = format!("web, stage base: {new} on web[1-3], {old} on web[4-6]");
    assert!(said.contains(&versions), "{said}");
    assert!(
        said.contains("health check failed 2 times (exit 7): it is sick"),
        "{said}"
    );
    for words in [&["plan", "cluster.yml"][..], &["plan", "web"]] {
        let said = rig.cli(words).expect(0).text();
        let versions = format!("web, stage base: {old} becomes {new} on web[4-6]");
        assert!(said.contains(&versions), "{words:?}: {said}");
    }
    let plan = rig.cli(["plan", "web[3-4]", "--json"]);
    let wanted = [("web3", "resume"), ("web4", "rerun")];
    let wanted = wanted.map(|(name, action)| (name.to_owned(), Value::from(action)));
    assert_eq!(actions(&plan), wanted, "{}", plan.shown());

    // Mended, all get it, those that failed first.
    rig.bundle("base", &version("three", "rm -f /opt/sick"));
    let applied = rig.cli_within(SOON, ["apply", "--json"]);
    applied.expect(0);
    let begun = applied.events("update-started");
    assert_eq!(begun.len(), 6, "{}", applied.shown());
    assert_eq!(begun[0]["instance"], "web2", "{}", applied.shown());
    let all = bundles(rig);
    assert!(
        all.iter()
            .all(|bundle| *bundle == all[0] && !bundle.starts_with(new)),
        "{all:?}"
    );
    assert!(ledgers(rig).iter().all(|ledger| ledger.ends_with("three")));
    assert!(rig.status().values().all(|view| view["phase"] == "ready"));
    assert_eq!(most_at_once(rig), 2);
    let again = rig.cli(["apply", "--json"]);
    again.expect(0);
    assert_eq!(again.events("update-started"), Vec::<Value>::new());
}

fn a_master_killed_amid_a_change_keeps_its_pace(rig: &Rig) {
    six(rig);
    rig.bundle("base", &version("two", "sleep 0.7"));
    let mut apply = rig.spawn(["apply", "--json"]);
    for name in ["web1", "web3"] {
        apply.until(
            |line| line["event"] == "update-started" && line["instance"] == name,
            SOON,
            name,
        );
        rig.kill_master();
    }
    let applied = apply.finish(SOON);
    applied.expect(0);
    assert!(
        ledgers(rig).iter().all(|ledger| ledger == "one two"),
        "each once: {:?}",
        ledgers(rig)
    );
    assert_eq!(most_at_once(rig), 2);
    for name in names() {
        assert_eq!(rig.stages(&name)[0]["attempt"], 2, "{name}");
    }
    let all = bundles(rig);
    assert!(all.iter().all(|bundle| *bundle == all[0]), "{all:?}");
}
