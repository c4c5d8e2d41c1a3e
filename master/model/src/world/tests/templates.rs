//! Stages with templates: run again when their files become others, and only then.

use serde_json::{Value, json};

use super::*;

/// A launch with these variables; a stage with a colon in its name has templates, see `sim/agents.rs`.
fn launch(size: usize, stages: &[&str], vars: &Value) -> Input {
    let mut spec = spec(&[size], &[]);
    spec.vars = vars.as_object().expect("an object").clone();
    let Input::Launch(mut ask) = ask(&spec, stages) else {
        panic!("a launch")
    };
    for plan in ask.stages.values_mut().flatten() {
        plan.templates = plan.name.contains(':');
    }
    Input::Launch(ask)
}

/// How many times each of these stages was run on an instance.
fn runs(sim: &Sim, name: &str, stages: &[&str]) -> Vec<u32> {
    let of = |stage: &&str| sim.started.get(&(key(name), (*stage).to_owned()));
    stages
        .iter()
        .map(|stage| of(stage).copied().unwrap_or(0))
        .collect()
}

fn ready(sim: &mut Sim, input: Input) {
    sim.input(input);
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), last_code(sim)),
        (BTreeSet::from([Phase::Ready]), 0)
    );
}

#[test]
fn a_variable_that_changes_a_file_runs_its_stage_and_all_after_it() {
    let stages = ["plain", "vars:port", "vars:motto", "last"];
    let vars = json!({"port": 1, "motto": "a"});
    let mut sim = Sim::new();
    ready(&mut sim, launch(2, &stages, &vars));
    let answer = sim.input(launch(2, &stages, &vars));
    assert!(matches!(answer, Answer::UpToDate(_)), "{answer:?}");
    sim.run_until_quiet();
    ready(
        &mut sim,
        launch(2, &stages, &json!({"port": 1, "motto": "b"})),
    );
    assert_eq!(runs(&sim, "a1", &stages), [1, 1, 2, 2]);
    ready(
        &mut sim,
        launch(2, &stages, &json!({"port": 2, "motto": "b"})),
    );
    assert_eq!(runs(&sim, "a2", &stages), [1, 2, 3, 3]);
}

#[test]
fn what_is_rendered_again_is_known_before_and_whether_it_runs_is_not() {
    let stages = ["vars:port", "plain", "facts:", "vars:motto"];
    let vars = json!({"port": 1, "motto": "a"});
    let mut sim = Sim::new();
    ready(&mut sim, launch(2, &stages, &vars));
    let again = |sim: &Sim, vars: &Value, moves| {
        let vars = vars.as_object().expect("an object");
        let all = sim.world.rendered_again(&cluster(), vars, moves);
        let names = all.into_iter().map(|(name, due)| (name.to_string(), due));
        names.collect::<Vec<_>>()
    };
    assert_eq!(again(&sim, &vars, false), []);
    let both = |due: &[usize]| {
        vec![
            ("a1".to_owned(), due.to_vec()),
            ("a2".to_owned(), due.to_vec()),
        ]
    };
    assert_eq!(again(&sim, &vars, true), both(&[0, 2, 3]), "machines come");
    let other = json!({"port": 1, "motto": "b"});
    assert_eq!(again(&sim, &other, false), both(&[0, 2, 3]));
    ready(&mut sim, launch(2, &stages, &other));
    assert_eq!(runs(&sim, "a1", &stages), [1, 1, 1, 2]);
    assert_eq!(again(&sim, &other, false), []);
}

#[test]
fn a_variable_that_changes_no_file_runs_nothing_and_leaves_the_record_as_it_is() {
    let stages = ["vars:port", "last"];
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &stages, &json!({"port": 1})));
    let before = instance(&sim, "a1").stages.clone();
    let other = json!({"port": 1, "unused": true});
    ready(&mut sim, launch(1, &stages, &other));
    assert_eq!(runs(&sim, "a1", &stages), [1, 1]);
    let skipped = sim.told.iter().filter(|(kind, _)| kind == "stage-skipped");
    assert_eq!(skipped.count(), 1);
    let after = &instance(&sim, "a1").stages;
    assert_eq!(
        (after[0].run, after[0].attempt),
        (before[0].run, before[0].attempt)
    );
    assert_eq!(after[0].ended_ms, before[0].ended_ms);
    assert_eq!(after[1], before[1]);
    let answer = sim.input(launch(1, &stages, &other));
    assert!(
        matches!(answer, Answer::UpToDate(_)),
        "it was found out once: {answer:?}"
    );
}

#[test]
fn an_instance_that_joins_runs_what_names_it_and_nothing_else() {
    let stages = ["vars:port", "facts:", "last"];
    let vars = json!({"port": 1});
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &stages, &vars));
    ready(&mut sim, launch(2, &stages, &vars));
    assert_eq!(runs(&sim, "a1", &stages), [1, 2, 2]);
    assert_eq!(runs(&sim, "a2", &stages), [1, 1, 1]);
    let answer = sim.input(launch(2, &stages, &vars));
    assert!(matches!(answer, Answer::UpToDate(_)), "{answer:?}");
}

#[test]
fn a_check_that_became_a_run_and_failed_is_no_check_any_more() {
    let stages = ["vars:port", "last"];
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &stages, &json!({"port": 1})));
    sim.exit.insert("a1".to_owned(), 3);
    sim.input(launch(1, &stages, &json!({"port": 2})));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    sim.exit.clear();
    // Back to what it had been when it succeeded: it has run with another since.
    ready(&mut sim, launch(1, &stages, &json!({"port": 1})));
    assert_eq!(runs(&sim, "a1", &stages), [3, 2]);
}

#[test]
fn a_check_that_a_crash_cuts_is_made_again() {
    let stages = ["vars:port", "last"];
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &stages, &json!({"port": 1})));
    sim.input(launch(1, &stages, &json!({"port": 1, "more": 1})));
    sim.crash();
    sim.input(Input::Tick);
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert_eq!(runs(&sim, "a1", &stages), [1, 1]);
}
