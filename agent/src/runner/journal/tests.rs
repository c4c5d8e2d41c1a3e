//! The journal over restarts, and after others have removed its folders.

use std::io::Write;

use aot_proto::v1::start_run::What;
use aot_proto::v1::{ExecSpec, StartRun};

use super::*;

fn id(n: u128) -> RunId {
    RunId::from_parts(1_700_000_000_000 + n as u64, n)
}

fn start(id: RunId) -> StartRun {
    StartRun {
        run_id: id.to_string(),
        what: Some(What::Exec(ExecSpec {
            argv: vec!["true".into()],
            ..ExecSpec::default()
        })),
        ..StartRun::default()
    }
}

#[test]
fn a_run_is_found_again_and_forgotten_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, runs) = Journal::open(dir.path()).unwrap();
    assert!(runs.is_empty());
    let spec = Spec::from_wire(&start(id(1)), "boot").unwrap();
    let run_dir = journal.begin(&spec, b"in").unwrap();
    assert_eq!(fs::read(run_dir.join(STDIN)).unwrap(), b"in");
    fs::create_dir(dir.path().join("runs/run-half.new")).unwrap();
    let (_, runs) = Journal::open(dir.path()).unwrap();
    assert_eq!(runs, [id(1)]);
    assert!(journal.spec(id(1)).unwrap() == spec);
    assert!(!dir.path().join("runs/run-half.new").exists());
    journal.forget(id(1), Instant::now()).unwrap();
    journal.forget(id(2), Instant::now()).unwrap();
    assert!(journal.knows(id(1)) && !journal.knows(id(2)));
    let (journal, runs) = Journal::open(dir.path()).unwrap();
    assert!(
        runs.is_empty() && journal.knows(id(1)),
        "a tombstone is kept over a restart"
    );
}

#[test]
fn what_is_small_is_removed_a_while_after_it_was_forgotten_and_the_rest_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let left = || fs::read_dir(dir.path().join("runs")).unwrap().count();
    let t = Instant::now();
    let cases = [("", 0), ("", SMALL_BYTES), ("in", 0), ("", SMALL_BYTES + 1)];
    for (n, (stdin, bytes)) in (0..).zip(cases) {
        let spec = Spec::from_wire(&start(id(n)), "b").unwrap();
        let run_dir = journal.begin(&spec, stdin.as_bytes()).unwrap();
        let spool = File::create(run_dir.join(SPOOL)).unwrap();
        spool.set_len(bytes).unwrap();
        journal.forget(id(n), t).unwrap();
        assert!(!run_dir.exists() && journal.knows(id(n)));
    }
    assert_eq!(left(), 2);
    journal.sweep(t + GONE - Duration::from_millis(1));
    assert_eq!(left(), 2);
    journal.sweep(t + GONE);
    assert_eq!(left(), 0);
    let many = u128::try_from(MOST_GONE).unwrap();
    for n in 10..12 + many {
        let spec = Spec::from_wire(&start(id(n)), "b").unwrap();
        journal.begin(&spec, b"").unwrap();
        journal.forget(id(n), t).unwrap();
    }
    assert_eq!(left(), MOST_GONE, "there is an end to it");
    Journal::open(dir.path()).unwrap();
    assert_eq!(left(), 0, "nor does it outlive the agent for long");
}

#[test]
fn a_state_folder_that_is_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (mut journal, _) = Journal::open(&state).unwrap();
    journal
        .begin(&Spec::from_wire(&start(id(1)), "b").unwrap(), b"")
        .unwrap();
    journal.forget(id(1), Instant::now()).unwrap();
    remove_tree(&state).unwrap();
    let run_dir = journal
        .begin(&Spec::from_wire(&start(id(2)), "b").unwrap(), b"")
        .unwrap();
    assert!(run_dir.join(SPEC).exists());
    journal.forget(id(2), Instant::now()).unwrap();
    let (journal, _) = Journal::open(&state).unwrap();
    assert!(
        journal.knows(id(2)),
        "its tombstone is in a file with a name"
    );
}

#[test]
fn a_shim_adds_its_number_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let mut asked = start(id(1));
    asked.env = [("A".into(), "one\ntwo".into())].into();
    let spec = Spec::from_wire(&asked, "boot").unwrap();
    let run_dir = journal.begin(&spec, b"").unwrap();
    assert_eq!(pid_in(&run_dir), None);
    let mut lock = lock_if_free(&run_dir).unwrap().unwrap();
    lock.write_all(b"\n4711").unwrap();
    assert_eq!(pid_in(&run_dir), Some(4711));
    assert!(journal.spec(id(1)).unwrap() == spec);
    assert_eq!(pid_in(dir.path()), None, "no record at all");
}
