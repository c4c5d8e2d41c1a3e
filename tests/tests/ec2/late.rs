//! What EC2 learns late, has no room for, or says in its own way: a launch gets there all the same, without asking more
//! often than it must. Every form of request is held against EC2's own model. Without machines behind the API.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::Story;
use aot_tests::process::Output;
use aot_tests::wait;

const SOON: Duration = Duration::from_secs(120);

fn file(lab: &Lab, name: &str, rest: &str) -> PathBuf {
    let dir = lab.dir().join(format!("{name}-files"));
    std::fs::create_dir_all(&dir).expect("makes the folder");
    let path = dir.join("cluster.yml");
    let text = format!("cluster: {name}\nprovider: ec2\n{rest}");
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}

/// Launches; nobody calls home, so its end says nothing.
fn launch(story: &mut Story, master: &Master, file: &std::path::Path) -> Output {
    let done = master.launch(file).finish(SOON);
    story.same(done.code, Some(1), &done.shown());
    done
}

#[test]
fn launches_get_there_although_ec2_learns_late() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let mut story = Story::default();
    let master = Master::start(&lab, "late", 7485);

    story.step("new groups, addresses and machines are known late");
    lab.verb(&["late", "3"]);
    let rest = "launch: {timeout: 40s, on_failure: keep, replace: 0}\n\
        defaults: {ami: debian-12, ec2_size: m5.large, user: admin}\n\
        security_groups:\n  - {name: late-a, action: create, allow_inbound: [{protocol: tcp, from_port: 1, to_port: 2, group: late-b}]}\n\
        \x20 - {name: late-b, action: create, allow_inbound: [{protocol: tcp, from_port: 1, to_port: 2, group: late-a}]}\n\
        pools:\n  - {name: w, size: 2, security_groups: [late-a, late-b], placement_group: late-near, allocate_ip_address: true, \
        ebs: [{device: /dev/sdf, size: 2, delete_on_termination: false}], spot: {fallback: true}}\n";
    let late = file(&lab, "late", rest);
    launch(&mut story, &master, &late);
    lab.verb(&["late", "0"]);
    let account = lab.account("late");
    story.same(account.instances.len(), 2, "machines");
    story.same(
        account.addresses.len(),
        2,
        "an address for each, and no other",
    );
    let named = || {
        let cloud = lab.cloud("late");
        let names = cloud.instances.iter().filter_map(|it| it.tags.get("Name"));
        let mut names: Vec<&String> = names.collect();
        names.sort();
        names == ["w1", "w2"]
    };
    wait::until(named, SOON, "the machines have their names");

    story.step("later machines of a placement group go to its zone");
    let more = rest.replace("size: 2, security_groups", "size: 4, security_groups");
    let late = file(&lab, "late", &more.replace("40s", "20s"));
    launch(&mut story, &master, &late);
    let zones = lab.ec2(
        "sorted({i['Placement']['AvailabilityZone'] for r in ec2.describe_instances()['Reservations'] for i in r['Instances'] \
         if i['State']['Name'] == 'running'})",
        &[],
    );
    story.same(lab.account("late").instances.len(), 4, "machines");
    story.same(zones.as_array().map(Vec::len), Some(1), "zones");

    story.step("the other calls, for their form");
    for words in [
        ["stop", "w1", "--yes"],
        ["start", "w1", "--timeout=1s"],
        ["reboot", "w2", "--yes"],
    ] {
        master.run(&words);
    }
    interface(&lab);
    let done = master.cleanup("late");
    story.same(done.code, Some(0), &done.shown());
    story.check(lab.account("late").is_empty(), "nothing is left", ());
    for action in FORMS {
        story.check(lab.calls(action) > 0, "was called", action);
    }
    master.stop();
    lab.end();
    story.end();
}

/// Calls that other tests make rarely: their form is checked by the lab's end.
const FORMS: [&str; 10] = [
    "StartInstances",
    "StopInstances",
    "RebootInstances",
    "AllocateAddress",
    "AssociateAddress",
    "ReleaseAddress",
    "RevokeSecurityGroupIngress",
    "DeleteNetworkInterface",
    "DeleteVolume",
    "DeletePlacementGroup",
];

/// Leaves an interface with the cluster's tags behind, as a machine's second one may be.
fn interface(lab: &Lab) {
    let make = r#"
import boto3, json
ec2 = boto3.client("ec2")
group = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["late-a"]}])["SecurityGroups"][0]
subnet = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [group["VpcId"]]}])["Subnets"][0]["SubnetId"]
made = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
ec2.create_tags(Resources=[made], Tags=group["Tags"])
print(json.dumps(made))
"#;
    lab.python(make, &[]);
}

#[test]
fn where_there_is_no_capacity_the_next_type_is_asked_for_at_once() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let mut story = Story::default();
    let master = Master::start(&lab, "full", 7486);
    let rest = "launch: {timeout: 90s, on_failure: keep, replace: 0}\n\
        defaults: {ami: debian-12, user: admin}\n\
        pools: [{name: w, size: 1, ec2_size: [m5.2xlarge, m5.xlarge, m5.large]}]\n";
    let full = file(&lab, "full", rest);
    for kind in ["m5.2xlarge", "m5.xlarge"] {
        let when = format!("type={kind}");
        lab.verb(&[
            "fault",
            "RunInstances",
            "InsufficientInstanceCapacity",
            "--count",
            "999",
            "--delay",
            "2",
            "--when",
            "dry=no",
            "--when",
            &when,
        ]);
    }
    let (began, launch) = (Instant::now(), master.launch(&full));
    let there = || lab.account("full").instances.len() == 1;
    wait::until(there, SOON, "the last type is there");
    story.check(
        began.elapsed() < Duration::from_secs(60),
        "at once",
        began.elapsed(),
    );
    story.same(lab.calls("RunInstances"), 3, "calls, one a type");
    drop(launch);
    let done = master.cleanup("full");
    story.same(done.code, Some(0), &done.shown());
    lab.verb(&["clear-faults"]);

    story.step("a name in other letters is another's group, and no endless waiting");
    lab.ec2(
        "ec2.create_security_group(GroupName='shared', Description='x')['GroupId']",
        &[],
    );
    let rest = "launch: {timeout: 90s}\ndefaults: {ami: debian-12, ec2_size: m5.large, user: admin}\n\
        security_groups: [{name: Shared, action: create, allow_all_own_traffic: true}]\n\
        pools: [{name: w, size: 1, security_groups: [Shared]}]\n";
    let twin = file(&lab, "twin", rest);
    let began = Instant::now();
    let done = master.launch(&twin).finish(SOON);
    story.same(done.code, Some(1), "it is refused");
    story.check(
        done.shown().contains("\\\"shared\\\"") || done.shown().contains("\"shared\""),
        "with the twin",
        done.shown(),
    );
    story.check(
        began.elapsed() < Duration::from_secs(60),
        "at once",
        began.elapsed(),
    );

    story.step("what the account lacks is not laid on the credentials");
    let rest = "launch: {timeout: 5s}\ndefaults: {ami: debian-12, ec2_size: m5.large, user: admin}\npools: [{name: w, size: 1}]\n";
    let pending = file(&lab, "pending", rest);
    let path = pending.to_str().expect("paths here are UTF-8");
    lab.verb(&[
        "fault",
        "RunInstances",
        "PendingVerification",
        "--when",
        "dry=yes",
    ]);
    let done = master.run(&["plan", path]);
    story.check(
        done.shown().contains("PendingVerification"),
        "is told",
        done.shown(),
    );
    story.check(
        !done.shown().contains("credentials"),
        "by its name",
        done.shown(),
    );
    master.stop();
    lab.end();
    story.end();
}
