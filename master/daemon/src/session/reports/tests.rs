use std::sync::Arc;
use std::time::Duration;

use aot_store::spool::{Arrived, Progress};
use futures::stream::FuturesOrdered;
use prost::bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::output::StoredPiece;
use super::*;
use crate::session::Closed;
use crate::session::fake::{Brought, EPOCH, FakeMaster, id, key, spool};
use crate::session::registry::Registered;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(120);

struct Rig {
    master: Arc<FakeMaster>,
    reports: mpsc::Sender<Box<SessionReport>>,
    sent: mpsc::Receiver<SessionCommand>,
    end: SessionEnd,
    tasks: TaskTracker,
}

fn reports(master: &Arc<FakeMaster>) -> (Reports<Arc<FakeMaster>>, Registered) {
    let registered = master.registry().register(&key());
    let origin = Origin::new([10, 0, 0, 1].into(), "serial 0".to_owned(), None);
    let (session, end) = (registered.session, registered.end.clone());
    let reports = Reports::new(master.clone(), key(), id(), session, end, origin);
    (reports, registered)
}

impl Rig {
    /// Reports that are being carried.
    fn new() -> Self {
        let master = FakeMaster::new();
        let (carried, registered) = reports(&master);
        let (reports, inbox) = mpsc::channel(16);
        let tasks = TaskTracker::new();
        tasks.spawn(Box::new(carried).run(inbox));
        Self {
            master,
            reports,
            sent: registered.commands,
            end: registered.end,
            tasks,
        }
    }

    async fn report(&self, report: SessionReport) {
        self.reports.send(Box::new(report)).await.expect("it reads");
    }

    async fn piece(&self, run: RunId, offset: usize, data: Bytes, end: bool) {
        let data = v1::SpoolData {
            run_id: run.to_string(),
            offset: offset as u64,
            data,
            end,
        };
        self.report(SessionReport::Spool { run, data }).await;
    }

    /// What is sent to the agent next.
    async fn sent(&mut self) -> master_message::Body {
        let next = tokio::time::timeout(LIMIT, self.sent.recv()).await;
        match next.expect("in time").expect("a command") {
            SessionCommand::Send(body) => *body,
            other => panic!("{other:?}"),
        }
    }

    async fn ack(&mut self) -> (String, u64, bool) {
        match self.sent().await {
            master_message::Body::SpoolAck(ack) => (ack.run_id, ack.bytes, ack.resend),
            other => panic!("{other:?}"),
        }
    }

    /// All that the loop was brought, once nothing more is reported.
    async fn brought(self) -> (Vec<Brought>, Vec<master_message::Body>) {
        let Self {
            master,
            reports,
            mut sent,
            tasks,
            ..
        } = self;
        drop(reports);
        tasks.close();
        tokio::time::timeout(LIMIT, tasks.wait())
            .await
            .expect("ends");
        let mut rest = Vec::new();
        while let Ok(command) = sent.try_recv() {
            match command {
                SessionCommand::Send(body) => rest.push(*body),
                other => panic!("{other:?}"),
            }
        }
        (master.brought(), rest)
    }
}

fn agents(input: &Input) -> &AgentInput {
    match input {
        Input::Agent { at, report, .. } => {
            assert_eq!(*at, key());
            report
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hello_is_welcomed_with_what_is_here_and_ended_runs_are_forgotten() {
    let mut rig = Rig::new();
    let (open, ended) = (
        rig.master.add_run(1, u64::MAX, false),
        RunId::from_parts(9, 9),
    );
    let part = spool(&[b"one"], None);
    rig.piece(open, 0, part.clone(), false).await;
    rig.ack().await;
    let runs = [open, ended, ended].map(|run| v1::RunState {
        run_id: run.to_string(),
        ..v1::RunState::default()
    });
    let hello = v1::Hello {
        runs: runs.into(),
        ..v1::Hello::default()
    };
    let (hello, protocol) = (Box::new(hello), 7);
    rig.report(SessionReport::Hello { hello, protocol }).await;
    let master_message::Body::Welcome(welcome) = rig.sent().await else {
        panic!("not welcomed")
    };
    let acks: Vec<_> = welcome.acks.iter().map(|a| (&*a.run_id, a.bytes)).collect();
    assert_eq!(acks, [(&*open.to_string(), part.len() as u64)]);
    assert_eq!((&*welcome.main_user, &*welcome.hostname), ("admin", "web1"));
    assert_eq!(welcome.protocol, protocol);
    assert_eq!(welcome.masters, rig.master.addresses());
    assert_eq!(welcome.epoch, EPOCH);
    let spread = welcome.reconnect_spread_ms;
    assert_eq!(spread, 2_000, "over all that may come, not those here");
    let forgotten = master_message::Body::ForgetRun(v1::ForgetRun {
        run_id: ended.to_string(),
    });
    assert_eq!(rig.sent().await, forgotten);
    let (brought, rest) = rig.brought().await;
    assert!(rest.is_empty(), "each run is forgotten once: {rest:?}");
    let [Brought::Decided(first), Brought::Submitted(then)] = &brought[..] else {
        panic!("attached first, and waited for: {brought:?}")
    };
    assert!(matches!(agents(first), AgentInput::Attached(_)));
    assert!(matches!(agents(then), AgentInput::HeldBy(_)));
}

/// Its end may have been decided on, and is not on record when the master ends before it is.
#[tokio::test]
async fn nothing_is_forgotten_whose_end_may_not_be_on_record() {
    let mut rig = Rig::new();
    rig.master.set_stopping();
    let ended = RunId::from_parts(9, 9);
    let hello = v1::Hello {
        runs: vec![v1::RunState {
            run_id: ended.to_string(),
            ..v1::RunState::default()
        }],
        ..v1::Hello::default()
    };
    let (hello, protocol) = (Box::new(hello), 7);
    rig.report(SessionReport::Hello { hello, protocol }).await;
    let welcome = rig.sent().await;
    assert!(matches!(welcome, master_message::Body::Welcome(_)));
    let (brought, rest) = rig.brought().await;
    assert!(rest.is_empty(), "nothing is forgotten: {rest:?}");
    assert_eq!(brought.len(), 2, "attached and held: {brought:?}");
}

#[tokio::test]
async fn a_piece_of_output_is_acknowledged_once_it_is_in_its_file() {
    let mut rig = Rig::new();
    let run = rig.master.add_run(1, u64::MAX, false);
    let bytes = spool(&[b"one", b"two"], None);
    rig.piece(run, 0, bytes.slice(..5), false).await;
    assert_eq!(rig.ack().await, (run.to_string(), 5, false));
    let file = rig.master.dir.path().join(run.to_string());
    assert_eq!(std::fs::read(file).expect("reads"), bytes.slice(..5));
    rig.piece(run, 5, bytes.slice(5..), false).await;
    assert_eq!(
        rig.ack().await,
        (run.to_string(), bytes.len() as u64, false)
    );
}

#[tokio::test]
async fn acks_that_are_ready_together_are_one_of_each_run() {
    let master = FakeMaster::new();
    let (mut carried, mut registered) = reports(&master);
    let [one, two] = [1, 2].map(|number| master.add_run(number, u64::MAX, false));
    let piece = |run, bytes| -> StoredPiece {
        let progress = Progress {
            bytes,
            ended: false,
        };
        (run, 10, Ok(Arrived::Part(progress)))
    };
    let ready = [piece(one, 20), piece(one, 30), piece(two, 7), piece(two, 9)];
    let mut pieces: FuturesOrdered<_> = ready.into_iter().map(std::future::ready).collect();
    let bytes = carried.stored(&mut pieces, piece(one, 10)).await;
    assert_eq!(bytes, 50, "all of them make room for more");
    let mut acks = Vec::new();
    while let Ok(SessionCommand::Send(body)) = registered.commands.try_recv() {
        match *body {
            master_message::Body::SpoolAck(ack) => acks.push((ack.run_id, ack.bytes)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acks, [(one.to_string(), 30), (two.to_string(), 9)]);
}

#[tokio::test]
async fn a_run_of_someone_else_is_forgotten_and_nothing_of_it_is_stored() {
    let mut rig = Rig::new();
    let run = RunId::from_parts(5, 5);
    rig.piece(run, 0, spool(&[b"x"], Some(0)), true).await;
    let forget = v1::ForgetRun {
        run_id: run.to_string(),
    };
    assert_eq!(rig.sent().await, master_message::Body::ForgetRun(forget));
    let progress = v1::CopyProgress::default();
    rig.report(SessionReport::Copied { run, progress }).await;
    let master = rig.master.clone();
    let (brought, rest) = rig.brought().await;
    assert!(
        brought.is_empty() && rest.is_empty(),
        "{brought:?} {rest:?}"
    );
    assert_eq!(master.spools().have(run), 0);
    assert!(master.copied().is_empty());
}

#[tokio::test]
async fn without_room_output_is_left_with_its_agent_and_requested_again() {
    let mut rig = Rig::new();
    let run = rig.master.add_run(1, u64::MAX, false);
    let bytes = spool(&[&[b'x'; 6000]], None);
    rig.piece(run, 0, bytes.slice(..10), false).await;
    rig.ack().await;
    rig.master.set_full(true);
    rig.piece(run, 10, bytes.slice(10..20), false).await;
    rig.report(SessionReport::Renew(Vec::new())).await;
    let answered = rig.sent().await; // what came before that has been read then
    assert!(matches!(answered, master_message::Body::Renew(_)));
    rig.master.set_full(false);
    // Sent ahead of what was refused: it would leave a gap.
    rig.piece(run, 20, bytes.slice(20..30), false).await;
    assert_eq!(rig.ack().await, (run.to_string(), 10, true));
    rig.piece(run, 10, bytes.slice(10..), false).await;
    assert_eq!(
        rig.ack().await,
        (run.to_string(), bytes.len() as u64, false)
    );
}

#[tokio::test]
async fn without_room_the_end_of_a_run_with_little_output_is_stored_all_the_same() {
    let rig = Rig::new();
    rig.master.set_full(true);
    let [short, long] = [1, 2].map(|number| rig.master.add_run(number, u64::MAX, false));
    let bytes = spool(&[b"x"], Some(3));
    rig.piece(short, 0, bytes.clone(), true).await;
    rig.piece(long, 0, spool(&[&[b'x'; 6000]], Some(3)), true)
        .await;
    let (brought, rest) = rig.brought().await;
    let [Brought::Ended(run, ended, Some(stored))] = &brought[..] else {
        panic!("{brought:?}")
    };
    assert_eq!((*run, ended.exit_code, stored), (short, 3, &bytes));
    assert!(rest.is_empty(), "the end itself is the answer: {rest:?}");
}

#[tokio::test]
async fn a_run_that_sends_more_than_its_cap_is_ended_from_here() {
    let rig = Rig::new();
    let run = rig.master.add_run(1, 1000, false);
    let bytes = spool(&[&[b'x'; 50_000][..]; 8], None);
    for at in (0..bytes.len()).step_by(50_000) {
        let data = bytes.slice(at..bytes.len().min(at + 50_000));
        rig.piece(run, at, data, false).await;
    }
    let (brought, _) = rig.brought().await;
    let [Brought::Decided(input)] = &brought[..] else {
        panic!("once: {brought:?}")
    };
    let AgentInput::RunEnded { run: of, ended } = agents(input) else {
        panic!("{input:?}")
    };
    assert_eq!(*of, run);
    assert_eq!(ended.kind(), v1::EndKind::Interrupted);
    assert!(ended.detail.contains("cap of 1000 bytes"), "{ended:?}");
}

#[tokio::test]
async fn the_end_of_a_long_output_comes_after_its_last_ack_and_is_read_from_its_file() {
    let mut rig = Rig::new();
    let run = rig.master.add_run(1, u64::MAX, false);
    let bytes = spool(&[b"one"], Some(7));
    rig.piece(run, 0, bytes.slice(..5), false).await;
    rig.ack().await;
    rig.piece(run, 5, bytes.slice(5..), true).await;
    assert_eq!(
        rig.ack().await,
        (run.to_string(), bytes.len() as u64, false)
    );
    let (brought, _) = rig.brought().await;
    let [Brought::Ended(of, ended, None)] = &brought[..] else {
        panic!("{brought:?}")
    };
    assert_eq!((*of, ended.exit_code), (run, 7));
}

#[tokio::test]
async fn of_several_masters_one_stores_a_short_output_that_came_in_pieces_and_leaves_a_long_one() {
    let rig = Rig::new();
    rig.master.shares_outputs();
    let (long, short) = (
        rig.master.add_run(1, u64::MAX, false),
        rig.master.add_run(2, u64::MAX, false),
    );
    let much = vec![b'x'; 40_000];
    rig.piece(long, 0, spool(&[&much, &much], Some(0)), true)
        .await;
    let few = spool(&[b"x"], Some(3));
    rig.piece(short, 0, few.slice(..5), false).await;
    rig.piece(short, 5, few.slice(5..), true).await;
    let (brought, _) = rig.brought().await;
    let [
        Brought::Ended(first, _, None),
        Brought::Ended(second, _, Some(stored)),
    ] = &brought[..]
    else {
        panic!("{brought:?}")
    };
    assert_eq!((*first, *second, stored), (long, short, &few));
}

#[tokio::test]
async fn where_outputs_are_put_the_end_of_a_long_one_waits_for_that_and_others_do_not() {
    let mut rig = Rig::new();
    rig.master.puts_outputs();
    let long = rig.master.add_run(1, u64::MAX, true);
    let short = rig.master.add_run(2, u64::MAX, false);
    let archive = rig.master.add_archive(3);
    let much = vec![b'x'; 50_000];
    let bytes = spool(&[&much, b"\nE: no\n", &much[..40_000]], Some(7));
    for run in [long, archive] {
        rig.piece(run, 0, bytes.slice(..60_000), false).await;
        rig.ack().await;
        rig.piece(run, 60_000, bytes.slice(60_000..), true).await;
        rig.ack().await;
    }
    let few = spool(&[b"x"], Some(3));
    rig.piece(short, 0, few.slice(..5), false).await;
    rig.ack().await;
    rig.piece(short, 5, few.slice(5..), true).await;
    rig.ack().await;
    let (brought, _) = rig.brought().await;
    let [
        Brought::Submitted(printed),
        Brought::OncePut(first, ended),
        Brought::Ended(second, _, None),
        Brought::Ended(third, _, Some(stored)),
    ] = &brought[..]
    else {
        panic!("{brought:?}")
    };
    assert!(matches!(agents(printed), AgentInput::Printed { .. }));
    assert_eq!((*first, ended.exit_code), (long, 7));
    assert_eq!((*second, *third, stored), (archive, short, &few));
}

#[tokio::test]
async fn an_output_without_an_end_record_was_interrupted() {
    let rig = Rig::new();
    let run = rig.master.add_run(1, u64::MAX, false);
    rig.piece(run, 0, spool(&[b"torn"], None), true).await;
    let (brought, _) = rig.brought().await;
    let [Brought::Ended(_, ended, Some(_))] = &brought[..] else {
        panic!("{brought:?}")
    };
    assert_eq!(ended.kind(), v1::EndKind::Interrupted);
}

#[tokio::test]
async fn what_a_failed_stage_printed_last_comes_before_its_end_and_of_nothing_else() {
    for (is_stage, exit_code, is_printed) in [(true, 1, true), (true, 0, false), (false, 1, false)]
    {
        let rig = Rig::new();
        let run = rig.master.add_run(1, u64::MAX, is_stage);
        rig.piece(run, 0, spool(&[b"E: no\n"], Some(exit_code)), true)
            .await;
        let (brought, _) = rig.brought().await;
        assert!(matches!(brought.last(), Some(Brought::Ended(..))));
        match &brought[..] {
            [Brought::Submitted(input), _] if is_printed => {
                let AgentInput::Printed { lines, .. } = agents(input) else {
                    panic!("{input:?}")
                };
                assert_eq!(lines.stderr, ["E: no"]);
            }
            [_] if !is_printed => {}
            other => panic!("{is_stage} {exit_code}: {other:?}"),
        }
    }
}

fn facts(node_json: &str) -> SessionReport {
    SessionReport::Facts(Box::new(v1::FactsReport {
        node_json: node_json.to_owned(),
        ..v1::FactsReport::default()
    }))
}

#[tokio::test(start_paused = true)]
async fn facts_that_are_too_large_or_no_object_go_no_further() {
    let rig = Rig::new();
    rig.report(SessionReport::FactsTooLarge).await;
    rig.report(facts("[1]")).await;
    tokio::time::sleep(LIMIT).await;
    rig.report(facts("{")).await;
    tokio::time::sleep(LIMIT).await;
    rig.report(facts(r#"{"cpus": 2}"#)).await;
    let (brought, _) = rig.brought().await;
    let [Brought::Decided(input)] = &brought[..] else {
        panic!("{brought:?}")
    };
    let AgentInput::Facts(facts) = agents(input) else {
        panic!("{input:?}")
    };
    assert_eq!(facts.node.value()["cpus"], 2);
}

#[tokio::test(start_paused = true)]
async fn of_a_storm_of_facts_the_first_and_the_last_are_decided_on() {
    let rig = Rig::new();
    for number in 0..100 {
        rig.report(facts(&format!(r#"{{"n": {number}}}"#))).await;
    }
    tokio::time::sleep(LIMIT).await;
    let (brought, _) = rig.brought().await;
    let numbers: Vec<_> = brought
        .iter()
        .map(|brought| match brought {
            Brought::Decided(input) => match agents(input) {
                AgentInput::Facts(facts) => facts.node.value()["n"].clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [0, 99]);
}

#[tokio::test]
async fn a_renewal_is_answered_and_the_next_one_asks_with_the_new_serial() {
    let mut rig = Rig::new();
    for (csr, error, pem) in [
        (&b"good"[..], "", "PEM"),
        (b"bad", "not a request", ""),
        (b"good", "", "PEM"),
    ] {
        rig.report(SessionReport::Renew(csr.to_vec())).await;
        let master_message::Body::Renew(reply) = rig.sent().await else {
            panic!("no reply")
        };
        assert_eq!((&*reply.error, &*reply.certificate_pem), (error, pem));
    }
    let asked_with = rig.master.asked_with();
    assert_eq!(asked_with, ["serial 0", "serial 1", "serial 1"]);
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_reports_whatever_waits() {
    let rig = Rig::new();
    rig.end.fire(Closed::Revoked);
    rig.tasks.close();
    let ended = tokio::time::timeout(LIMIT, rig.tasks.wait()).await;
    ended.expect("though its owner could still bring more");
}
