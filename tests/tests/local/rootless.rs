//! A launch by a user who is not root. Where the kernel or the host does not let such a user make clones, the test says
//! why and counts as passed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::time::Duration;

use aot_tests::programs::install;
use aot_tests::rig::{Rig, Running, agent_dir, master_program};

/// `nobody`, as on every Debian and Fedora.
const UID: u32 = 65_534;

/// Says why this can't be tried here.
fn skip(why: &str) {
    eprintln!("SKIPPED: 1 test, {why}");
}

#[test]
fn a_user_who_is_not_root_launches() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "it starts as root to become nobody; as a user, all other tests are this test",
        );
    }
    let can = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "unshare",
            "-Urm",
            "true",
        ])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("nobody can't make user namespaces here");
    }
    let mut rig = Rig::local();
    // The user's own copy: a build folder may lie where others can't look.
    let programs = rig.dir().join("programs");
    fs::create_dir(&programs).expect("a folder");
    for name in ["aot-master", "aot-masterd"] {
        install(&master_program().with_file_name(name), &programs.join(name));
    }
    install(&agent_dir().join("aot-agent"), &programs.join("aot-agent"));
    rig.set_env("AOT_AGENT_DIR", &programs.display().to_string());
    rig.bundle("one", "echo \"$(id -u) $HOME\" > /var/lib/aot/who\n");
    rig.cluster(
        "
cluster: user
provider: local
pools: [{name: node, size: 2, bootstrap_sequence: [{dir: one}]}]
",
    );
    fs::set_permissions(rig.dir(), fs::Permissions::from_mode(0o755)).expect("its mode");
    chown(rig.dir(), Some(UID), Some(UID)).expect("its owner");
    chown(rig.dir().join("home"), Some(UID), Some(UID)).expect("its owner");
    let as_nobody = |args: &[&str]| {
        let inner = rig.command(args.iter().copied());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(programs.join("aot-master"))
            .args(args)
            .current_dir(rig.dir());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Running::start(command).finish(Duration::from_secs(60))
    };

    let launched = as_nobody(&["launch", "--yes", "--json", "cluster.yml"]);

    launched.expect(0);
    let who = as_nobody(&["exec", "--json", "*", "--", "cat", "/var/lib/aot/who"]);
    who.expect(0);
    for line in who
        .json()
        .iter()
        .filter(|line| line["instance"].is_string())
    {
        assert_eq!(line["stdout"], "0 /root\n", "root inside: {line}");
    }
    as_nobody(&["cleanup", "--yes"]).expect(0);
    as_nobody(&["shutdown"]).expect(0);
    assert!(rig.machines().is_empty());
    assert!(rig.left().is_empty(), "{:?}", rig.left());
}
