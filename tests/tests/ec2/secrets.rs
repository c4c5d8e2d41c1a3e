//! Secrets that AWS has: the master reads them with its own rights, and hands them to stages and commands.

use std::path::Path;

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};

const PUT: &str = r#"
import boto3, sys
ssm, manager = boto3.client("ssm"), boto3.client("secretsmanager")
ssm.put_parameter(Name="/prod/token", Value=sys.argv[1], Type="SecureString", Overwrite=True)
if sys.argv[2]:
    manager.create_secret(Name="prod/creds", SecretString=sys.argv[2])
print("{}")
"#;

const TOKEN: &str = "t0ken-in-the-store";
const NEW_TOKEN: &str = "an0ther-token-in-the-store";
const CREDS: &str = "p4ssw0rd-of-the-manager";

const FILE: &str = "launch: {timeout: 240s}
secrets:
  token: {ssm: /prod/token}
  creds: {secrets_manager: prod/creds, on: master}
pools:
  - name: web
    size: 1
    bootstrap_sequence:
      - {dir: reads, secrets: [creds, {name: token, env: TOKEN}], rerun_on_secret: true}
";

const READS: &str =
    "echo token $TOKEN; cat $AOT_SECRETS/creds; printf '%s' \"$TOKEN\" > /dev/shm/token
cat $AOT_SECRETS/creds > /dev/shm/creds
";

pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let output = std::process::Command::new("grep")
        .args(["-r", "-l", "-a", "-F", "--devices=skip", text])
        .arg(dir)
        .output()
        .expect("grep runs");
    let found = String::from_utf8_lossy(&output.stdout);
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_master_reads_what_aws_has_and_tells_nobody_but_machines() {
    let Some(lab) = Lab::start() else { return };
    let put = |token: &str, creds: &str| {
        lab.python(PUT, &[token, creds]);
    };
    put(TOKEN, CREDS);
    let master = Master::start(&lab, "secrets", 7440);
    let dir = lab.dir().join("files");
    let file = cluster_file(&dir, "hush", lab.ami(), FILE);
    std::fs::create_dir_all(dir.join("reads")).expect("a folder");
    std::fs::write(dir.join("reads/bootstrap.sh"), READS).expect("writes");
    let mut story = Story::default();

    story.step("a stage is given a parameter and a secret");
    master.launched(&file, 0);
    let web1 = master.machine("web1");
    story.same(
        lab.sure(&web1, "cat /dev/shm/token").as_str(),
        TOKEN,
        "the parameter",
    );
    story.same(
        lab.sure(&web1, "cat /dev/shm/creds").as_str(),
        CREDS,
        "the secret",
    );
    let logs = master.run(&["logs", "web1"]);
    story.check(
        logs.text().contains("token [secret token]") && logs.text().contains("[secret creds]"),
        "its output hides them",
        logs.shown(),
    );

    story.step("another value runs it again");
    put(NEW_TOKEN, "");
    master.launched(&file, 0);
    story.same(
        lab.sure(&web1, "cat /dev/shm/token").as_str(),
        NEW_TOKEN,
        "the new value",
    );

    story.step("what is not there is told by name, before anything is made");
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, text.replace("/prod/token", "/prod/none")).expect("writes");
    let path = file.to_str().expect("a path");
    let refused = master.run(&["launch", "--yes", path]);
    story.check(
        refused.stderr.contains("cannot read the secret \"token\"")
            && refused.stderr.contains("/prod/none"),
        "the parameter's name",
        refused.shown(),
    );

    lab.sure(&web1, "rm /dev/shm/token /dev/shm/creds");
    for value in [TOKEN, NEW_TOKEN, CREDS] {
        let found = files_with(&master.state_dir(), value);
        story.same(found, Vec::<String>::new(), "no file of the master has it");
        let there = lab.sure(
            &web1,
            &format!("grep -r -l -a -F '{value}' /var/lib/aot /run/aot /var/log || true"),
        );
        story.same(there.trim(), "", "no file of the machine has it");
        story.check(!master.log().contains(value), "nor has the log", "");
    }
    story.same(master.cleanup("hush").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}
