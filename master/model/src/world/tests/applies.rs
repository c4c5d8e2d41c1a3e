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

/// Of a file with another variable, for these; the stages are of this content.
fn apply_file(sim: &mut Sim, spec: &ClusterSpec, of: &[&str], content: &str) -> Answer {
    let names = of.iter().map(|name| name.parse().expect("a name"));
    rolling::apply(sim, spec, &[content], |ask| {
        ask.instances = names.clone().collect();
        ask.file = Some(Box::new(AppliedFile {
            spec: spec.clone(),
            path: "/other.yml".into(),
            secrets: Default::default(),
        }));
    })
}

/// The same file with this version.
fn versioned(spec: &ClusterSpec, version: u32) -> ClusterSpec {
    let mut spec = spec.clone();
    spec.vars.insert("version".to_owned(), version.into());
    spec
}

#[test]
fn a_file_is_taken_over_by_all_and_run_by_those_that_are_meant() {
    let spec = versioned(&spec(&[3], &["t"]), 1);
    let mut sim = rolling::begun(&spec, &["one"]);
    let next = versioned(&spec, 2);
    let answer = apply_file(&mut sim, &next, &["a1"], "two");
    assert!(matches!(answer, Answer::Started(_)), "{answer:?}");
    sim.run_until_quiet();
    assert_eq!((code(&sim), rolling::on(&sim, "two")), (0, vec!["a1"]));
    let known = &sim.world.clusters[&cluster()];
    assert_eq!(
        known.spec, next,
        "its templates and its plans see one thing"
    );
    assert_eq!(known.file.to_str(), Some("/other.yml"));
    // The others have what they had, and an apply without a file brings them there.
    rolling::apply(&mut sim, &next, &["two"], |_| ());
    sim.run_until_quiet();
    assert_eq!(rolling::on(&sim, "two"), ["a1", "a2", "a3"]);
    assert_eq!(started(&sim, "a1", "two"), 1);
    // Nothing else is another: the variables are, all the same.
    let answer = apply_file(&mut sim, &versioned(&spec, 3), &["a1"], "two");
    assert!(matches!(answer, Answer::UpToDate(_)), "{answer:?}");
    assert_eq!(sim.world.clusters[&cluster()].spec.vars["version"], 3);
}

#[test]
fn a_file_is_taken_over_at_its_own_pace() {
    let spec = versioned(&spec(&[3], &["t"]), 1);
    let mut sim = rolling::begun(&spec, &["one"]);
    let mut next = versioned(&rolling::paced(&[3]), 2);
    next.pools[0].machine = spec.pools[0].machine.clone();
    apply_file(&mut sim, &next, &["a1", "a2", "a3"], "two");
    assert_eq!(rolling::on(&sim, "one"), ["a2", "a3"], "all but the canary");
    sim.run_until_quiet();
    assert_eq!(rolling::on(&sim, "two"), ["a1", "a2", "a3"]);
}

#[test]
fn a_file_that_changes_more_than_stages_is_not_taken_over() {
    let spec = versioned(&spec(&[2], &["t"]), 1);
    let mut sim = rolling::begun(&spec, &["one"]);
    let mut next = versioned(&spec, 2);
    next.pools[0].members.truncate(1);
    let answer = apply_file(&mut sim, &next, &["a1"], "two");
    let Answer::Error(OpError::Conflict(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(text.contains("a2 would be left out"), "{text}");
    assert!(text.contains("aot-master launch FILE"), "{text}");
    assert_eq!(sim.world.clusters[&cluster()].spec, spec);
    assert_eq!(rolling::on(&sim, "one"), ["a1", "a2"]);
}

#[test]
fn who_is_under_way_takes_a_file_over_though_it_is_not_meant() {
    let spec = versioned(&spec(&[2], &["t"]), 1);
    let mut sim = rolling::begun(&spec, &["one"]);
    let session = sim.agents[&key("a1")].session.expect("it is there");
    sim.silent.insert("a1".to_owned());
    sim.agents.get_mut(&key("a1")).expect("known").session = None;
    let why = "cut".to_owned();
    sim.agent(key("a1"), session, AgentInput::Closed { why });
    rolling::apply(&mut sim, &spec, &["one"], |ask| {
        ask.instances = vec!["a1".parse().expect("a name")];
        ask.force = true;
    });
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1, "its stage waits for its agent");
    let next = versioned(&spec, 2);
    apply_file(&mut sim, &next, &["a2"], "two");
    assert_eq!(rolling::on(&sim, "two"), ["a1", "a2"]);
}
