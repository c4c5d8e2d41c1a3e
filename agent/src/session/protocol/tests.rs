//! The decisions of a session, one by one.

use aot_proto::limits::{MAX_RECONNECT_SPREAD, MIN_RECONNECT_SPREAD, OLDEST_PROTOCOL, PROTOCOL};
use aot_proto::v1::{CancelRun, ClusterFactsPiece, ForgetRun, MasterGoingAway, Reboot, RenewReply};
use aot_proto::v1::{ClusterFactsApplied, MasterMessage, SpoolAck, StartRun, VolumesMounted};

use super::node_facts::FACTS_EVERY;
use super::*;

const S: Duration = Duration::from_secs(1);
const FAR: Duration = Duration::from_secs(1_000_000);

fn id(n: u128) -> RunId {
    RunId::from_parts(1, n)
}

fn state(n: u128, spool_bytes: u64, ended: bool) -> RunState {
    RunState {
        run_id: id(n).to_string(),
        spool_bytes,
        ended,
    }
}

fn receive(protocol: &mut Protocol, body: Down, now: Instant) -> Vec<SessionOutput> {
    protocol.step(
        SessionInput::Master(MasterMessage { body: Some(body) }),
        now,
    )
}

fn ack(n: u128, bytes: u64) -> SpoolAck {
    SpoolAck {
        run_id: id(n).to_string(),
        bytes,
        resend: false,
    }
}

/// A session that was welcomed, with those runs and acknowledgements.
fn welcomed(runs: Vec<RunState>, acks: Vec<SpoolAck>) -> (Protocol, Instant, Vec<SessionOutput>) {
    let now = Instant::now();
    let mut protocol = Protocol::new(runs, 0, now + FAR, now);
    let welcome = Welcome {
        cluster: "c".into(),
        main_user: "admin".into(),
        acks,
        ..Welcome::default()
    };
    let out = receive(&mut protocol, Down::Welcome(welcome), now);
    (protocol, now, out)
}

fn sends(output: &SessionOutput) -> &Up {
    match output {
        SessionOutput::Send(body) => body,
        other => panic!("{other:?} sends nothing"),
    }
}

#[test]
fn nothing_is_sent_before_the_welcome() {
    let now = Instant::now();
    let mut protocol = Protocol::new(vec![state(1, 100, false)], 0, now, now);
    assert_eq!(protocol.next_piece(now), None);
    assert!(
        protocol.step(SessionInput::Tick, now + 10 * S).is_empty(),
        "no heartbeat, no renewal"
    );
    assert_eq!(
        protocol.step(SessionInput::Tick, now + SILENCE),
        [SessionOutput::Close(Closed::Silent)]
    );
}

#[test]
fn heartbeats_go_out_and_echo_and_silence_ends_the_session() {
    let (mut protocol, now, out) = welcomed(vec![], vec![]);
    assert_eq!(out, [SessionOutput::CollectFacts("admin".into())]);
    assert!(
        protocol
            .step(SessionInput::Tick, now + HEARTBEAT - S)
            .is_empty()
    );
    receive(
        &mut protocol,
        Down::Heartbeat(Heartbeat { seq: 7, echo: 0 }),
        now + HEARTBEAT,
    );
    let out = protocol.step(SessionInput::Tick, now + HEARTBEAT);
    assert_eq!(
        out,
        [SessionOutput::Send(Up::Heartbeat(Heartbeat {
            seq: 1,
            echo: 7
        }))]
    );
    assert!(
        protocol
            .step(SessionInput::Tick, now + HEARTBEAT)
            .is_empty(),
        "one per period"
    );
    let end = protocol.step(SessionInput::Tick, now + HEARTBEAT + SILENCE);
    assert_eq!(end, [SessionOutput::Close(Closed::Silent)]);
}

#[test]
fn a_builtin_about_a_file_is_answered_once_it_was_read() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let call = |id, name: &str, args: &[&str]| {
        Down::Builtin(BuiltinCall {
            id,
            name: name.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        })
    };
    let out = receive(
        &mut protocol,
        call(4, "tail", &["/var/log/syslog", "3"]),
        now,
    );
    let tail = Builtin::Tail {
        path: "/var/log/syslog".into(),
        lines: 3,
    };
    assert_eq!(out, [SessionOutput::ReadFile(4, tail)]);
    let out = receive(&mut protocol, call(5, "stat", &["relative"]), now);
    assert!(
        matches!(sends(&out[0]), Up::BuiltinReply(reply) if reply.id == 5 && reply.error.contains("absolute")),
        "{out:?}"
    );
    let reply = BuiltinReply {
        id: 4,
        json: "{}".into(),
        error: String::new(),
    };
    let out = protocol.step(SessionInput::FileRead(reply.clone()), now);
    assert_eq!(out, [SessionOutput::Send(Up::BuiltinReply(reply))]);
}

#[test]
fn builtins_are_answered_at_once() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let call = |id, name: &str| {
        Down::Builtin(BuiltinCall {
            id,
            name: name.into(),
            args: vec![],
        })
    };
    let reply = |protocol: &mut Protocol, name: &str| match sends(
        &receive(protocol, call(1, name), now)[0],
    ) {
        Up::BuiltinReply(reply) => (reply.json.clone(), reply.error.is_empty()),
        other => panic!("{other:?}"),
    };
    assert_eq!(reply(&mut protocol, "ping"), ("true".into(), true));
    assert_eq!(
        reply(&mut protocol, "version"),
        (format!("\"{VERSION}\""), true)
    );
    assert_eq!(reply(&mut protocol, "shell"), (String::new(), false));
    assert!(
        receive(&mut protocol, call(9, "facts"), now).is_empty(),
        "they are not there yet"
    );
    let facts = FactsReport {
        node_json: "{\"cpus\":2}".into(),
        ..FactsReport::default()
    };
    let out = protocol.step(SessionInput::FactsCollected(Box::new(facts.clone())), now);
    assert_eq!(sends(&out[0]), &Up::Facts(facts.clone()));
    assert!(
        matches!(sends(&out[1]), Up::BuiltinReply(reply) if reply.id == 9 && reply.json == facts.node_json)
    );
    assert_eq!(
        reply(&mut protocol, "facts"),
        (facts.node_json.clone(), true)
    );
    assert!(
        protocol
            .step(SessionInput::FactsCollected(Box::new(facts)), now)
            .is_empty(),
        "nothing has changed"
    );
    assert!(
        protocol
            .step(SessionInput::Tick, now + SILENCE - S)
            .iter()
            .all(|o| !matches!(o, SessionOutput::CollectFacts(_)))
    );
}

#[test]
fn facts_are_collected_again_after_a_while() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    protocol.step(SessionInput::FactsCollected(Box::default()), now);
    let later = now + FACTS_EVERY;
    receive(&mut protocol, Down::Heartbeat(Heartbeat::default()), later);
    let out = protocol.step(SessionInput::Tick, later);
    assert!(
        out.contains(&SessionOutput::CollectFacts("admin".into())),
        "{out:?}"
    );
    assert!(
        protocol
            .step(SessionInput::Tick, later + S)
            .iter()
            .all(|o| !matches!(o, SessionOutput::CollectFacts(_))),
        "twice"
    );
}

#[test]
fn cluster_facts_are_applied_one_after_the_other_and_the_last_counts() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let facts = |generation| ClusterFacts {
        generation,
        ..ClusterFacts::default()
    };
    let apply = |generation| SessionOutput::Apply("c".into(), Box::new(facts(generation)));
    let piece = |generation| {
        let pieces = aot_proto::facts::pieces(&facts(generation));
        assert_eq!(pieces.len(), 1);
        Down::ClusterFacts(pieces[0].clone())
    };
    assert_eq!(receive(&mut protocol, piece(1), now), [apply(1)]);
    assert!(receive(&mut protocol, piece(2), now).is_empty());
    assert!(receive(&mut protocol, piece(3), now).is_empty());
    let done = ClusterFactsApplied {
        generation: 1,
        ..ClusterFactsApplied::default()
    };
    let out = protocol.step(SessionInput::Applied(done.clone()), now);
    assert_eq!(
        out,
        [SessionOutput::Send(Up::ClusterFactsApplied(done)), apply(3)]
    );
}

#[test]
fn cluster_facts_with_a_piece_missing_end_the_session() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let late = ClusterFactsPiece {
        generation: 1,
        offset: 10,
        total_bytes: 20,
        data: vec![1; 10].into(),
    };
    let why = "a piece of the cluster facts is missing".to_owned();
    assert_eq!(
        receive(&mut protocol, Down::ClusterFacts(late), now),
        [SessionOutput::Close(Closed::Broken(why))]
    );
}

#[test]
fn cluster_facts_that_are_too_large_are_refused_and_the_session_stays() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let huge = ClusterFactsPiece {
        generation: 7,
        offset: 0,
        total_bytes: 1 << 40,
        data: vec![1; 10].into(),
    };
    let out = receive(&mut protocol, Down::ClusterFacts(huge), now);
    let [SessionOutput::Send(Up::ClusterFactsApplied(applied))] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(applied.generation, 7);
    assert!(applied.error.contains("larger than"), "{}", applied.error);
}

#[test]
fn volumes_are_mounted_one_message_after_the_other_and_the_last_counts() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let volumes = |id| Volumes {
        id,
        ..Volumes::default()
    };
    let done = |id, error: &str| VolumesMounted {
        id,
        error: error.into(),
    };
    let mount = |id| SessionOutput::Mount(volumes(id));
    let sent = |id, error| SessionOutput::Send(Up::VolumesMounted(done(id, error)));
    let mut ask = |id| receive(&mut protocol, Down::Volumes(volumes(id)), now);
    assert_eq!(ask(1), [mount(1)]);
    assert!(ask(2).is_empty());
    assert!(ask(3).is_empty());
    let out = protocol.step(SessionInput::Mounted(done(1, "vol-1: no device")), now);
    assert_eq!(out, [sent(1, "vol-1: no device"), mount(3)]);
    let out = protocol.step(SessionInput::Mounted(done(3, "")), now);
    assert_eq!(out, [sent(3, "")]);
    let out = receive(&mut protocol, Down::Volumes(volumes(4)), now);
    assert_eq!(out, [mount(4)]);
}

#[test]
fn runs_are_started_cancelled_and_forgotten_by_name() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let run_id = id(1).to_string();
    let start = StartRun {
        run_id: run_id.clone(),
        ..StartRun::default()
    };
    assert_eq!(
        receive(&mut protocol, Down::StartRun(start.clone()), now),
        [SessionOutput::Start(Box::new(start))]
    );
    let out = protocol.step(
        SessionInput::Started(run_id.clone(), Err("full".into())),
        now,
    );
    assert_eq!(
        sends(&out[0]),
        &Up::RunAnswer(RunAnswer {
            run_id: run_id.clone(),
            accepted: false,
            reason: "full".into()
        })
    );
    let cancel = CancelRun {
        run_id: run_id.clone(),
        grace_ms: 5,
    };
    assert_eq!(
        receive(&mut protocol, Down::CancelRun(cancel), now),
        [SessionOutput::Cancel(id(1), 5)]
    );
    assert_eq!(
        receive(&mut protocol, Down::ForgetRun(ForgetRun { run_id }), now),
        [SessionOutput::Forget(id(1))]
    );
    assert!(
        receive(
            &mut protocol,
            Down::ForgetRun(ForgetRun {
                run_id: "../x".into()
            }),
            now
        )
        .is_empty()
    );
}

#[test]
fn goodbyes_are_sent_before_the_end() {
    for (input, why) in [
        (SessionInput::Stop, Closed::Stopping),
        (
            SessionInput::Master(MasterMessage {
                body: Some(Down::Reboot(Reboot::default())),
            }),
            Closed::Reboot,
        ),
    ] {
        let (mut protocol, now, _) = welcomed(vec![], vec![]);
        let out = protocol.step(input, now);
        assert!(matches!(sends(&out[0]), Up::GoingAway(_)));
        assert_eq!(out[1], SessionOutput::Close(why));
    }
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let away = MasterGoingAway {
        reason: "é".repeat(10 * MAX_REASON),
        reconnect_after_ms: 1500,
    };
    let probe = Heartbeat { seq: 7, echo: 0 };
    receive(&mut protocol, Down::Heartbeat(probe), now);
    let out = receive(&mut protocol, Down::GoingAway(away), now);
    let Up::Heartbeat(beat) = sends(&out[0]) else {
        panic!("{out:?}")
    };
    assert_eq!(beat.echo, 7, "it shows that it is still there");
    let closed = Closed::ByMaster {
        reason: "é".repeat(MAX_REASON),
        within: Duration::from_millis(1500),
    };
    assert_eq!(out[1..], [SessionOutput::Close(closed)]);
}

#[test]
fn what_the_welcome_says_of_reconnecting_is_bounded_and_known_to_the_end() {
    let now = Instant::now();
    for (named_ms, wanted) in [
        (0, MIN_RECONNECT_SPREAD),
        (10_000, 10 * S),
        (u64::MAX, MAX_RECONNECT_SPREAD),
    ] {
        let mut protocol = Protocol::new(vec![], 0, now + FAR, now);
        assert_eq!(protocol.spread(), None);
        let welcome = Welcome {
            reconnect_spread_ms: named_ms,
            masters: vec!["a:1".into()],
            ..Welcome::default()
        };
        let out = receive(&mut protocol, Down::Welcome(welcome), now);
        assert_eq!(out[0], SessionOutput::LearnMasters(vec!["a:1".into()]));
        assert_eq!(protocol.spread(), Some(wanted));
    }
}

/// What a master with this epoch is answered, by an agent that knows of another.
fn of_epoch(known: i64, epoch: i64) -> (Protocol, Vec<SessionOutput>) {
    let now = Instant::now();
    let mut protocol = Protocol::new(vec![state(1, 100, false)], known, now + FAR, now);
    let welcome = Welcome {
        epoch,
        masters: vec!["a:1".into()],
        hostname: "h".into(),
        acks: vec![ack(1, 50)],
        ..Welcome::default()
    };
    let out = receive(&mut protocol, Down::Welcome(welcome), now);
    (protocol, out)
}

#[test]
fn a_master_with_a_lower_epoch_is_left_and_nothing_of_its_session_is_done() {
    // 0 is that of a master that has the cluster no longer, or of one that can't know that it was another's.
    for (known, epoch) in [(2, 1), (i64::MAX, 1), (7, 0), (7, -1)] {
        let (mut protocol, out) = of_epoch(known, epoch);
        let [goodbye, SessionOutput::Close(Closed::Broken(why))] = &out[..] else {
            panic!("{out:?}")
        };
        assert!(matches!(sends(goodbye), Up::GoingAway(away) if away.reason == *why));
        assert!(why.contains(&format!("epoch is {epoch}")) && why.contains(&known.to_string()));
        assert_eq!(protocol.spread(), None, "the next address is dialled");
        let now = Instant::now();
        let start = StartRun::default();
        assert!(receive(&mut protocol, Down::StartRun(start), now).is_empty());
        let welcome = Welcome {
            epoch: i64::MAX,
            ..Welcome::default()
        };
        assert!(receive(&mut protocol, Down::Welcome(welcome), now).is_empty());
        assert_eq!(protocol.next_piece(now), None);
    }
}

#[test]
fn an_epoch_that_is_not_lower_is_taken_and_a_higher_one_is_learnt_before_all_else() {
    for (known, epoch, learns) in [(0, 0, false), (7, 7, false), (7, 8, true), (0, 1, true)] {
        let (protocol, out) = of_epoch(known, epoch);
        assert!(protocol.is_welcome(), "{known} {epoch}");
        let learnt = SessionOutput::LearnEpoch(epoch);
        assert_eq!(out[0] == learnt, learns, "{known} {epoch}");
        assert_eq!(out.contains(&learnt), learns, "{known} {epoch}");
    }
}

#[test]
fn where_epochs_count_nothing_is_done_before_the_welcome() {
    let now = Instant::now();
    let start = || Down::StartRun(StartRun::default());
    let mut protocol = Protocol::new(vec![], 0, now + FAR, now);
    let out = receive(&mut protocol, start(), now);
    assert!(matches!(out[..], [SessionOutput::Start(_)]), "{out:?}");
    let mut protocol = Protocol::new(vec![], 3, now + FAR, now);
    let beat = Down::Heartbeat(Heartbeat::default());
    assert!(receive(&mut protocol, beat, now).is_empty());
    let out = receive(&mut protocol, start(), now);
    let [_, SessionOutput::Close(Closed::Broken(why))] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(why.contains("before its welcome"), "{why}");
}

#[test]
fn the_version_that_the_master_picked_is_spoken_and_one_that_was_not_offered_ends_the_session() {
    let now = Instant::now();
    let welcome = |protocol| {
        Down::Welcome(Welcome {
            protocol,
            ..Welcome::default()
        })
    };
    // A master that knows no ranges picks none, and speaks the oldest.
    for (picked, spoken) in [(PROTOCOL, PROTOCOL), (0, OLDEST_PROTOCOL)] {
        let mut protocol = Protocol::new(vec![], 0, now + FAR, now);
        receive(&mut protocol, welcome(picked), now);
        assert_eq!(protocol.agreed, Some(spoken), "picked {picked}");
    }
    let mut protocol = Protocol::new(vec![], 0, now + FAR, now);
    let out = receive(&mut protocol, welcome(PROTOCOL + 1), now);
    let [goodbye, SessionOutput::Close(Closed::Broken(why))] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(matches!(sends(goodbye), Up::GoingAway(away) if away.reason == *why));
    assert!(why.contains("upgrade"), "{why}");
    assert!(!protocol.is_welcome(), "nothing is sent in it");
}

#[test]
fn a_renewal_is_asked_for_again_until_it_works() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    protocol.renew_at = now + S;
    assert!(protocol.step(SessionInput::Tick, now).is_empty());
    assert_eq!(
        protocol.step(SessionInput::Tick, now + S),
        [SessionOutput::MakeCsr]
    );
    assert!(protocol.step(SessionInput::Tick, now + 2 * S).is_empty());
    assert!(matches!(
        sends(&protocol.step(SessionInput::Csr(Some(vec![1])), now)[0]),
        Up::Renew(_)
    ));
    let refused = RenewReply {
        error: "busy".into(),
        ..RenewReply::default()
    };
    assert!(receive(&mut protocol, Down::Renew(refused), now + RENEW_AGAIN).is_empty());
    assert!(
        protocol
            .step(SessionInput::Tick, now + S + RENEW_AGAIN)
            .contains(&SessionOutput::MakeCsr)
    );
    let good = RenewReply {
        certificate_pem: "pem".into(),
        ..RenewReply::default()
    };
    assert_eq!(
        receive(&mut protocol, Down::Renew(good), now + RENEW_AGAIN),
        [SessionOutput::Install("pem".into())]
    );
    protocol.step(SessionInput::Installed(now + FAR), now);
    assert!(
        !protocol
            .step(SessionInput::Tick, now + 3 * RENEW_AGAIN)
            .contains(&SessionOutput::MakeCsr)
    );
}

#[test]
fn a_spool_continues_where_the_master_has_it() {
    let (mut protocol, now, _) = welcomed(
        vec![
            state(1, 100, false),
            state(2, 50, false),
            state(3, 70, true),
        ],
        vec![ack(1, 40), ack(3, 70)],
    );
    let piece = protocol.next_piece(now).unwrap();
    assert_eq!((piece.run, piece.offset), (id(1), 40));
    protocol.sent(piece, 60, now);
    let piece = protocol.next_piece(now).unwrap();
    assert_eq!(
        (piece.run, piece.offset),
        (id(2), 0),
        "one that the welcome does not name starts at 0"
    );
    protocol.sent(piece, 50, now);
    assert_eq!(protocol.next_piece(now), None);
}

#[test]
fn a_master_that_has_every_byte_is_sent_the_end_once_more() {
    let (_, _, out) = welcomed(
        vec![state(3, 70, true), state(4, 70, false)],
        vec![ack(3, 70), ack(4, 70)],
    );
    let ends: Vec<_> = out.iter().filter(|output| matches!(output, SessionOutput::Send(Up::Spool(data)) if data.end && data.offset == 70)).collect();
    assert_eq!(ends.len(), 1);
}
