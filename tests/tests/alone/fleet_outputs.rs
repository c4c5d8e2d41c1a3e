//! Long outputs of two masters on one database that share no bucket: each has on its disk what ended with it. A cluster is moved between
//! them; whoever shows an output that the other one has says so, and the way out that it names works.

use std::time::Duration;

use aot_tests::fleet::Fleet;
use aot_tests::fleet::agents::{PRINT, SimulatedAgents, printed};
use aot_tests::process::Output;
use aot_tests::wait;
use serde_json::Value;

/// Longest time for one step, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Lines of an output that the records do not take, nor half of it.
const LINES: usize = 9_000;

/// A run that takes this long is ended by the test.
const LONG_MS: &str = "600000";

/// Gives the cluster to a master, and waits until its agents are there.
fn moved(fleet: &Fleet, agents: &mut SimulatedAgents, to: usize) {
    fleet.give("c1", to);
    agents.until_attached(LIMIT);
    let there = || fleet.sessions()[to] == agents.count() as u64;
    wait::until(there, LIMIT, "its agents follow it");
}

fn shown(fleet: &Fleet, door: usize, job: &str) -> Output {
    fleet.masters[door].run(&["--json", "jobs", "show", job])
}

/// The end of the one target, and what was shown of its output.
#[track_caller]
fn end_of(output: &Output) -> (Value, String) {
    let end = output.one(|line| line["instance"] == "n1");
    let text = end["stdout"].as_str().unwrap_or_default().to_owned();
    (end, text)
}

/// All of the output is shown.
#[track_caller]
fn is_whole(output: &Output) {
    output.expect(0);
    let (end, text) = end_of(output);
    assert!(text == printed("n1", LINES), "{} bytes", text.len());
    assert_eq!(end["truncated"], Value::Null);
    let last = output.one(|line| line["summary"].is_object());
    assert_eq!(last["incomplete"], Value::Null);
}

/// A part is shown, or nothing, and it is said so: as `begins`, and who has the rest. Gives the part.
#[track_caller]
fn is_part(output: &Output, begins: &str, holder: &str) -> String {
    output.expect(1);
    let (end, text) = end_of(output);
    assert_eq!(end["outcome"], "succeeded", "{end}");
    assert_eq!(end["truncated"], true);
    let detail = end["detail"].as_str().expect("it is said what lacks");
    let all = printed("n1", LINES).len() as u64;
    let cut = end["cut_bytes"].as_u64().expect("and how much");
    // What lacks is counted with what is kept beside each piece.
    let lacks = all - text.len() as u64;
    assert!(
        (lacks..lacks + (8 << 10)).contains(&cut),
        "{cut} of {lacks}"
    );
    assert!(detail.starts_with(begins), "{detail}");
    let way_out = format!(
        "the master {holder} has all of it, `aot-master masters move c1 {holder}` makes it readable"
    );
    assert!(detail.ends_with(&way_out), "{detail}");
    let last = output.one(|line| line["summary"].is_object());
    let incomplete = last["incomplete"].as_str().expect("the summary says so");
    assert_eq!(
        incomplete,
        format!("the output of n1 is not whole: {detail}")
    );
    assert!(output.stderr.contains(incomplete), "{}", output.stderr);
    text
}

#[test]
fn a_moved_cluster_says_what_lacks_of_its_outputs_and_who_has_the_rest() {
    let _turn = crate::turn();
    let fleet = match Fleet::start(2, &[2]) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("outputs of a fleet"),
    };
    let mut agents = fleet.agents(&["c1"], &fleet.addresses());
    agents.until_attached(LIMIT);
    let is_the_firsts = || fleet.owner(1, "c1") == Some(0);
    wait::until(is_the_firsts, LIMIT, "the cluster is the first master's");
    let ids = [fleet.id(0), fleet.id(1)];
    let lines = LINES.to_string();
    let exec = |ms| ["--json", "exec", "--detach", "n1", "--", PRINT, &lines, ms];
    let begin = |ms| {
        let begun = fleet.masters[0].run(&exec(ms));
        let begun = begun.expect(0).one(|line| line["job"].is_string());
        begun["job"].as_str().expect("an id").to_owned()
    };

    // One has ended with the first, one is half printed when the cluster is moved.
    let ended = begin("0");
    let followed = fleet.masters[0].run(&["--json", "jobs", "follow", &ended]);
    is_whole(&followed);
    let open = begin(LONG_MS);
    let half_is_there = || {
        // For people: in JSON there is nothing of a target that has not ended.
        let so_far = fleet.masters[0].run(&["jobs", "show", "--no-fold", &open]);
        so_far.text().len() > printed("n1", LINES).len() / 3
    };
    wait::until(half_is_there, LIMIT, "half of it has come to the first");
    moved(&fleet, &mut agents, 1);

    for door in [0, 1] {
        let none = shown(&fleet, door, &ended);
        let text = is_part(&none, "none of its ", &ids[0]);
        assert_eq!(text, "", "the second has nothing of it, whoever is asked");
    }
    let logs = fleet.masters[1].run(&["logs", &ended]);
    logs.expect(1);
    let says = format!("the master {} has all of it", ids[0]);
    assert!(logs.stderr.contains(&says), "{}", logs.shown());

    // What runs is the second's: all of it, also what the first had.
    agents.end_runs();
    let followed = fleet.masters[1].run(&["--json", "jobs", "follow", &open]);
    is_whole(&followed);

    // Back, by the way out that was named.
    moved(&fleet, &mut agents, 0);
    is_whole(&shown(&fleet, 1, &ended));
    // What a master has of an output that is under way goes when the cluster leaves it: the machine sends all of it again.
    let none = shown(&fleet, 0, &open);
    assert_eq!(is_part(&none, "none of its ", &ids[1]), "");
}
