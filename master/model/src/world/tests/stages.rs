//! Stages: behind the barrier, failed, and rebooting.

use super::*;

#[test]
fn no_stage_starts_before_every_instance_has_the_facts() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    while sim.machines.is_empty() {
        sim.perform(0);
    }
    let machines: Vec<Machine> = sim.machines.values().flatten().cloned().collect();
    let first = key(sim.world.clusters[&cluster()]
        .by_machine(&machines[0].id)
        .expect("taken")
        .name
        .as_str());
    sim.agent_comes(&first, &machines[0]);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert!(sim.started.is_empty() && sim.world.runs.is_empty());
    assert_eq!(sim.world.clusters[&cluster()].generation, 0);
}

#[test]
fn a_failed_stage_stops_that_instance_and_keeps_its_machine() {
    let mut sim = Sim::new();
    sim.exit.insert("a1".to_owned(), 3);
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready, Phase::Failed]));
    assert_eq!((sim.alive(), sim.ended.last().expect("ended").1), (2, 1));
    assert_eq!(sim.started.get(&(key("a1"), "two".to_owned())), None);
    sim.exit.clear();
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert_eq!(
        sim.started[&(key("a2"), "one".to_owned())],
        1,
        "what was well ran again"
    );
}

#[test]
fn exit_194_reboots_a_bounded_number_of_times() {
    let mut sim = Sim::new();
    sim.exit
        .insert("a1".to_owned(), aot_proto::limits::EXIT_REBOOT);
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    for boot in 0..20 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.agents_move();
        let at = key("a1");
        let state = sim
            .world
            .instance(&at)
            .map(|i| (i.stages[0].state, i.session));
        if let Some((StageState::Rebooting, Some(session))) = state {
            sim.agent(
                at.clone(),
                session,
                AgentInput::Closed {
                    why: "reboot".to_owned(),
                },
            );
            let hello = v1::Hello {
                boot_id: format!("boot-{boot}"),
                cluster_facts_generation: 1,
                ..v1::Hello::default()
            };
            sim.sessions += 1;
            let session = sim.sessions;
            sim.agents.get_mut(&at).expect("is there").session = Some(session);
            sim.agent(at, session, AgentInput::Attached(Box::new(hello)));
        }
    }
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert_eq!(instance.phase, Phase::Failed);
    assert_eq!(
        sim.started[&(key("a1"), "one".to_owned())],
        6,
        "the first run and five reboots"
    );
    assert!(instance.note.contains("reboots"), "{}", instance.note);
}
