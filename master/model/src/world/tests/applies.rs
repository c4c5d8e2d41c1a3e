//! Applies: which instances they run stages on, and by which they are judged.

use super::*;
use crate::world::tests::needs::{ALL, Again, apply, chain, code, error, launch, plans, started};

#[test]
fn an_apply_of_what_failed_takes_those_who_wait_for_it_and_no_others() {
    let (mut sim, spec, plans) = chain();
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    let failed = Again {
        failed: true,
        ..ALL
    };
    assert!(matches!(apply(&mut sim, &plans, &failed), Answer::Ack));
    let forced = Again {
        failed: true,
        force: true,
        ..ALL
    };
    assert!(
        matches!(apply(&mut sim, &plans, &forced), Answer::Ack),
        "none failed, however it is asked"
    );
    let mut sim = Sim::new();
    sim.exit.insert("b1".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    sim.exit.clear();
    let elsewhere = Again {
        of: &["a1", "b2"],
        ..failed
    };
    assert!(
        matches!(apply(&mut sim, &plans, &elsewhere), Answer::Ack),
        "they are well"
    );
    let Answer::Started(job) = apply(&mut sim, &plans, &forced) else {
        panic!("nothing was started");
    };
    sim.run_until_quiet();
    let targets: Vec<&str> = sim.world.jobs[&job]
        .targets
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(targets, ["b1", "c1"]);
    assert_eq!(code(&sim), 0);
    assert_eq!(
        (
            started(&sim, "a1", "a0"),
            started(&sim, "b1", "b0"),
            started(&sim, "b2", "b0")
        ),
        (1, 2, 1)
    );
    assert!(matches!(apply(&mut sim, &plans, &failed), Answer::Ack));
}

#[test]
fn an_apply_is_judged_by_its_own_targets() {
    let spec = spec(&[1, 1], &["t"]);
    let plans = plans(&spec, &[&[&[], &[]], &[&[], &[]]]);
    let mut sim = Sim::new();
    sim.exit.insert("a1".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1);
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["b1"],
            from: Some(1),
            ..ALL
        },
    );
    sim.run_until_quiet();
    assert_eq!((code(&sim), error(&sim)), (0, ""));
    assert_eq!(
        (started(&sim, "b1", "b0"), started(&sim, "b1", "b1")),
        (1, 2)
    );
    assert_eq!(started(&sim, "a1", "a0"), 1, "it was not asked for");
    let answer = apply(&mut sim, &plans, &Again { of: &["b1"], ..ALL });
    assert!(matches!(answer, Answer::UpToDate(_)), "{answer:?}");
    sim.run_until_quiet();
    assert_eq!(code(&sim), 0);
    // A launch is not the same as an apply that runs.
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["b1"],
            force: true,
            ..ALL
        },
    );
    let first = sim.world.clusters[&cluster()]
        .launch
        .as_ref()
        .expect("it runs")
        .job;
    let answer = sim.input(launch(&spec, &plans));
    assert!(
        matches!(answer, Answer::Started(job) if job != first),
        "{answer:?}"
    );
}

#[test]
fn a_stage_to_begin_with_must_be_there() {
    let spec = spec(&[1, 2], &["t"]);
    let plans = plans(&spec, &[&[&[]], &[&[], &[], &[]]]);
    let mut sim = Sim::new();
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    let table: [(&[&str], usize, &str); 4] = [
        (&["a1"], 1, "a1 has no stage 1 (it has only stage 0)"),
        (&["a1", "b1"], 2, "a1 has no stage 2 (it has only stage 0)"),
        (&["b1"], 3, "b1 has no stage 3 (its stages are 0 to 2)"),
        (
            &["a1", "b1", "b2"],
            9,
            "a1 has no stage 9 (it has only stage 0), nor have 2 others",
        ),
    ];
    for (of, from, text) in table {
        let answer = apply(
            &mut sim,
            &plans,
            &Again {
                of,
                from: Some(from),
                ..ALL
            },
        );
        assert!(
            matches!(&answer, Answer::Error(OpError::Invalid(error)) if error == text),
            "{answer:?}"
        );
    }
    assert_eq!(sim.ended.len(), 1, "nothing was begun");
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["b1"],
            from: Some(2),
            force: true,
            ..ALL
        },
    );
    sim.run_until_quiet();
    assert_eq!(
        (started(&sim, "b1", "b1"), started(&sim, "b1", "b2")),
        (1, 2)
    );
}

#[test]
fn an_apply_gives_up_on_an_agent_that_stays_away() {
    let spec = spec(&[1], &["t"]);
    let plans = plans(&spec, &[&[&[]]]);
    let mut sim = Sim::new();
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    let session = sim.agents[&key("a1")].session.expect("it is there");
    sim.silent.insert("a1".to_owned());
    sim.agents.get_mut(&key("a1")).expect("known").session = None;
    let why = "cut".to_owned();
    sim.agent(key("a1"), session, AgentInput::Closed { why });
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["a1"],
            force: true,
            ..ALL
        },
    );
    sim.run_until_quiet();
    assert_eq!(
        error(&sim),
        "0 of 1 instance ready; a1 is configured and its agent is away"
    );
}
