//! Launches that EC2 refuses, that never reach it, or that never should: each ends soon and names the cause.

use std::time::{Duration, Instant};

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Output;

/// A launch that can't be ends well before this.
const BOUNDED: Duration = Duration::from_secs(120);

#[test]
fn what_cannot_be_launched_says_why() {
    let Some(lab) = Lab::start() else { return };
    let mut story = Story::default();
    let master = Master::start(&lab, "refused", 7440);

    story.step("no capacity for the first type: the next one is taken");
    no_capacity(&mut story, &lab, &master);

    story.step("no capacity for any type");
    nowhere(&mut story, &lab, &master);

    story.step("user-data that is too large is refused before anything is made");
    too_large(&mut story, &lab, &master);

    story.step("EC2 says no");
    denied(&mut story, &lab, &master);
    master.stop();

    story.step("EC2 cannot be reached");
    unreachable(
        &mut story,
        &lab,
        "nowhere",
        7441,
        &[("AWS_ENDPOINT_URL", "http://198.51.100.1:9")],
        &[
            "198.51.100.1:9",
            "connect",
            "dispatch",
            "unreachable",
            "refused",
        ],
    );

    story.step("there are no credentials");
    let none = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    unreachable(&mut story, &lab, "nobody", 7442, &none, &["credentials"]);
    lab.end();
    story.end();
}

fn words(launched: &Output) -> String {
    let events = launched.json();
    let messages = events.iter().filter_map(|event| event["message"].as_str());
    format!(
        "{}\n{}",
        messages.collect::<Vec<_>>().join("\n"),
        launched.stderr
    )
}

fn no_capacity(story: &mut Story, lab: &Lab, master: &Master) {
    let rest =
        "launch: {timeout: 240s}\ninstances: [{name: solo, ec2_size: [t3.small, t3.micro]}]\n";
    let file = cluster_file(&lab.dir().join("scarce"), "scarce", lab.ami(), rest);
    let fault = [
        "fault",
        "RunInstances",
        "InsufficientInstanceCapacity",
        "--status",
        "500",
    ];
    lab.verb(
        &[
            &fault[..],
            &["--count", "99", "--when", "InstanceType=t3.small"],
        ]
        .concat(),
    );
    let launched = master.launched(&file, 0);
    lab.verb(&["clear-faults"]);
    let cloud = lab.cloud("scarce");
    let kinds: Vec<&str> = cloud.instances.iter().map(|i| i.kind.as_str()).collect();
    story.same(kinds, vec!["t3.micro"], "one machine of the second type");
    let said = words(&launched);
    story.check(
        said.contains("InsufficientInstanceCapacity"),
        "the launch says why",
        &said,
    );
    let facts = master.run(&["facts", "solo", "--json"]).text();
    story.check(
        facts.contains("\"instance_type\":\"t3.micro\""),
        "the facts have the type",
        &facts,
    );
    story.same(master.cleanup("scarce").code, Some(0), "cleanup");
}

fn nowhere(story: &mut Story, lab: &Lab, master: &Master) {
    let rest =
        "launch: {timeout: 240s}\ninstances: [{name: solo, ec2_size: [t3.small, t3.micro]}]\n";
    let file = cluster_file(&lab.dir().join("full"), "full", lab.ami(), rest);
    lab.verb(&[
        "fault",
        "RunInstances",
        "InsufficientInstanceCapacity",
        "--count",
        "99",
    ]);
    let began = Instant::now();
    let launched = master.launched(&file, 1);
    lab.verb(&["clear-faults"]);
    story.check(
        began.elapsed() < BOUNDED,
        "it gives up soon",
        began.elapsed(),
    );
    let said = words(&launched);
    story.check(
        said.contains("InsufficientInstanceCapacity"),
        "the launch says why",
        &said,
    );
    story.check(
        lab.cloud("full").instances.is_empty(),
        "nothing was made",
        "",
    );
    story.same(master.cleanup("full").code, Some(0), "cleanup");
}

fn too_large(story: &mut Story, lab: &Lab, master: &Master) {
    let dir = lab.dir().join("large");
    let rest = "launch: {timeout: 240s}\ninstances: [{name: solo, cloud_config: extra.yml}]\n";
    let file = cluster_file(&dir, "large", lab.ami(), rest);
    std::fs::write(
        dir.join("extra.yml"),
        format!("#cloud-config\nruncmd:\n{}", noise()),
    )
    .expect("writes");
    let before = lab.api_log().len();
    let began = Instant::now();
    let launched = master.launch(&file).finish(LAUNCH);
    story.check(
        matches!(launched.code, Some(1 | 2)),
        "it is refused with exit code 1 or 2",
        launched.code,
    );
    story.check(began.elapsed() < BOUNDED, "at once", began.elapsed());
    let said = words(&launched).replace(',', "");
    story.check(
        said.contains("16384") && said.contains("user-data"),
        "the limit is named",
        &said,
    );
    // What else is wrong is asked for all the same: everything is said at once.
    let log = lab.api_log();
    let asks = |call: &&serde_json::Value| {
        let action = call["action"].as_str().unwrap_or_default();
        // 412 is the answer to a dry run.
        action.starts_with("Describe") || action.starts_with("Get") || call["status"] == 412
    };
    let more: Vec<_> = log.iter().skip(before).filter(|call| !asks(call)).collect();
    story.check(more.is_empty(), "nothing but questions and dry runs", more);
    story.check(
        lab.cloud("large").instances.is_empty(),
        "nothing was made",
        "",
    );
    master.cleanup("large");
}

/// 14 KB that no compression makes small: with the agent's part it is too much.
fn noise() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!(
            "{:016x}{:016x}",
            state,
            state.rotate_left(23) ^ (state >> 7)
        )
    };
    (0..330).map(|_| format!("  - echo {}\n", word())).collect()
}

fn denied(story: &mut Story, lab: &Lab, master: &Master) {
    let dir = lab.dir().join("denied");
    bundle::folder(&dir.join("b"), "true\n");
    let rest =
        "launch: {timeout: 240s}\ninstances: [{name: solo, bootstrap_sequence: [{dir: b}]}]\n";
    let file = cluster_file(&dir, "denied", lab.ami(), rest);
    lab.verb(&[
        "fault",
        "RunInstances",
        "UnauthorizedOperation",
        "--status",
        "403",
        "--count",
        "99",
    ]);
    let began = Instant::now();
    let launched = master.launch(&file).finish(LAUNCH);
    lab.verb(&["clear-faults"]);
    story.check(
        matches!(launched.code, Some(1 | 4)),
        "exit code 1 or 4",
        launched.code,
    );
    story.check(
        began.elapsed() < BOUNDED,
        "it gives up soon",
        began.elapsed(),
    );
    let said = words(&launched);
    story.check(
        said.contains("UnauthorizedOperation"),
        "the cause is named",
        &said,
    );
    master.launched(&file, 0);
    story.same(lab.cloud("denied").instances.len(), 1, "one machine");
    story.same(master.cleanup("denied").code, Some(0), "cleanup");
}

fn unreachable(
    story: &mut Story,
    lab: &Lab,
    name: &str,
    port: u16,
    env: &[(&str, &str)],
    causes: &[&str],
) {
    let master = Master::start_with(lab, name, port, env);
    let rest = "launch: {timeout: 20s}\ninstances: [{name: solo}]\n";
    let file = cluster_file(
        &lab.dir().join(format!("{name}-files")),
        name,
        lab.ami(),
        rest,
    );
    let began = Instant::now();
    let launched = master.launch(&file).finish(LAUNCH);
    story.check(
        matches!(launched.code, Some(1 | 4)),
        "exit code 1 or 4",
        launched.code,
    );
    story.check(
        began.elapsed() < BOUNDED,
        "it gives up soon",
        began.elapsed(),
    );
    let said = words(&launched);
    let lower = said.to_lowercase();
    story.check(
        causes.iter().any(|cause| lower.contains(cause)),
        "the cause is named",
        &said,
    );
    master.stop();
}
