//! What the account is asked (`-v`), and what in it belongs to nobody (`orphans`).

use std::time::Duration;

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

const SOON: Duration = Duration::from_secs(120);
/// Nothing boots in this lab: the launch ends at its time-out, and leaves its machine.
const REST: &str = "launch: {timeout: 20s}\ninstances: [{name: solo, cloud_config: mine.yml}]\n";
const SECRET: &str = "c2VjcmV0LW9mLXRoZS11c2Vy";
/// A machine that somebody made by hand with a cluster's tags: its id.
const BY_HAND: &str =
    "ec2.run_instances(ImageId=args[0], InstanceType='t3.micro', MinCount=1, MaxCount=1,
 TagSpecifications=[{'ResourceType': 'instance', 'Tags': [{'Key': 'Cluster', 'Value': args[1]},
 {'Key': 'aot:cluster-uuid', 'Value': args[2]}]}])['Instances'][0]['InstanceId']";

#[test]
fn calls_are_shown_and_orphans_found() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let master = Master::start(&lab, "account", 7440);
    let dir = lab.dir().join("files");
    let file = cluster_file(&dir, "account", lab.ami(), REST);
    std::fs::write(dir.join("mine.yml"), format!("#cloud-config\n# {SECRET}\n")).expect("writes");
    let mut story = Story::default();

    story.step("-v shows each call and no secret");
    calls_are_shown(&mut story, &master, &file.display().to_string());

    story.step("orphans: none at first");
    story.same(master.run(&["orphans"]).code, Some(0), "all is known");

    story.step("a machine with our tag that is none of ours");
    let uuid = lab.cloud("account").instances[0].tags["aot:cluster-uuid"].clone();
    let stray = made(&lab, "account", &uuid);
    let foreign = made(&lab, "other", "00000000-0000-0000-0000-0000000000ff");
    let (code, found) = master.json(&["orphans"]);
    story.same(code, Some(1), "something is found");
    for (id, why) in [
        (&stray, "not an instance of it"),
        (&foreign, "unknown cluster"),
    ] {
        let entry = found.iter().find(|entry| entry["id"] == id.as_str());
        story.same(
            entry.and_then(|entry| entry["why"].as_str()),
            Some(why),
            "why it is an orphan",
        );
    }
    let solo = master.machine("solo");
    story.check(
        !found.iter().any(|entry| entry["id"] == solo.as_str()),
        "an instance is no orphan",
        &found,
    );

    story.step("clean afterwards");
    lab.ec2(
        "ec2.terminate_instances(InstanceIds=args)",
        &[&stray, &foreign],
    );
    let clean = || master.run(&["orphans"]).code == Some(0);
    wait::until(clean, SOON, "what is gone is no orphan");
    story.same(master.cleanup("account").code, Some(0), "cleanup");
    story.same(master.run(&["orphans"]).code, Some(0), "nothing is left");
    master.stop();
    lab.end();
    story.end();
}

fn made(lab: &Lab, cluster: &str, uuid: &str) -> String {
    let id = lab.ec2(BY_HAND, &[lab.ami(), cluster, uuid]);
    id.as_str().expect("an id").to_owned()
}

fn calls_are_shown(story: &mut Story, master: &Master, file: &str) {
    let done = master.run(&["-v", "launch", file]);
    story.same(done.code, Some(1), "the launch fails: nothing boots");
    let shown: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.contains("EC2 "))
        .collect();
    let run = shown
        .iter()
        .find(|line| line.contains("RunInstances") && !line.contains("DryRun"));
    let run = run.copied().unwrap_or_default().to_owned();
    for word in ["us-east-1", " ms ", "t3.micro"] {
        story.check(
            run.contains(word),
            &format!("RunInstances is shown with {word}"),
            &shown,
        );
    }
    // EC2's have 36 characters, the lab's 52.
    let is_id = |word: &str| {
        word.len() >= 36 && word.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric())
    };
    let id = run.split(' ').any(is_id);
    story.check(id, "and its request id", &run);
    story.check(
        shown.iter().any(|line| line.contains("DescribeInstances")),
        "the others too",
        &shown,
    );
    for secret in [SECRET, "IyEvYmluL3No", "BEGIN CERTIFICATE", "#cloud-config"] {
        story.check(!done.stderr.contains(secret), "no user-data", &done.stderr);
        story.check(!master.log().contains(secret), "nor in the log", secret);
    }
    let quiet = master.run(&["list", "-q"]);
    story.check(
        !quiet.stderr.contains("EC2 "),
        "without -v nothing is shown",
        &quiet,
    );
}
