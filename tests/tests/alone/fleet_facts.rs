//! Cluster facts over two masters on one database, and simulated agents that put them together as real ones do. An owner is killed
//! when half of its agents have a new generation: the next one completes it, by what is on record.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_tests::fleet::Fleet;
use aot_tests::fleet::agents::{AgentsState, SimulatedAgents};
use aot_tests::wait;

/// Longest time for one step, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Agents of the cluster whose owner dies, and of the one beside it.
const COUNT: usize = 40;
const BESIDE: usize = 6;

/// The one generation that all agents of a cluster have; `None` while they don't.
fn one(state: &AgentsState, cluster: &str, count: usize) -> Option<String> {
    let has = state.facts.get(cluster)?;
    let (which, by) = has.first_key_value()?;
    (has.len() == 1 && *by == count).then(|| which.clone())
}

/// Waits until all have this generation of the first cluster's facts; which content that is, and how it came since the mark, as a
/// whole and as a change.
fn all_have(agents: &mut SimulatedAgents, generation: u64) -> (String, (u64, u64)) {
    let begins = format!("{generation} ");
    let have = |state: &AgentsState| {
        one(state, "c1", COUNT).is_some_and(|which| which.starts_with(&begins))
    };
    let what = format!("all have generation {generation}");
    let state = agents.until(have, LIMIT, &what);
    let which = one(&state, "c1", COUNT).expect("seen a moment ago");
    let since = state.since_mark;
    (which, (since.wholes, since.changes))
}

#[test]
fn a_generation_whose_owner_dies_is_completed_by_the_next_one() {
    let _turn = crate::turn();
    let mut fleet = match Fleet::start(2, &[COUNT, BESIDE]) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("cluster facts of a fleet"),
    };
    let mut agents = fleet.agents_with_facts(&fleet.clusters(), &fleet.addresses());
    agents.until_attached(LIMIT);
    let (first, _) = all_have(&mut agents, 1);
    let beside = |state: &AgentsState| one(state, "c2", BESIDE);
    let state = agents.until(|it| beside(it).is_some(), LIMIT, "so have the others");
    let of_the_others = beside(&state);

    // A machine has news. Half of the cluster's agents have not answered when its owner dies.
    let half = COUNT as u64 / 2;
    agents.mark();
    agents.leave_facts(true);
    agents.news(0);
    let halves = |state: &AgentsState| {
        let has: BTreeMap<_, _> = state.facts.get("c1").cloned().unwrap_or_default();
        let by = |which: &String| if *which == first { 1 } else { 2 };
        let has: Vec<(u8, usize)> = has
            .iter()
            .map(|(which, count)| (by(which), *count))
            .collect();
        has == [(1, COUNT / 2), (2, COUNT / 2)]
    };
    let is_sent = |it: &AgentsState| halves(it) && it.since_mark.changes == 2 * half;
    let state = agents.until(is_sent, LIMIT, "half of them have the next generation");
    assert_eq!(state.since_mark.wholes, 0, "only what is new was sent");
    let has = state.facts["c1"].keys().find(|which| **which != first);
    let second = has.expect("there are two").clone();
    let recorded = "SELECT count(*) FROM instances WHERE cluster = 'c1' AND record::json->>'applied_generation' = '2'";
    let on_record = || fleet.server().ask(fleet.database(), recorded) == half.to_string();
    wait::until(on_record, LIMIT, "their answers are on record");

    assert_eq!(fleet.owner(1, "c1"), Some(0));
    agents.mark();
    fleet.masters[0].kill();
    agents.leave_facts(false);
    let (completed, came) = all_have(&mut agents, 2);
    assert_eq!(completed, second, "the same content, by another master");
    // It has no former generation to compare with: those who lack this one get the whole, and nobody else gets anything.
    assert_eq!(came, (half, 0), "sent as a whole, and as a change");
    assert_eq!(fleet.owner(1, "c1"), Some(1));
    let state = agents.until_attached(LIMIT);
    assert_eq!(
        beside(&state),
        of_the_others,
        "the other cluster's are as they were"
    );

    // The next generation of the next owner costs all what is new in it.
    agents.mark();
    agents.news(1);
    let (third, came) = all_have(&mut agents, 3);
    assert_ne!(third, second);
    assert_eq!(came, (0, COUNT as u64), "sent as a whole, and as a change");
}
