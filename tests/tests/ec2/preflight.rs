//! What is wrong with a file is found before anything is made, and all of it at once.

use std::path::Path;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Output;
use serde_json::Value;

/// Every entry has one mistake.
const WRONG: &str = "security_groups: [{name: absent, action: find}]
defaults: {ami: AMI, ec2_size: t3.micro}
instances:
  - {name: image, ami: ami-0123456789abcdef0}
  - {name: alias, ami: 'name:no-such-image-*@136693071363'}
  - {name: type, ec2_size: t3.giant}
  - {name: arch, ec2_size: t4g.micro}
  - {name: subnet, subnet: subnet-0123456789abcdef0}
  - {name: key, ssh_key: nobody}
  - {name: group, security_groups: [nowhere]}
  - {name: wanted, security_groups: [absent]}
  - {name: profile, instance_profile_name: no-such-profile}
  - {name: snap, ebs: [{device: /dev/sdf, snapshot: snap-0123456789abcdef0}]}
  - {name: config, cloud_config: absent.yml}
  - {name: bundle, bootstrap_sequence: [{dir: absent}]}
  - {name: script, bootstrap_sequence: [{dir: empty}]}
pools:
  - {name: many, size: 40, subnet: small}
";
/// What must be said of each: a word that names the thing.
const SAID: [&str; 14] = [
    "ami-0123456789abcdef0",
    "no-such-image-*",
    "t3.giant",
    "arm64",
    "subnet-0123456789abcdef0",
    "nobody",
    "nowhere",
    "absent",
    "no-such-profile",
    "snap-0123456789abcdef0",
    "absent.yml",
    "bootstrap.sh",
    "small",
    "loopback",
];

#[test]
fn all_mistakes_are_found_at_once_and_before_anything_is_made() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let mut story = Story::default();

    story.step("a file full of mistakes, and a master that nobody reaches");
    let lost = Master::start_as(&lab, "lost", 7440, "127.0.0.1:7440", &[]);
    everything_is_said(&mut story, &lab, &lost);
    nothing_is_made(&mut story, &lab);
    lost.stop();

    // Its launches find an agent for both architectures: there are no machines here that would run one.
    let agents = lab.dir().join("both-agents");
    std::fs::create_dir(&agents).expect("a folder");
    for arch in ["x86_64", "aarch64"] {
        std::fs::write(agents.join(format!("aot-agent-{arch}")), arch).expect("a stand-in");
    }
    let agents = agents.display().to_string();
    let env = [("AOT_AGENT_DIR", agents.as_str())];
    let master = Master::start_with(&lab, "found", 7441, &env);
    story.step("a private address of the master and machines with public ones");
    private_master(&mut story, &lab);

    story.step("a launch that EC2 forbids: a dry run tells");
    let fine = cluster_file(
        &lab.dir().join("fine"),
        "fine",
        lab.ami(),
        "instances: [{name: solo}]\n",
    );
    let fine = fine.display().to_string();
    lab.verb(&[
        "fault",
        "RunInstances",
        "UnauthorizedOperation",
        "--status",
        "403",
        "--when",
        "DryRun=true",
    ]);
    let done = master.run(&["plan", &fine]);
    lab.verb(&["clear-faults"]);
    story.same(done.code, Some(1), "plan finds it");
    story.check(
        said(&done).contains("may not do ec2:RunInstances"),
        "and says it",
        &done,
    );
    story.same(
        master.run(&["plan", &fine]).code,
        Some(0),
        "allowed, it has no problem",
    );
    nothing_is_made(&mut story, &lab);

    story.step("images by alias, by parameter and by name");
    images(&mut story, &lab, &master);
    master.stop();
    lab.end();
    story.end();
}

/// Everything that a command prints.
fn said(done: &Output) -> String {
    done.text() + &done.stderr
}

fn wrong(dir: &Path, ami: &str) -> String {
    let path = dir.join("cluster.yml");
    let text = format!(
        "cluster: wrong\nprovider: ec2\n{}",
        WRONG.replace("AMI", ami)
    );
    std::fs::write(&path, text).expect("writes");
    path.display().to_string()
}

fn nothing_is_made(story: &mut Story, lab: &Lab) {
    for action in [
        "RunInstances",
        "CreateSecurityGroup",
        "CreatePlacementGroup",
        "AllocateAddress",
        "CreateTags",
    ] {
        story.same(lab.made(action), 0, &format!("no {action} worked"));
    }
}

fn private_master(story: &mut Story, lab: &Lab) {
    let master = Master::start_as(lab, "private", 7442, "10.1.2.3:7442", &[]);
    let dir = lab.dir().join("private-files");
    let plan = |rest: &str| -> Output {
        let file = cluster_file(&dir, "private", lab.ami(), rest);
        master.run(&["plan", &file.display().to_string()])
    };
    let public = plan("instances: [{name: solo, auto_assign_ip: true}]\n");
    story.same(public.code, Some(1), "that can't work");
    story.check(
        said(&public).contains("10.1.2.3") && said(&public).contains("AOT_ADVERTISE"),
        "it says what to do",
        &public,
    );
    let within = plan("instances: [{name: solo, subnet: private, auto_assign_ip: false}]\n");
    story.same(
        within.code,
        Some(0),
        "machines without public addresses may reach it",
    );
    master.stop();
}

/// The newest fitting image is taken; nothing boots, so the launch ends at its time-out.
fn images(story: &mut Story, lab: &Lab, master: &Master) {
    let rest = "launch: {timeout: 20s}
instances:
  - {name: alias, ami: debian-12}
  - {name: arm, ami: debian-12, ec2_size: t4g.micro}
  - {name: parameter, ami: 'ssm:/aws/service/debian/release/12/latest/amd64'}
  - {name: pattern, ami: 'name:debian-12-amd64-20250428-*@136693071363'}
";
    let dir = lab.dir().join("images");
    bundle::folder(&dir.join("b"), "true\n");
    let file = cluster_file(&dir, "images", lab.ami(), rest);
    master.launch(&file).finish(LAUNCH).expect(1);
    let seen = lab.ec2(
        "{t['Value']: i['ImageId'] for r in ec2.describe_instances()['Reservations'] for i in r['Instances']
          for t in i['Tags'] if t['Key'] == 'Name'}",
        &[],
    );
    let newest = "ami-0aa0debd12aa00002";
    for (name, image) in [
        ("alias", newest),
        ("arm", "ami-0aa0debd12bb00002"),
        ("parameter", newest),
        ("pattern", "ami-0aa0debd12aa00001"),
    ] {
        story.same(
            seen[name].as_str(),
            Some(image),
            &format!("the image of {name}"),
        );
    }
    story.same(master.cleanup("images").code, Some(0), "cleanup");
}

fn everything_is_said(story: &mut Story, lab: &Lab, lost: &Master) {
    let dir = lab.dir().join("wrong");
    std::fs::create_dir_all(dir.join("empty")).expect("makes a bundle without a script");
    let file = wrong(&dir, lab.ami());
    for verb in ["plan", "launch"] {
        let done = lost.run(&[verb, &file]);
        // One of the mistakes is a file that is not there: that is a bad file, whatever else is wrong.
        story.same(done.code, Some(2), &format!("{verb} refuses"));
        for word in SAID {
            let text = said(&done);
            story.check(text.contains(word), &format!("{verb} says {word}"), &text);
        }
    }
    let (_, lines) = lost.json(&["plan", &file]);
    let problems: Vec<&Value> = lines
        .iter()
        .filter(|line| line["problem"].is_string())
        .collect();
    story.check(
        problems.len() >= SAID.len(),
        "each is a problem of its own",
        &problems,
    );
    story.check(
        problems.iter().all(|it| it["hint"].is_string()),
        "with a way out",
        &problems,
    );
}
