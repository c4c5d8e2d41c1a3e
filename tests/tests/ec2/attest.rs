//! Machines prove which one they are: by the identity document that AWS signs, and by a challenge that is set as a tag.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::{Output, Running};
use aot_tests::rig::master_program;
use aot_tests::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const CERTIFICATES: &str = "AOT_ATTESTATION_CERTIFICATES";

/// An empty folder of certificates, and a master that uses it.
fn master<'lab>(lab: &'lab Lab, name: &str, port: u16) -> (PathBuf, Master<'lab>) {
    let folder = lab.dir().join(format!("certificates-{name}"));
    let shown = folder.to_str().expect("paths here are UTF-8").to_owned();
    let master = Master::start_with(lab, name, port, &[(CERTIFICATES, &shown)]);
    (folder, master)
}

/// `attestation import` of files, into this folder.
fn import(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(master_program());
    command.args(["attestation", "import"]).args(words);
    command.env(CERTIFICATES, folder);
    Running::start(command).finish(SOON)
}

fn proof(master: &Master<'_>, instance: &str) -> Value {
    let (_, agents) = master.json(&["agents"]);
    let found = agents.iter().find(|agent| agent["instance"] == instance);
    let status = master.status(instance)["proof"].clone();
    let agent = found.map_or(Value::Null, |agent| agent["proof"].clone());
    assert_eq!(
        status, agent,
        "status and agents say the same of {instance}"
    );
    agent
}

fn lied_to(lab: &Lab, lies: &Value) {
    lab.ask(&json!({"verb": "spoil", "lies": lies}));
}

#[test]
fn a_machine_joins_with_the_document_of_its_own_machine_alone() {
    let Some(lab) = Lab::start() else { return };
    let (folder, master) = master(&lab, "attest", 7475);
    let dir = lab.dir().join("files");
    let mut story = Story::default();
    let file = |rest: &str| {
        let rest =
            format!("attestation: document\nlaunch: {{timeout: 240s}}\ninstances: [{rest}]\n");
        cluster_file(&dir, "attest", lab.ami(), &rest)
    };
    let one = file("{name: good}");

    story.step("without the region's certificate nothing is made");
    for words in [["plan"], ["launch"]] {
        let path = one.to_str().expect("paths here are UTF-8");
        let refused = master.run(&[words[0], path]);
        story.check(refused.code != Some(0), "it is refused", refused.shown());
        let names = refused
            .shown()
            .contains("aot-master attestation import us-east-1.pem");
        story.check(names, "and names the way out", refused.shown());
    }
    story.same(lab.calls("RunInstances"), 0, "calls for machines");

    story.step("the certificate is imported, and counts at once");
    let wrong = import(
        &folder,
        &[
            one.to_str().expect("paths here are UTF-8"),
            "--region",
            "us-east-1",
        ],
    );
    story.same(wrong.code, Some(1), &wrong.shown());
    let imported = import(&folder, &[lab.info("imds_cert"), "--region", "us-east-1"]);
    story.same(imported.code, Some(0), &imported.shown());
    master.launched(&one, 0);
    story.same(proof(&master, "good"), json!("document"), "its proof");
    let old = master.machine("good");

    story.step("no other document is taken");
    let lies = json!({"forged": "forged", "elsewhere": "elsewhere", "account": "account",
                      "replayed": format!("of {old}")});
    lied_to(&lab, &lies);
    let all = "{name: good}, {name: forged}, {name: elsewhere}, {name: account}, {name: replayed}";
    let mut launch = master.launch(&file(all));
    let replayed = format!("identity document is that of {old}");
    for (name, why) in [
        ("forged", "its signature is wrong"),
        ("elsewhere", "not signed by the certificate of us-east-1"),
        ("account", "of account 999999999999"),
        ("replayed", &replayed),
    ] {
        let refused = launch.event("enrolment-refused", name, LAUNCH);
        let message = refused["message"].as_str().unwrap_or_default();
        story.check(message.contains(why), name, message);
        story.same(proof(&master, name), Value::Null, "it has no certificate");
        let status = master.run(&["status"]).text();
        story.check(status.contains("not admitted"), "status says why", &status);
    }

    story.step("with their own documents they join");
    lied_to(&lab, &json!({}));
    let launched = launch.finish(LAUNCH);
    launched.expect(0);
    for name in ["forged", "elsewhere", "account", "replayed"] {
        story.same(proof(&master, name), json!("document"), name);
    }

    story.step("the document of the machine before is not that of the new one");
    master.run(&["terminate", "good", "--yes"]).expect(0);
    lied_to(&lab, &json!({"good": format!("of {old}")}));
    let mut launch = master.launch(&file(all));
    let refused = launch.event("enrolment-refused", "good", LAUNCH);
    let message = refused["message"].as_str().unwrap_or_default();
    story.check(message.contains(&replayed), "the old one's", message);
    lied_to(&lab, &json!({}));
    launch.finish(LAUNCH).expect(0);
    story.check(master.machine("good") != old, "it is another machine", &old);
    story.same(proof(&master, "good"), json!("document"), "its proof");

    master.cleanup("attest").expect(0);
    master.stop();
    lab.end();
    story.end();
}

#[test]
fn a_challenge_is_answered_on_the_machine_and_leaves_no_tag() {
    let Some(lab) = Lab::start() else { return };
    let (_, mut master) = master(&lab, "challenge", 7476);
    let dir = lab.dir().join("files");
    let mut story = Story::default();
    let values = || {
        let machines = lab.cloud("challenge").instances.into_iter();
        let value = |it: aot_tests::lab::Instance| it.tags.get("aot:challenge").cloned();
        machines.filter_map(value).collect::<Vec<_>>()
    };

    story.step("auto without a certificate is the challenge");
    lied_to(&lab, &json!({"wrong": "tag", "late": "no-tag"}));
    let rest = "launch: {timeout: 240s}\ninstances: [{name: right}, {name: wrong}, {name: late}]\n";
    let file = cluster_file(&dir, "challenge", lab.ami(), rest);
    let mut launch = master.launch(&file);
    launch.event("instance-enrolled", "right", LAUNCH);
    story.same(proof(&master, "right"), json!("challenge"), "its proof");
    let refused = launch.event("enrolment-refused", "wrong", LAUNCH);
    let message = refused["message"].as_str().unwrap_or_default();
    story.check(message.contains("wrongly"), "the event says why", message);
    story.same(
        proof(&master, "wrong"),
        Value::Null,
        "it has no certificate",
    );
    story.same(
        proof(&master, "late"),
        Value::Null,
        "nor has the one that reads no tag",
    );

    story.step("a master that is killed meanwhile goes on with it");
    wait::until(|| values().len() >= 2, SOON, "their tags are there");
    let secrets = values();
    master.crash();
    drop(launch.finish(LAUNCH));
    master.serve();
    lied_to(&lab, &json!({}));
    let proven = |name: &str| master.status(name)["proof"] == "challenge";
    let both = || proven("wrong") && proven("late");
    wait::until(both, LAUNCH, "both have answered");

    story.step("no tag is left, and no value was told to anyone");
    wait::until(|| values().is_empty(), SOON, "all tags are removed");
    let (_, listed) = master.json(&["list", "-o"]);
    let shown = format!("{listed:?}{}", master.log());
    let told = secrets.iter().find(|secret| shown.contains(*secret));
    story.same(told, None::<&String>, "what was shown or logged");

    story.step("a machine whose identity was revoked gets no challenge");
    let before = lab.made("CreateTags");
    master
        .run(&["agents", "revoke", "right", "--yes"])
        .expect(0);
    let right = master.machine("right");
    let said = lab.second_agent(&right, "key", "true", "refused");
    story.check(
        said.contains("refused"),
        "another agent there is refused",
        &said,
    );
    let refused = format!("the identity of {right} was revoked");
    story.check(
        master.logs(0, &refused),
        "the master says why",
        master.log(),
    );
    story.same(lab.made("CreateTags"), before, "tags that were set since");

    master.cleanup("challenge").expect(0);
    master.stop();
    lab.end();
    story.end();
}
