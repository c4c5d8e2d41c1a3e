//! Requests that come twice, with the id that their job is to have: whoever lost the first answer begins nothing else.

use super::*;
use crate::world::tests::lifecycle::{by, fleet, names, pass};

fn id(number: u64) -> JobId {
    JobId::from_parts(number, 9)
}

fn with_id(mut input: Input, id: JobId) -> Input {
    match &mut input {
        Input::Launch(ask) => ask.request = Some(id),
        Input::Apply(ask) => ask.request = Some(id),
        Input::Exec(ask) => ask.request = Some(id),
        Input::Lifecycle(ask) => ask.by.request = Some(id),
        Input::DeleteOrphans(ask) => ask.by.request = Some(id),
        Input::Terminate { by, .. } | Input::Cleanup { by, .. } | Input::Update { by, .. } => {
            by.request = Some(id);
        }
        other => panic!("{other:?} begins no job"),
    }
    input
}

/// Each kind of request that begins a job, over a cluster of two.
fn requests() -> Vec<(&'static str, Input)> {
    let plans = || BTreeMap::new();
    let apply = ApplyAsk {
        cluster: cluster(),
        instances: names(&["a1"]),
        file: None,
        stages: plans(),
        from: None,
        force: true,
        failed: false,
        pace: Default::default(),
        what: "apply".to_owned(),
        operator: "test".to_owned(),
        request: None,
    };
    let exec = ExecAsk {
        cluster: cluster(),
        instances: names(&["a1", "a2"]),
        kind: JobKind::Exec,
        task: Task::Command(Exec::default()),
        pace: Pace::default(),
        queue_ms: 0,
        what: "exec".to_owned(),
        operator: "test".to_owned(),
        request: None,
    };
    let stop = LifecycleAsk {
        cluster: cluster(),
        instances: names(&["a1"]),
        kind: JobKind::Stop,
        timeout_ms: 60_000,
        by: by("stop"),
    };
    let orphans = DeleteOrphansAsk {
        cluster: cluster(),
        uuid: "5f0c".to_owned(),
        places: [("local".parse().expect("a name"), None)].into(),
        by: by("orphans"),
    };
    let update = Input::Update {
        cluster: cluster(),
        instances: names(&["a1"]),
        by: by("update"),
    };
    let terminate = Input::Terminate {
        cluster: cluster(),
        instances: names(&["a1"]),
        by: by("terminate"),
    };
    let cleanup = Input::Cleanup {
        cluster: cluster(),
        by: by("cleanup"),
    };
    vec![
        ("launch", ask(&spec(&[2], &[]), &[])),
        ("apply", Input::Apply(apply)),
        ("exec", Input::Exec(exec)),
        ("stop", Input::Lifecycle(stop)),
        ("orphans", Input::DeleteOrphans(orphans)),
        ("update", update),
        ("terminate", terminate),
        ("cleanup", cleanup),
    ]
}

#[test]
fn a_request_that_comes_twice_begins_one_job_with_the_id_that_it_says() {
    let again = requests();
    for (number, ((what, first), (_, second))) in requests().into_iter().zip(again).enumerate() {
        let (mut sim, id) = (fleet(2), id(number as u64));
        let begun = match sim.input(with_id(first, id)) {
            Answer::Started(job) | Answer::UpToDate(job) | Answer::Exec { job, .. } => job,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(begun, id, "{what}");
        let jobs = sim.world.jobs.len();
        let answer = sim.input(with_id(second, id));
        assert!(
            matches!(answer, Answer::Begun(job) if job == id),
            "{what}: {answer:?}"
        );
        assert_eq!(sim.world.jobs.len(), jobs, "{what}");
        assert!(sim.disk.jobs.contains_key(&id), "{what} is on record");
    }
}

#[test]
fn a_command_that_comes_twice_runs_once_also_over_a_crash_between_the_two() {
    let mut sim = fleet(2);
    let exec = || {
        let mut all = requests().into_iter();
        let found = all.find(|(what, _)| *what == "exec");
        with_id(found.expect("is there").1, id(1))
    };
    sim.input(exec());
    let runs: Vec<RunId> = sim.world.runs.keys().copied().collect();
    assert_eq!(runs.len(), 2);
    sim.crash();
    assert!(matches!(sim.input(exec()), Answer::Begun(_)));
    let after: Vec<RunId> = sim.world.runs.keys().copied().collect();
    assert_eq!(after, runs);
    pass(&mut sim, 1);
}

#[test]
fn the_end_of_a_launch_can_be_told_again_until_another_takes_its_place() {
    let mut sim = Sim::new();
    sim.input(with_id(ask(&spec(&[2], &[]), &[]), id(1)));
    assert!(sim.world.launch_end(&cluster(), id(1)).is_none(), "it runs");
    sim.run_until_quiet();
    let end = sim.world.launch_end(&cluster(), id(1)).expect("is over");
    assert_eq!(end.message, "2 instances are ready");
    let fields = end.into_wire(1).fields_json;
    assert!(fields.contains(r#""summary":{"ready":2}"#), "{fields}");
    sim.input(with_id(ask(&spec(&[3], &[]), &[]), id(2)));
    assert!(sim.world.launch_end(&cluster(), id(1)).is_none());
}
