//! Salt as a stage: what the example says of itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aot_tests::python;
use aot_tests::rig::Rig;

/// Salt starts slowly, and takes its time to load.
const STATES: Duration = Duration::from_secs(900);

/// The example beside the rig's files, with a Salt that is there: to install one on each machine takes a minute each.
fn example(rig: &Rig) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/salt");
    let to = rig.dir().join("salt");
    let copied = Command::new("cp").arg("-r").arg(from).arg(&to).status();
    assert!(copied.expect("cp starts").success());
    let file = to.join("cluster.yml");
    let text = fs::read_to_string(&file).expect("reads");
    let wanted = text.split("{SALT: ").nth(1).expect("a version");
    let wanted = wanted.split('}').next().expect("its end");
    let programs = python::programs(Path::new(env!("CARGO_TARGET_TMPDIR")), wanted);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    let text = text.replace(&format!("SALT: {wanted}"), &format!("PATH: '{path}'"));
    fs::write(&file, text).expect("writes");
    file.display().to_string()
}

#[test]
fn the_example_applies_its_states_on_each_machine_for_itself() {
    let mut rig = Rig::local();
    let file = example(&rig);
    rig.cli_within(STATES, ["launch", "--json", "--yes", &file])
        .expect(0);
    for name in ["web1", "web2"] {
        let page = rig.sh(name, "cat /srv/site/index.html");
        let title = format!("<h1>{name} of web, on ");
        assert!(page.starts_with(&title), "{page}");
        for peer in ["web1", "web2"] {
            assert!(page.contains(&format!("<p>{peer}: 127.")), "{page}");
        }
    }
    // What is as it should be stays so.
    rig.cli_within(STATES, ["apply", "web1", "--from", "site"])
        .expect(0);
    let logs = rig.cli(["logs", "web1"]);
    let said = logs.expect(0).text();
    assert!(said.contains("Succeeded: 3"), "{}", logs.shown());
    assert!(!said.contains("installing"), "{}", logs.shown());
    assert_eq!(rig.sh("web1", "wc -l < /srv/site/published"), "1");
    // A state that does not hold fails the stage, with what Salt says of it.
    let states = Path::new(&file).with_file_name("bundles/site/states/site/init.sls");
    let more = "\nbroken:\n  cmd.run:\n    - name: echo nothing is there; exit 3\n";
    let states_text = fs::read_to_string(&states).expect("reads");
    fs::write(&states, states_text + more).expect("writes");
    let failed = rig.cli_within(STATES, ["launch", "--yes", &file]);
    failed.expect(1);
    let why = "  ! [ERROR   ] stdout: nothing is there";
    assert!(failed.stderr.contains(why), "{}", failed.shown());
    assert_eq!(rig.clean(), Vec::<String>::new());
}
