//! Secrets that machines read from AWS by themselves, with the credentials of their instance profile: the master has none of them at
//! any time.

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use serde_json::Value;

use super::secrets::files_with;

const PROFILE: &str = r#"
import boto3
iam = boto3.client("iam")
iam.create_role(RoleName="readers", AssumeRolePolicyDocument="{}")
iam.create_instance_profile(InstanceProfileName="readers")
iam.add_role_to_instance_profile(InstanceProfileName="readers", RoleName="readers")
print("{}")
"#;

const PUT: &str = r#"
import boto3, sys
ssm, manager = boto3.client("ssm"), boto3.client("secretsmanager")
ssm.put_parameter(Name="/prod/token", Value=sys.argv[1], Type="SecureString", Overwrite=True)
if sys.argv[2]:
    manager.create_secret(Name="prod/creds", SecretString=sys.argv[2])
else:
    manager.delete_secret(SecretId="prod/creds", ForceDeleteWithoutRecovery=True)
print("{}")
"#;

const TOKEN: &str = "t0ken-in-the-store";
const NEW_TOKEN: &str = "an0ther-token-in-the-store";
const CREDS: &str = "p4ssw0rd-of-the-manager";

const FILE: &str = "launch: {timeout: 240s}
secrets:
  token: {ssm: /prod/token, on: machine}
  creds: {secrets_manager: prod/creds, on: machine}
pools:
  - name: web
    size: 2
    instance_profile_name: readers
    cloud_config: cloud.yml
    bootstrap_sequence:
      - {dir: reads, secrets: [creds, {name: token, env: TOKEN}]}
";

/// The lab's services are at no address of AWS.
fn cloud_config(api: &str) -> String {
    format!(
        "#cloud-config
write_files:
  - path: /etc/systemd/system/aot-agent.service.d/aws.conf
    content: |
      [Service]
      Environment=AWS_ENDPOINT_URL_SSM={api} AWS_ENDPOINT_URL_SECRETS_MANAGER={api}
"
    )
}

const READS: &str =
    "echo token $TOKEN; cat $AOT_SECRETS/creds; printf '%s' \"$TOKEN\" > /dev/shm/token
cat $AOT_SECRETS/creds > /dev/shm/creds; stat -c %a $AOT_SECRETS $AOT_SECRETS/* > /dev/shm/modes
";

/// Access keys that this call was made with.
fn keys(lab: &Lab, action: &str) -> Vec<String> {
    let log = lab.verb(&["api-log"]);
    let calls = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let calls = calls.filter(|call| call["action"] == action);
    calls
        .map(|call| call["key"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn machines_read_what_aws_has_and_the_master_never_does() {
    let Some(lab) = Lab::start() else { return };
    let put = |token: &str, creds: &str| {
        lab.python(PUT, &[token, creds]);
    };
    lab.python(PROFILE, &[]);
    put(TOKEN, CREDS);
    let master = Master::start(&lab, "on-machine", 7440);
    let dir = lab.dir().join("files");
    let path = cluster_file(&dir, "hush", lab.ami(), FILE);
    std::fs::create_dir_all(dir.join("reads")).expect("a folder");
    std::fs::write(dir.join("reads/bootstrap.sh"), READS).expect("writes");
    std::fs::write(dir.join("cloud.yml"), cloud_config(lab.info("api"))).expect("writes");
    let mut story = Story::default();

    story.step("a plan says what the role needs, and a file without a profile is refused");
    let text = std::fs::read_to_string(&path).expect("reads");
    let shown_path = path.to_str().expect("a path");
    let plan = master.run(&["plan", shown_path]);
    for needs in [
        "ssm:GetParameter on arn:aws:ssm:*:*:parameter/prod/token for the secret token",
        "secretsmanager:GetSecretValue on arn:aws:secretsmanager:*:*:secret:prod/creds-??????",
    ] {
        let said = plan.text();
        let is_said = said.contains("instance-profile") && said.contains(needs);
        story.check(is_said, "what the role needs", plan.shown());
    }
    let bare = text.replace("    instance_profile_name: readers\n", "");
    std::fs::write(&path, &bare).expect("writes");
    let refused = master.run(&["plan", shown_path]);
    story.check(
        refused.code == Some(2) && refused.stderr.contains("has no instance profile"),
        "it is refused before anything is made",
        refused.shown(),
    );
    std::fs::write(&path, &text).expect("writes");

    story.step("each machine reads a parameter and a secret");
    master.launched(&path, 0);
    for instance in ["web1", "web2"] {
        let machine = master.machine(instance);
        let there = lab.sure(&machine, "cat /dev/shm/token /dev/shm/creds /dev/shm/modes");
        let want = format!("{TOKEN}{CREDS}700\n600\n600\n");
        story.same(there.as_str(), want.as_str(), "values and modes");
        let left = lab.sure(&machine, "ls /run/aot/secrets");
        story.same(left.as_str(), "", "they are gone with the stage");
        let logs = master.run(&["logs", instance]);
        story.check(
            logs.text().contains("token [secret token]") && logs.text().contains("[secret creds]"),
            "its output hides them",
            logs.shown(),
        );
    }
    for action in ["GetParameter", "GetSecretValue"] {
        let keys = keys(&lab, action);
        let of_machines = keys.iter().filter(|key| *key == "ASIALAB").count();
        story.same((of_machines, keys.len()), (2, 2), "only machines asked");
    }

    story.step("a command has the value of the moment, without a launch");
    put(NEW_TOKEN, "");
    let web1 = master.machine("web1");
    let copies = [
        "sh",
        "-c",
        "cat $AOT_SECRETS/token > /dev/shm/token; echo $T",
    ];
    let exec = |more: &[&str]| {
        let words = [&["exec", "web1"], more, &["--"], &copies].concat();
        master.run(&words)
    };
    let given = exec(&["--secret", "token=T"]);
    story.check(
        given.code == Some(0) && given.text().contains("[secret token]"),
        "it is given",
        given.shown(),
    );
    let there = lab.sure(&web1, "cat /dev/shm/token");
    story.same(there.as_str(), NEW_TOKEN, "the new value");

    story.step("what a machine can't read is told by name, with the way out");
    let gone = exec(&["--secret", "creds"]);
    let said = [gone.text(), gone.stderr.clone()].concat();
    story.check(
        gone.code == Some(1)
            && said.contains("cannot read the secret \"creds\" (Secrets Manager secret prod/creds in us-east-1): there is none"),
        "one that is gone",
        gone.shown(),
    );
    lab.verb(&[
        "fault",
        "GetParameter",
        "AccessDeniedException",
        "--status",
        "400",
    ]);
    let denied = exec(&["--secret", "token"]);
    let said = [denied.text(), denied.stderr.clone()].concat();
    let statement = r#"{"Effect":"Allow","Action":"ssm:GetParameter","Resource":"arn:aws:ssm:us-east-1:*:parameter/prod/token"}"#;
    story.check(
        said.contains("the role readers may not read it") && said.contains(statement),
        "one that the role may not read",
        denied.shown(),
    );

    story.step("a busy service is asked again");
    let busy = ["fault", "GetParameter", "ThrottlingException"];
    lab.verb(&[&busy[..], &["--status", "400", "--count", "2"]].concat());
    let given = exec(&["--secret", "token"]);
    story.same(given.code, Some(0), "it is given");

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
