//! Machines that never call home: explained, made again where the file says so, left for a look or taken away.

use std::path::Path;

use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master, events_of};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::lab::web::Web;
use aot_tests::process::Output;

/// Takes the place of the agent on web2, as long as the service says so.
const SPOIL: &str = "#cloud-config
bootcmd:
  - [sh, -c, 'test $instance_name = web2 && curl -fs WEB/$cluster_name && for to in /usr/local/bin /opt/bin /opt/aot/bin; do mkdir -p $to/aot-agent/.aot-agent; done']
";

fn file(
    dir: &Path,
    ami: &str,
    cluster: &str,
    web: &Web,
    once: bool,
    launch: &str,
) -> std::path::PathBuf {
    let dir = dir.join(cluster);
    let rest = format!(
        "launch: {{timeout: 45s, {launch}}}\npools: [{{name: web, size: 2, cloud_config: spoil.yml}}]\n"
    );
    let file = cluster_file(&dir, cluster, ami, &rest);
    let url = web.url(if once { "/once" } else { "/always" });
    std::fs::write(dir.join("spoil.yml"), SPOIL.replace("WEB", &url)).expect("writes");
    file
}

#[test]
fn silent_machines_are_explained_and_dealt_with() {
    let _turn = crate::turn();
    let Some(lab) = Lab::start() else { return };
    let web = Web::start(&lab, 8099);
    let master = Master::start(&lab, "silent", 7440);
    let dir = lab.dir().join("files");
    let mut story = Story::default();

    story.step("three launches with one silent machine each");
    let again = master.launch(&file(&dir, lab.ami(), "again", &web, true, "replace: 1"));
    let few = master.launch(&file(&dir, lab.ami(), "few", &web, false, "min_ready: 1"));
    let back = master.launch(&file(
        &dir,
        lab.ami(),
        "back",
        &web,
        false,
        "on_failure: rollback",
    ));
    let (again, few, back) = (
        again.finish(LAUNCH),
        few.finish(LAUNCH),
        back.finish(LAUNCH),
    );

    story.step("it is explained");
    explained(&mut story, &again, "again");
    explained(&mut story, &few, "few");

    story.step("replace: 1 makes it again");
    story.same(again.code, Some(0), "the launch succeeds");
    replaced(&mut story, &lab, &master, &again);

    story.step("min_ready: 1 is enough");
    story.same(few.code, Some(0), "the launch succeeds");
    story.same(phase(&master, "few", "web1").as_str(), "ready", "web1");
    story.same(phase(&master, "few", "web2").as_str(), "failed", "web2");
    story.same(
        lab.cloud("few").instances.len(),
        2,
        "the silent machine is left for a look",
    );
    let status = master.run(&["--cluster", "few", "status"]).text();
    story.check(
        status.contains("last boot step"),
        "status has the note",
        &status,
    );

    story.step("on_failure: rollback leaves nothing");
    story.same(back.code, Some(1), "the launch fails");
    let cloud = lab.cloud("back");
    story.check(
        cloud.instances.is_empty() && cloud.volumes.is_empty(),
        "no machine, no volume",
        &cloud,
    );
    story.same(cloud.terminated.len(), 2, "both are terminated");

    for cluster in ["again", "few", "back"] {
        story.same(master.cleanup(cluster).code, Some(0), "cleanup");
    }
    master.stop();
    drop(web);
    lab.end();
    story.end();
}

/// The note of the machine that never called home has all that can be known.
fn explained(story: &mut Story, launched: &Output, cluster: &str) {
    let failed = events_of(launched, "web2", "instance-failed");
    story.same(failed.len(), 1, "one instance-failed");
    let text = |key: &str| {
        failed
            .first()
            .and_then(|it| it[key].as_str())
            .unwrap_or_default()
    };
    let said = format!("{}\n{}", text("message"), text("explanation"));
    for (word, what) in [
        ("i-", "its machine"),
        ("running", "its state"),
        ("cannot install the agent", "the last boot step"),
        ("system ok, instance ok", "EC2's own checks"),
        ("aot: failed", "the tail of its console"),
    ] {
        story.check(
            said.contains(word),
            &format!("{cluster}: the note has {what}"),
            &said,
        );
    }
    story.check(!said.contains("Bearer"), "no secret", &said);
    story.check(
        events_of(launched, "web1", "instance-failed").is_empty(),
        "web1 is well",
        launched,
    );
}

fn replaced(story: &mut Story, lab: &Lab, master: &Master, launched: &Output) {
    story.same(
        events_of(launched, "web2", "instance-replaced").len(),
        1,
        "one instance-replaced",
    );
    story.same(
        phase(master, "again", "web2").as_str(),
        "ready",
        "web2 is ready",
    );
    let cloud = lab.cloud("again");
    story.same(cloud.instances.len(), 2, "two machines");
    story.same(cloud.terminated.len(), 1, "the silent one is terminated");
    let attempt = |name: &str| {
        let found = cloud.instances.iter().find(|it| it.tags["Name"] == name);
        found.and_then(|it| it.tags.get("aot:attempt").cloned())
    };
    story.same(
        attempt("web1").as_deref(),
        Some("1"),
        "web1 is of the first attempt",
    );
    story.same(
        attempt("web2").as_deref(),
        Some("2"),
        "web2 is of the second",
    );
    let (code, _) = master.json(&["--cluster", "again", "exec", "*", "ping"]);
    story.same(code, Some(0), "both agents answer");
}

fn phase(master: &Master, cluster: &str, name: &str) -> String {
    let (_, all) = master.json(&["--cluster", cluster, "status"]);
    let found = all.iter().find(|it| it["name"] == name);
    found
        .and_then(|it| it["phase"].as_str())
        .unwrap_or_default()
        .to_owned()
}
