//! The agent for Graviton: built as `packaging/agents.sh` builds it, and run by an emulator (qemu-user) in a local clone,
//! against a real master.
//!
//! The kernel runs programs of another architecture through binfmt_misc, which since Linux 6.7 each user namespace has of
//! its own: the clone's agent gets one, and the host's is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aot_tests::process::Running;
use aot_tests::programs;
use aot_tests::rig::Rig;

/// What builds it, with nothing built before.
const BUILD: Duration = Duration::from_secs(2400);

/// What agents.sh ends with when something cannot be had.
const UNAVAILABLE: i32 = 75;

/// An ELF file of aarch64, as the kernel is to know it (binfmt-misc documentation; the same as qemu-binfmt-conf.sh has).
const MAGIC: &str = r":aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:";

fn target() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    target.to_owned()
}

/// Runs agents.sh; false, with a word why, when it cannot be had.
fn agents(args: &[&str]) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/agents.sh");
    // What the build has of the processors is what the stories beside it leave.
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(source);
    command.args(args).env("CARGO_TARGET_DIR", target());
    // What cargo says to its tests is not for another cargo.
    for (name, _) in std::env::vars() {
        let own = [
            "CARGO_PKG",
            "CARGO_MANIFEST",
            "CARGO_BIN",
            "RUSTC",
            "RUSTFLAGS",
            "LD_LIBRARY",
        ];
        if own.iter().any(|own| name.starts_with(own)) || name == "CARGO" {
            command.env_remove(name);
        }
    }
    let output = Running::start(command).finish(BUILD);
    match output.code {
        Some(0) => true,
        Some(UNAVAILABLE) => {
            let why = output.stderr.lines().last().unwrap_or_default().to_owned();
            println!("skipped: {why}");
            false
        }
        _ => panic!("{}", output.shown()),
    }
}

/// A program that runs the agent where aarch64 programs run; `None` when this kernel has no such place.
fn emulated(folder: &Path) -> Option<()> {
    let copied = |from: PathBuf, name: &str| {
        let to = folder.join(name);
        programs::install(&from, &to);
        to.display().to_string()
    };
    let emulator = target().join("cross/root/usr/bin/qemu-aarch64-static");
    let emulator = copied(emulator, "emulator");
    let agent = folder.join("aot-agent-aarch64").display().to_string();
    let script = format!(
        "#!/bin/sh
exec unshare --user --map-root-user --mount /bin/sh -c '
set -e
mkdir -p /run/binfmt
mount -t binfmt_misc none /run/binfmt
printf %s '\\''{MAGIC}{emulator}:F'\\'' > /run/binfmt/register
exec {agent} \"$@\"' sh \"$@\"
"
    );
    let wrapper = folder.join(format!("aot-agent-{}", std::env::consts::ARCH));
    programs::script(&wrapper, &script);
    // /run is the host's own here: a mount of our own hides it.
    let tried = Command::new("unshare")
        .args([
            "--mount",
            "/bin/sh",
            "-c",
            "mount -t tmpfs tmpfs /run && exec \"$0\" version",
        ])
        .arg(&wrapper)
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&tried.stdout).into_owned();
    if said.starts_with("aot-agent ") {
        return Some(());
    }
    let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    assert!(
        why.contains("binfmt") || why.contains("unshare"),
        "the agent itself does not start: {why}"
    );
    println!("skipped: aarch64 programs cannot be run here: {why}");
    None
}

#[test]
fn an_agent_for_aarch64_joins_and_does_all_that_others_do() {
    if std::env::consts::ARCH != "x86_64" || !nix::unistd::geteuid().is_root() {
        println!("skipped: this is for root on x86_64");
        return;
    }
    // A clone sees what its host has there, and not what is in /tmp.
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let out = folder.path().display().to_string();
    if !agents(&["-p", "agent-test", "-o", &out, "aarch64"]) || !agents(&["-g", "qemu-user-static"])
    {
        return;
    }
    if emulated(folder.path()).is_none() {
        return;
    }
    let rig = Rig::with(&[("AOT_AGENT_DIR", &out)]);
    rig.cluster(
        "{cluster: arm, provider: local, instances: [{name: a, bootstrap_sequence: [{dir: b, args: [x]}]}]}\n",
    );
    rig.bundle(
        "b",
        "echo \"stage $AOT_STAGE of $AOT_INSTANCE: $1\" > /root/ran\n",
    );
    rig.launch().expect(0);

    rig.cli(["exec", "a", "ping"]).expect(0);
    let facts = rig.cli(["exec", "--json", "a", "facts"]);
    facts.expect(0);
    let told = String::from_utf8_lossy(&facts.stdout).into_owned();
    assert!(told.contains("aarch64"), "{}", facts.shown());
    assert_eq!(rig.sh("a", "cat /root/ran"), "stage 0 of a: x");
    let failed = rig.cli([
        "exec",
        "a",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    failed.expect(1);

    let bytes: Vec<u8> = (0..3_000_001_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(rig.dir().join("there"), &bytes).expect("writes");
    rig.cli(["cp", "there", "a:/root/file"]).expect(0);
    rig.cli(["cp", "a:/root/file", "back"]).expect(0);
    let back = rig.dir().join("back");
    let back = match back.is_dir() {
        true => back.join("a/file"),
        false => back,
    };
    assert!(
        fs::read(back).expect("it came") == bytes,
        "other bytes came back"
    );
}
