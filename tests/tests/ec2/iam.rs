//! The whole life of a cluster under exactly the policy of `packaging/iam`, with each call's permission enforced: groups, a
//! placement group, an address and a volume are made; machines are stopped and started; all is cleaned up. Without machines
//! behind the API, so the launch itself ends without anybody calling home.

use std::path::Path;
use std::time::Duration;

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::Story;
use aot_tests::wait;

const SOON: Duration = Duration::from_secs(120);

#[test]
fn the_packaged_policy_is_enough_and_is_enforced() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/iam/aot-master.json");
    let policy = policy.to_str().expect("paths here are UTF-8");
    let Some(lab) = Lab::start_with(&["--no-machines", "--policy", policy]) else {
        return;
    };
    let mut story = Story::default();
    let strange = lab.python(MAKE, &[lab.ami()]);
    let strange = strange.as_str().expect("an id").to_owned();
    let master = Master::start(&lab, "policy", 7470);

    story.step("launch");
    let file = cluster(&lab);
    let mut launch = master.launch(&file);
    let all = || lab.account("policy");
    let there = || {
        let account = all();
        account.instances.len() == 3 && account.addresses.len() == 1 || launch.has_ended()
    };
    wait::until(there, SOON, "the machines and the address are there");
    wait::until(|| launch.has_ended(), SOON, "nobody calls home");
    let launched = launch.finish(SOON);
    let account = all();
    story.same(account.instances.len(), 3, "machines");
    story.same(account.addresses.len(), 1, "addresses");
    story.same(account.groups.len(), 1, "groups");
    story.same(account.placement_groups.len(), 1, "placement groups");
    story.same(account.volumes.len(), 4, "root volumes and one more");
    denied_nothing(&mut story, &lab, &launched.shown());

    story.step("stop, start, terminate");
    let steps: [(&[&str], &str); 2] = [
        (&["stop", "solo", "--yes"], "stopped"),
        (&["start", "solo"], "running"),
    ];
    for (words, state) in steps {
        let done = master.run(words);
        story.same(done.code, Some(0), &done.shown());
        let is = || {
            all()
                .instances
                .iter()
                .any(|it| it.pool == "solo" && it.state == state)
        };
        story.check(
            wait::maybe(|| is().then_some(()), SOON).is_some(),
            state,
            all(),
        );
    }

    story.step("a challenge may be set and removed on own machines");
    let own = lab.restricted(CHALLENGE, &[&account.instances[0].id]);
    story.same(own, serde_json::json!(["done", "done"]), "set, removed");

    story.step("terminate");
    let done = master.run(&["terminate", "w1", "--yes"]);
    story.same(done.code, Some(0), &done.shown());

    story.step("cleanup");
    let done = master.cleanup("policy");
    story.same(done.code, Some(0), &done.shown());
    story.check(all().is_empty(), "nothing is left", all());
    denied_nothing(&mut story, &lab, "");

    story.step("what is not ours is out of reach");
    story.same(
        lab.account("").instances.len(),
        1,
        "the machine of somebody else lives",
    );
    master.stop();
    let refused = lab.restricted(TRY, &[&strange]);
    let refused: Vec<&str> = refused
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it.as_str())
        .collect();
    story.same(
        refused,
        vec!["UnauthorizedOperation"; 5],
        "stop, terminate, name, challenge, launch without our tag",
    );
    lab.end();
    story.end();
}

/// A machine that is not aot's, and an instance profile with the role that the policy names.
const MAKE: &str = r#"
import boto3, json, sys
iam = boto3.client("iam")
iam.create_role(RoleName="aot-machine", AssumeRolePolicyDocument="{}")
iam.create_instance_profile(InstanceProfileName="machines")
iam.add_role_to_instance_profile(InstanceProfileName="machines", RoleName="aot-machine")
made = boto3.client("ec2").run_instances(ImageId=sys.argv[1], InstanceType="m5.large", MinCount=1, MaxCount=1)
print(json.dumps(made["Instances"][0]["InstanceId"]))
"#;
const TRY: &str = r#"
import boto3, json, sys
from botocore.exceptions import ClientError
ec2, other = boto3.client("ec2"), [sys.argv[1]]
image = ec2.describe_instances(InstanceIds=other)["Reservations"][0]["Instances"][0]["ImageId"]
def code(call, **parameters):
    try:
        call(**parameters)
        return "done"
    except ClientError as error:
        return error.response["Error"]["Code"]
print(json.dumps([
    code(ec2.stop_instances, InstanceIds=other), code(ec2.terminate_instances, InstanceIds=other),
    code(ec2.create_tags, Resources=other, Tags=[{"Key": "Name", "Value": "mine"}]),
    code(ec2.create_tags, Resources=other, Tags=[{"Key": "aot:challenge", "Value": "c"}]),
    code(ec2.run_instances, ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1)]))
"#;

const CHALLENGE: &str = r#"
import boto3, json, sys
from botocore.exceptions import ClientError
ec2, own = boto3.client("ec2"), [sys.argv[1]]
def code(call, *tags):
    try:
        call(Resources=own, Tags=list(tags))
        return "done"
    except ClientError as error:
        return error.response["Error"]["Code"]
print(json.dumps([code(ec2.create_tags, {"Key": "aot:challenge", "Value": "c"}), code(ec2.delete_tags, {"Key": "aot:challenge"})]))
"#;

/// No call of the master was answered with 401 or 403.
fn denied_nothing(story: &mut Story, lab: &Lab, said: &str) {
    let denied: Vec<_> = lab
        .api_log()
        .into_iter()
        .filter(|call| matches!(call["status"].as_u64(), Some(401 | 403)))
        .collect();
    story.check(denied.is_empty(), "every call is allowed", (denied, said));
}

fn cluster(lab: &Lab) -> std::path::PathBuf {
    let dir = lab.dir().join("policy-files");
    std::fs::create_dir_all(&dir).expect("makes the folder");
    let path = dir.join("cluster.yml");
    let text = "cluster: policy\nprovider: ec2\nlaunch: {timeout: 30s, on_failure: keep}\n\
        defaults: {ami: debian-12, ec2_size: m5.large, owner: ops, user: admin, security_groups: [policy-own]}\n\
        security_groups: [{name: policy-own, action: create, allow_all_own_traffic: true, allow_ssh_from: 10.0.0.0/8}]\n\
        instances:\n  - name: solo\n    allocate_ip_address: true\n    instance_profile_name: machines\n    \
        ebs: [{device: /dev/sdf, size: 2}]\n\
        pools:\n  - {name: w, size: 2, placement_group: policy-near, spot: {fallback: true}}\n";
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}
