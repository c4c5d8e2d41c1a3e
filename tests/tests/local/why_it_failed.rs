//! Why it failed, at once: the last lines of a stage that failed, once for all that failed alike; what runs, while it runs.

use aot_tests::rig::{LIMIT, Rig};
use aot_tests::screen::Screen;
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::json;

const FAILS: &str = "echo looking for disks; echo 'disk /dev/xvdz is not there' >&2; exit 17\n";

/// Until its operator says otherwise.
const RUNS: &str = "echo step one; until test -e /opt/go; do sleep 0.05; done\n";

fn pool(size: u32, bundle: &str) -> String {
    format!(
        "{{cluster: why, provider: local, pools: [{{name: web, size: {size}, stages: [{{dir: {bundle}, name: mount}}]}}]}}\n"
    )
}

/// The shown text without what moves the cursor and what pads lines.
fn words(screen: &Screen) -> String {
    let shown = screen.shown();
    assert!(
        !shown.contains("\x1b[?1049h"),
        "it stays on this screen: {shown:?}"
    );
    let hides = shown.matches("\x1b[?25l").count();
    let shows = shown.matches("\x1b[?25h").count();
    assert!(hides <= shows, "the cursor is seen again: {shown:?}");
    shown
}

#[test]
fn a_pool_that_fails_alike_says_why_once() {
    let rig = Rig::local();
    rig.bundle("bad", FAILS);
    rig.cluster(&pool(4, "bad"));

    let launched = rig.cli(["launch", "--yes", "cluster.yml"]);
    launched.expect(1);
    let (told, table) = (&launched.stderr, launched.text());
    let count = |text: &str| told.matches(text).count();
    assert_eq!(count("  ! disk /dev/xvdz is not there\n"), 1, "{told}");
    assert_eq!(count("  | looking for disks\n"), 1, "{told}");
    assert_eq!(count("see: aot-master logs web"), 1, "{told}");
    assert!(
        count(" failed in mount (exit 17") < 4,
        "those that fail alike share a line:\n{told}"
    );
    let row = table.lines().find(|line| line.starts_with("web"));
    let row: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        row.join(" "),
        "web[1-4] web failed - - 0/1 failed in mount (exit 17)",
        "{table}"
    );

    // Of all of them, of some, of one, by the name of the pool.
    let all = rig.cli(["status"]).text();
    assert!(
        all.contains("\nweb[1-4] failed in mount (exit 17): ! disk /dev/xvdz is not there\n"),
        "{all}"
    );
    let head = all.lines().next().unwrap_or_default();
    assert!(
        head.starts_with("master ")
            && head.contains(", listens on 127.0.0.1:")
            && head.ends_with(", 4 sessions"),
        "{head}"
    );
    for (target, who) in [
        ("web", "web[1-4]"),
        ("web[1-2]", "web[1-2]"),
        ("web*", "web[1-4]"),
    ] {
        let text = rig.cli(["status", target]).text();
        let why = format!(
            "{who} failed in mount (exit 17)\n  ! disk /dev/xvdz is not there\n  | looking for disks\n  see: aot-master logs web1 --stage mount\n"
        );
        assert_eq!(text.matches(&why).count(), 1, "status {target}:\n{text}");
    }
    let one = rig.cli(["status", "web3"]).text();
    assert!(one.contains("\nweb3 failed in mount (exit 17, "), "{one}");
    assert!(!one.contains("web1"), "{one}");
    let nobody = rig.cli(["status", "nobody"]);
    nobody.expect(3);

    let seen = rig.cli(["status", "--json", "web2,web4"]).json();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for view in seen {
        let stage = &view["stages"][0];
        assert_eq!(
            (
                &stage["stage"],
                &stage["name"],
                &stage["state"],
                &stage["outcome"],
                &stage["attempt"],
                &stage["exit_code"]
            ),
            (
                &json!(0),
                &json!("mount"),
                &json!("failed"),
                &json!("failed"),
                &json!(1),
                &json!(17)
            )
        );
        assert_eq!(
            stage["tail"],
            json!(["disk /dev/xvdz is not there", "looking for disks"])
        );
    }
}

#[test]
fn what_a_stage_prints_is_seen_while_it_runs() {
    let rig = Rig::local();
    rig.bundle("long", RUNS);
    rig.cluster(&pool(1, "long"));

    let mut launch = Screen::start(rig.command(["launch", "--yes", "cluster.yml"]));
    launch.waits_for("step one");
    assert!(
        words(&launch).contains("mount (1 of 1)"),
        "{}",
        launch.shown()
    );
    let mut before = String::new();
    let runs = || {
        before = rig.cli(["status", "web1"]).text();
        let line = before.lines().find(|line| line.starts_with("web1"));
        line.is_some_and(|line| {
            line.contains("mount (1 of 1) running for ") && line.ends_with(": step one")
        })
    };
    wait::until(runs, LIMIT, "the line that the stage printed last");
    rig.sh("web1", "touch /opt/go");
    assert_eq!(launch.ends(), Some(0), "{}", launch.shown());
}

#[test]
fn a_status_that_is_kept_showing_follows_what_happens_until_it_is_interrupted() {
    let rig = Rig::local();
    rig.bundle("b", FAILS);
    rig.cluster(&pool(2, "b"));
    rig.launch().expect(1);

    let mut screen = Screen::start(rig.command(["status", "--watch"]));
    screen.waits_for("0 of 2 ready, 2 failed");
    screen.waits_for("failed in mount (exit 17): ! disk /dev/xvdz is not there");
    rig.bundle("b", RUNS);
    rig.cli(["launch", "--yes", "--detach", "cluster.yml"])
        .expect(0);
    screen.waits_for("step one");
    for name in ["web1", "web2"] {
        rig.sh(name, "touch /opt/go");
    }
    screen.waits_for("2 of 2 ready");
    screen.signal(Signal::SIGINT);
    assert_eq!(screen.ends(), Some(130), "{}", screen.shown());
    words(&screen);
    assert!(!screen.is_raw());

    // What is not there ends it, and where nothing can be redrawn it says what has changed.
    let nobody = rig.cli(["status", "--watch", "nobody"]);
    nobody.expect(3);
    let mut watched = rig.spawn(["status", "--watch", "--json", "web1"]);
    watched.until(|line| line["phase"] == "ready", LIMIT, "the first look");
    rig.bundle("b", FAILS);
    rig.launch().expect(1);
    let failed = watched.until(|line| line["phase"] == "failed", LIMIT, "what has changed");
    assert_eq!(
        failed["stages"][0]["tail"][0],
        "disk /dev/xvdz is not there"
    );
    watched.signal(Signal::SIGINT);
    watched.finish(LIMIT).expect(130);
}
