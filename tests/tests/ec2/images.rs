//! Images that are not as the usual ones: /usr is read-only, as on Flatcar; and what another machine left is in it, as in one
//! that was made of a running instance.

use std::path::{Path, PathBuf};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};

const READ_ONLY_USR: &str = "#cloud-config
bootcmd:
  - mount --bind /usr /usr
  - mount -o remount,bind,ro /usr
";

/// So many machines, the new ones with this cloud-config; each notes where a stage finds the agent.
fn file(dir: &Path, ami: &str, size: usize, cloud_config: &str) -> PathBuf {
    let rest = format!(
        "launch: {{timeout: 240s}}
pools:
  - {{name: web, size: {size}, cloud_config: user.yml, bootstrap_sequence: [{{dir: where}}]}}
"
    );
    let file = cluster_file(dir, "images", ami, &rest);
    std::fs::write(dir.join("user.yml"), cloud_config).expect("writes");
    std::fs::create_dir_all(dir.join("where")).expect("a folder");
    let script = "command -v aot-agent > /etc/where\n";
    std::fs::write(dir.join("where/bootstrap.sh"), script).expect("writes");
    file
}

/// A file as cloud-init is to write it.
fn written(path: &str, text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("      {line}\n")).collect();
    let text = lines.concat();
    format!("  - path: {path}\n    permissions: \"0600\"\n    content: |\n{text}")
}

#[test]
fn the_agent_comes_up_where_usr_is_read_only_and_where_another_machines_state_is() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "images", 7440);
    let dir = lab.dir().join("files");
    let mut story = Story::default();

    story.step("a machine whose /usr is read-only");
    master.launched(&file(&dir, lab.ami(), 1, READ_ONLY_USR), 0);
    let first = master.machine("web1");
    let found = lab.sure(&first, "cat /etc/where; touch /usr/x 2>&1 || true");
    story.check(
        found.starts_with("/opt/bin/aot-agent\n") && found.contains("Read-only"),
        "the agent is in /opt/bin, and a stage finds it there",
        &found,
    );
    let unit = lab.sure(&first, "systemctl cat aot-agent.service");
    story.check(
        unit.contains("ExecStart=/opt/bin/aot-agent run"),
        "the unit knows",
        &unit,
    );

    story.step("it is there again after a reboot");
    master.run(&["reboot", "web1", "--yes"]).expect(0);
    let up = ["wait", "web1", "--state", "running"];
    master.run(&up).expect(0);

    story.step("a machine with the identity and the settings of the first");
    let identity = lab.sure(&first, "cat /var/lib/aot/identity.pem");
    let settings = lab.sure(&first, "cat /etc/aot/agent.toml");
    let cloud_config = format!(
        "#cloud-config\nwrite_files:\n{}{}",
        written("/var/lib/aot/identity.pem", &identity),
        written("/etc/aot/agent.toml", &settings)
    );
    let before = master.log().len();
    master.launched(&file(&dir, lab.ami(), 2, &cloud_config), 0);
    let second = master.machine("web2");
    for name in ["web1", "web2"] {
        let (code, lines) = master.json(&["exec", name, "hostname"]);
        story.same(code, Some(0), "it answers");
        let said = lines[0]["stdout"].as_str().map(str::trim);
        story.same(said, Some(name), "as itself");
    }
    let log = master.log()[before..].to_owned();
    story.check(
        !log.contains("newer session"),
        "nobody took a session over",
        &log,
    );
    let put_away = lab.sure(
        &second,
        &format!("cd /var/lib/aot/former/{first} && cat identity.pem"),
    );
    story.same(
        put_away.trim(),
        identity.trim(),
        "what it found is put away",
    );

    story.same(master.cleanup("images").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}
