//! Bundles: shapes that are taken, entries that are refused before a machine exists, and content that was changed on its
//! way.

use std::fs;

use aot_tests::bundle::{self, Entry};
use aot_tests::rig::Rig;
use serde_json::json;

const SCRIPT: Entry<'static> = Entry::File("bootstrap.sh", "echo ran >> /opt/ledger\n");

fn with_tar(name: &str) -> String {
    format!(
        "
cluster: bundle
provider: local
instances:
  - name: head
    bootstrap_sequence: [{{tar: {name}}}]
"
    )
}

#[test]
fn entries_that_leave_the_folder_are_refused_before_anything_is_made() {
    let rig = Rig::local();
    let evil: [(&str, &[Entry<'_>], &str); 9] = [
        ("dots", &[Entry::File("a/../../evil", "x")], "a/../../evil"),
        ("up", &[Entry::File("../evil", "x")], "../evil"),
        ("absolute", &[Entry::File("/etc/evil", "x")], "/etc/evil"),
        (
            "link-out",
            &[Entry::Symlink("out", "../.."), Entry::File("out/evil", "x")],
            "out",
        ),
        (
            "link-root",
            &[Entry::Symlink("etc", "/etc"), Entry::File("etc/evil", "x")],
            "etc",
        ),
        (
            "hard-link",
            &[Entry::Hardlink("shadow", "/etc/shadow")],
            "shadow",
        ),
        (
            "hard-link-up",
            &[Entry::Hardlink("shadow", "../../etc/shadow")],
            "shadow",
        ),
        ("device", &[Entry::Device("disk")], "disk"),
        ("pipe", &[Entry::Pipe("pipe")], "pipe"),
    ];
    for (name, entries, culprit) in evil {
        let file = format!("{name}.tar.gz");
        let all: Vec<Entry<'_>> = [SCRIPT]
            .into_iter()
            .chain(entries.iter().cloned())
            .collect();
        bundle::archive(&rig.dir().join(&file), &all);
        rig.cluster(&with_tar(&file));
        let quoted = format!("\"{culprit}\"");
        for command in [
            &["check", "cluster.yml"][..],
            &["launch", "--yes", "cluster.yml"],
        ] {
            let output = rig.cli(command);
            output.expect(2);
            assert!(
                output.stderr.contains(&quoted),
                "{name}: {}",
                output.shown()
            );
            assert!(output.stderr.contains(&file), "{name}: {}", output.shown());
        }
        let output = rig.cli(["check", "--json", "cluster.yml"]);
        output.expect(2);
        let problem = &output.one(|_| true)["problems"][0]["message"];
        assert!(
            problem.as_str().is_some_and(|text| text.contains(&quoted)),
            "{}",
            output.shown()
        );
    }
    assert!(rig.machines().is_empty());
    assert!(rig.status().is_empty(), "no cluster came of it");
}

#[test]
fn bundles_that_are_missing_broken_or_without_a_script_are_refused() {
    let rig = Rig::local();
    bundle::archive(&rig.dir().join("empty.tar"), &[Entry::File("readme", "x")]);
    let good = rig.dir().join("whole.tar.gz");
    let noise: String = (0..40_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    bundle::archive(&good, &[SCRIPT, Entry::File("noise", &noise)]);
    let bytes = fs::read(&good).expect("the bundle");
    fs::write(rig.dir().join("cut.tar.gz"), &bytes[..bytes.len() / 2]).expect("half of it");
    fs::write(rig.dir().join("bundle.zip"), b"PK\x03\x04....").expect("a zip file");
    for (name, words) in [
        ("missing.tar", "missing.tar"),
        ("empty.tar", "bootstrap.sh"),
        ("cut.tar.gz", "cut.tar.gz"),
        ("bundle.zip", "zip"),
    ] {
        rig.cluster(&with_tar(name));
        for command in [
            &["check", "cluster.yml"][..],
            &["launch", "--yes", "cluster.yml"],
        ] {
            let output = rig.cli(command);
            output.expect(2);
            assert!(output.stderr.contains(words), "{name}: {}", output.shown());
        }
    }
    assert!(rig.machines().is_empty());
}

#[test]
fn every_shape_of_a_good_bundle_runs() {
    let rig = Rig::local();
    let script = "set -e\ncat lib/data >> /opt/ledger\ncat link >> /opt/ledger\n";
    let flat = [
        Entry::File("bootstrap.sh", script),
        Entry::File("lib/data", "data\n"),
        Entry::Symlink("link", "lib/data"),
    ];
    bundle::archive(&rig.dir().join("plain.tar"), &flat);
    bundle::archive(&rig.dir().join("packed.tar.gz"), &flat);
    let nested = [
        Entry::File("top/bootstrap.sh", script),
        Entry::File("top/lib/data", "nested\n"),
        Entry::Hardlink("top/link", "top/lib/data"),
    ];
    bundle::archive(&rig.dir().join("nested.tgz"), &nested);
    rig.bundle("folder", script);
    rig.file("folder/lib/data", "folder\n");
    std::os::unix::fs::symlink("lib/data", rig.dir().join("folder/link")).expect("a link");
    rig.cluster(
        "
cluster: shapes
provider: local
instances:
  - name: head
    bootstrap_sequence: [{tar: plain.tar}, {tar: packed.tar.gz}, {tar: nested.tgz}, {dir: folder}]
",
    );
    rig.launch().expect(0);
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "data\ndata\ndata\ndata\nnested\nnested\nfolder\nfolder"
    );
}

#[test]
fn a_bundle_that_was_changed_after_it_was_planned_is_not_run() {
    let rig = Rig::local();
    rig.bundle(
        "first",
        "echo first >> /opt/ledger\nuntil test -e /opt/go; do sleep 0.05; done\n",
    );
    rig.bundle("second", "echo second >> /opt/ledger\n");
    rig.cluster(
        "
cluster: swapped
provider: local
instances:
  - name: head
    bootstrap_sequence: [{dir: first}, {dir: second}]
",
    );
    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    launch.event("stage-started", "head", aot_tests::rig::LIMIT);
    aot_tests::wait::until(
        || rig.sh("head", "cat /opt/ledger 2>/dev/null || true") == "first",
        aot_tests::rig::LIMIT,
        "the first stage to run",
    );
    for entry in fs::read_dir(rig.state_dir().join("bundles")).expect("the bundles") {
        let path = entry.expect("a bundle").path();
        let mut bytes = fs::read(&path).expect("a bundle");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(&path, bytes).expect("a changed bundle");
    }
    rig.sh("head", "touch /opt/go");

    let output = launch.finish(aot_tests::rig::LIMIT);

    output.expect(1);
    let ended = output.one(|line| line["event"] == "stage-ended" && line["stage"] == 1);
    assert_eq!(ended["outcome"], "rejected", "{ended}");
    let message = ended["message"].as_str().expect("a message").to_lowercase();
    assert!(
        message.contains("sha-256") || message.contains("sha256"),
        "{message}"
    );
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "first");

    // The next launch packs it anew.
    rig.launch().expect(0);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "first\nsecond");
    assert_eq!(rig.status()["head"]["phase"], json!("ready"));
}

#[test]
fn a_plan_says_what_of_a_bundle_changed_and_noise_is_no_change() {
    let rig = Rig::local();
    let cluster = |mode: &str| {
        rig.cluster(&format!(
            "
cluster: noise
provider: local
instances:
  - name: head
    bootstrap_sequence: [{{dir: setup, env: {{MODE: {mode}}}}}]
"
        ));
    };
    rig.bundle("setup", "echo ran >> /opt/ledger\n");
    cluster("first");
    rig.launch().expect(0);
    let setup = rig.dir().join("setup");
    let write = |name: &str, text: &str| fs::write(setup.join(name), text).expect("a file");
    let planned = || {
        let plan = rig.cli(["plan", "--json", "cluster.yml"]);
        plan.expect(0);
        let line = plan.one(|line| line["instance"] == "head");
        (line["action"].clone(), line["detail"].clone())
    };
    fs::create_dir(setup.join(".git")).expect("a folder");
    for noise in [".git/HEAD", ".DS_Store", "bootstrap.sh~"] {
        write(noise, "noise");
    }
    assert_eq!(planned(), (json!("keep"), json!(null)));

    write(".aotignore", "*.log\n!.DS_Store\n");
    write("big.log", "left out");
    write("two words.sh", "echo new\n");
    rig.bundle("setup", "echo ran >> /opt/ledger\nls -A >> /opt/ledger\n");
    cluster("second");
    let detail = r#"stage 0 changed: env MODE, +.DS_Store, bootstrap.sh 1 line, +"two words.sh""#;
    assert_eq!(planned(), (json!("rerun"), json!(detail)));
    rig.launch().expect(0);
    let ledger = rig.sh("head", "cat /opt/ledger");
    assert_eq!(ledger, "ran\nran\n.DS_Store\nbootstrap.sh\ntwo words.sh");

    write(".aotignore", "*.log\na[z-a]\n");
    let check = rig.cli(["check", "cluster.yml"]);
    check.expect(2);
    let said = &check.stderr;
    assert!(said.contains(".aotignore, line 2: "), "{said}");
}
