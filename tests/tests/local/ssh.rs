//! `ssh:` of the file: whose keys are exchanged among the machines of a cluster, and that another choice takes back what
//! the one before put in place.

use std::time::Duration;

use aot_tests::rig::Rig;
use aot_tests::wait;

const SOON: Duration = Duration::from_secs(120);

const MARK: &str = "BEGIN aot cluster keys";

fn launch(rig: &Rig, ssh: &str) {
    rig.cluster(&format!(
        "\ncluster: keys\nprovider: local\nssh: {ssh}\ndefaults: {{user: deploy}}\npools: [{{name: w, size: 2}}]\n"
    ));
    rig.launch().expect(0);
}

fn file(rig: &Rig, path: &str) -> String {
    rig.sh("w1", &format!("cat {path} 2>/dev/null || true"))
}

fn until(rig: &Rig, what: &str, root: bool, user: bool) {
    let has = |path: &str| {
        let text = file(rig, path);
        text.contains(MARK) && text.contains("ssh-ed25519")
    };
    wait::until(
        || {
            has("/root/.ssh/authorized_keys") == root
                && has("/home/deploy/.ssh/authorized_keys") == user
        },
        SOON,
        what,
    );
    assert!(
        file(rig, "/etc/hosts").contains("w2"),
        "names are told: {what}"
    );
    assert!(file(rig, "/etc/ssh/ssh_known_hosts").contains("w2"));
}

#[test]
fn keys_are_exchanged_as_the_file_says_and_taken_back_when_it_says_otherwise() {
    let mut rig = Rig::local();
    launch(&rig, "none");
    until(&rig, "none: no keys at all", false, false);
    // The main user is known from the next start of the agents on.
    for name in ["w1", "w2"] {
        let user = "echo 'deploy:x:12345:12345::/home/deploy:/bin/sh' >> /etc/passwd && mkdir -p /home/deploy && \
                    chown 12345:12345 /home/deploy";
        rig.sh(name, user);
        rig.machine(name).kill_agent();
    }
    for name in ["w1", "w2"] {
        wait::until(
            || rig.cli(["exec", name, "ping"]).code == Some(0),
            SOON,
            "the agent is back",
        );
        wait::until(
            || file_of(&rig, name).contains("ssh-ed25519"),
            SOON,
            "the main user has a key",
        );
    }
    launch(&rig, "users");
    until(&rig, "users: the main user's own", false, true);
    let own = file(&rig, "/home/deploy/.ssh/authorized_keys");
    assert!(own.contains("deploy@w2") && !own.contains("root@"), "{own}");
    let owner = rig.sh("w1", "stat -c '%u %a' /home/deploy/.ssh/authorized_keys");
    assert_eq!(owner, "12345 600");
    launch(&rig, "root");
    until(&rig, "root: root's", true, false);
    launch(&rig, "none");
    until(&rig, "none again", false, false);

    rig.cluster("\ncluster: keys\nprovider: local\nssh: user\npools: [{name: w, size: 2}]\n");
    let bad = rig.cli(["check", "cluster.yml"]);
    assert_eq!(bad.code, Some(2), "{}", bad.shown());
    assert!(
        bad.stderr.contains("did you mean \"users\"?"),
        "{}",
        bad.shown()
    );
    assert_eq!(rig.clean(), Vec::<String>::new());
}

fn file_of(rig: &Rig, name: &str) -> String {
    rig.sh(
        name,
        "cat /home/deploy/.ssh/id_ed25519.pub 2>/dev/null || true",
    )
}
