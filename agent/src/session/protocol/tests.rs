//! The decisions of a session, one by one.

use super::*;
use aot_proto::v1::{CancelRun, ClusterFactsPiece, ForgetRun, MasterGoingAway, Reboot, RenewReply};
use proptest::prelude::*;

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

fn tell(protocol: &mut Protocol, body: Down, now: Instant) -> Vec<Output> {
    protocol.step(Input::Master(MasterMessage { body: Some(body) }), now)
}

fn ack(n: u128, bytes: u64) -> SpoolAck {
    SpoolAck {
        run_id: id(n).to_string(),
        bytes,
    }
}

/// A session that was welcomed, with those runs and acknowledgements.
fn welcomed(runs: Vec<RunState>, acks: Vec<SpoolAck>) -> (Protocol, Instant, Vec<Output>) {
    let now = Instant::now();
    let mut protocol = Protocol::new(runs, now + FAR, now);
    let welcome = Welcome {
        cluster: "c".into(),
        main_user: "admin".into(),
        acks,
        ..Welcome::default()
    };
    let out = tell(&mut protocol, Down::Welcome(welcome), now);
    (protocol, now, out)
}

fn sends(output: &Output) -> &Up {
    match output {
        Output::Send(body) => body,
        other => panic!("{other:?} sends nothing"),
    }
}

#[test]
fn nothing_is_sent_before_the_welcome() {
    let now = Instant::now();
    let mut protocol = Protocol::new(vec![state(1, 100, false)], now, now);
    assert_eq!(protocol.next_piece(), None);
    assert!(
        protocol.step(Input::Tick, now + 10 * S).is_empty(),
        "no heartbeat, no renewal"
    );
    assert_eq!(
        protocol.step(Input::Tick, now + SILENCE),
        [Output::Close(Closed::Silent)]
    );
}

#[test]
fn heartbeats_go_out_and_echo_and_silence_ends_the_session() {
    let (mut protocol, now, out) = welcomed(vec![], vec![]);
    assert_eq!(out, [Output::CollectFacts("admin".into())]);
    assert!(protocol.step(Input::Tick, now + HEARTBEAT - S).is_empty());
    tell(
        &mut protocol,
        Down::Heartbeat(Heartbeat { seq: 7, echo: 0 }),
        now + HEARTBEAT,
    );
    let out = protocol.step(Input::Tick, now + HEARTBEAT);
    assert_eq!(
        out,
        [Output::Send(Up::Heartbeat(Heartbeat { seq: 1, echo: 7 }))]
    );
    assert!(
        protocol.step(Input::Tick, now + HEARTBEAT).is_empty(),
        "one a period"
    );
    let end = protocol.step(Input::Tick, now + HEARTBEAT + SILENCE);
    assert_eq!(end, [Output::Close(Closed::Silent)]);
}

#[test]
fn a_look_at_a_file_is_answered_when_it_has_been_made() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let call = |id, name: &str, args: &[&str]| {
        Down::Builtin(BuiltinCall {
            id,
            name: name.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        })
    };
    let out = tell(
        &mut protocol,
        call(4, "tail", &["/var/log/syslog", "3"]),
        now,
    );
    let look = Builtin::Tail {
        path: "/var/log/syslog".into(),
        lines: 3,
    };
    assert_eq!(out, [Output::Look(4, look)]);
    let out = tell(&mut protocol, call(5, "stat", &["relative"]), now);
    assert!(
        matches!(sends(&out[0]), Up::BuiltinReply(reply) if reply.id == 5 && reply.error.contains("absolute")),
        "{out:?}"
    );
    let reply = BuiltinReply {
        id: 4,
        json: "{}".into(),
        error: String::new(),
    };
    let out = protocol.step(Input::Looked(reply.clone()), now);
    assert_eq!(out, [Output::Send(Up::BuiltinReply(reply))]);
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
    let reply =
        |protocol: &mut Protocol, name: &str| match sends(&tell(protocol, call(1, name), now)[0]) {
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
        tell(&mut protocol, call(9, "facts"), now).is_empty(),
        "they are not there yet"
    );
    let facts = FactsReport {
        node_json: "{\"cpus\":2}".into(),
        ..FactsReport::default()
    };
    let out = protocol.step(Input::FactsCollected(Box::new(facts.clone())), now);
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
            .step(Input::FactsCollected(Box::new(facts)), now)
            .is_empty(),
        "no news"
    );
    assert!(
        protocol
            .step(Input::Tick, now + SILENCE - S)
            .iter()
            .all(|o| !matches!(o, Output::CollectFacts(_)))
    );
}

#[test]
fn facts_are_collected_again_after_a_while() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    protocol.step(Input::FactsCollected(Box::default()), now);
    let later = now + FACTS_EVERY;
    tell(&mut protocol, Down::Heartbeat(Heartbeat::default()), later);
    let out = protocol.step(Input::Tick, later);
    assert!(
        out.contains(&Output::CollectFacts("admin".into())),
        "{out:?}"
    );
    assert!(
        protocol
            .step(Input::Tick, later + S)
            .iter()
            .all(|o| !matches!(o, Output::CollectFacts(_))),
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
    let apply = |generation| Output::Apply("c".into(), Box::new(facts(generation)));
    let piece = |generation| {
        let mut pieces = aot_proto::facts::pieces(&facts(generation));
        assert_eq!(pieces.len(), 1);
        Down::ClusterFacts(pieces.remove(0))
    };
    assert_eq!(tell(&mut protocol, piece(1), now), [apply(1)]);
    assert!(tell(&mut protocol, piece(2), now).is_empty());
    assert!(tell(&mut protocol, piece(3), now).is_empty());
    let done = ClusterFactsApplied {
        generation: 1,
        ..ClusterFactsApplied::default()
    };
    let out = protocol.step(Input::Applied(done.clone()), now);
    assert_eq!(out, [Output::Send(Up::ClusterFactsApplied(done)), apply(3)]);
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
        tell(&mut protocol, Down::ClusterFacts(late), now),
        [Output::Close(Closed::Broken(why))]
    );
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
    let mount = |id| Output::Mount(volumes(id));
    let sent = |id, error| Output::Send(Up::VolumesMounted(done(id, error)));
    let mut told = |id| tell(&mut protocol, Down::Volumes(volumes(id)), now);
    assert_eq!(told(1), [mount(1)]);
    assert!(told(2).is_empty());
    assert!(told(3).is_empty());
    let out = protocol.step(Input::Mounted(done(1, "vol-1: no device")), now);
    assert_eq!(out, [sent(1, "vol-1: no device"), mount(3)]);
    let out = protocol.step(Input::Mounted(done(3, "")), now);
    assert_eq!(out, [sent(3, "")]);
    let out = tell(&mut protocol, Down::Volumes(volumes(4)), now);
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
        tell(&mut protocol, Down::StartRun(start.clone()), now),
        [Output::Start(Box::new(start))]
    );
    let out = protocol.step(Input::Started(run_id.clone(), Err("full".into())), now);
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
        tell(&mut protocol, Down::CancelRun(cancel), now),
        [Output::Cancel(id(1), 5)]
    );
    assert_eq!(
        tell(&mut protocol, Down::ForgetRun(ForgetRun { run_id }), now),
        [Output::Forget(id(1))]
    );
    assert!(
        tell(
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
fn goodbyes_are_said_before_the_end() {
    for (input, why) in [
        (Input::Stop, Closed::Stopping),
        (
            Input::Master(MasterMessage {
                body: Some(Down::Reboot(Reboot::default())),
            }),
            Closed::Reboot,
        ),
    ] {
        let (mut protocol, now, _) = welcomed(vec![], vec![]);
        let out = protocol.step(input, now);
        assert!(matches!(sends(&out[0]), Up::GoingAway(_)));
        assert_eq!(out[1], Output::Close(why));
    }
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    let away = MasterGoingAway {
        reason: String::new(),
        reconnect_after_ms: 1500,
    };
    assert_eq!(
        tell(&mut protocol, Down::GoingAway(away), now),
        [Output::Close(Closed::ByMaster(Duration::from_millis(1500)))]
    );
}

#[test]
fn a_renewal_is_asked_for_again_until_it_works() {
    let (mut protocol, now, _) = welcomed(vec![], vec![]);
    protocol.renew_at = now + S;
    assert!(protocol.step(Input::Tick, now).is_empty());
    assert_eq!(protocol.step(Input::Tick, now + S), [Output::MakeCsr]);
    assert!(protocol.step(Input::Tick, now + 2 * S).is_empty());
    assert!(matches!(
        sends(&protocol.step(Input::Csr(Some(vec![1])), now)[0]),
        Up::Renew(_)
    ));
    let refused = RenewReply {
        error: "busy".into(),
        ..RenewReply::default()
    };
    assert!(tell(&mut protocol, Down::Renew(refused), now + RENEW_AGAIN).is_empty());
    assert!(
        protocol
            .step(Input::Tick, now + S + RENEW_AGAIN)
            .contains(&Output::MakeCsr)
    );
    let good = RenewReply {
        certificate_pem: "pem".into(),
        ..RenewReply::default()
    };
    assert_eq!(
        tell(&mut protocol, Down::Renew(good), now + RENEW_AGAIN),
        [Output::Install("pem".into())]
    );
    protocol.step(Input::Installed(now + FAR), now);
    assert!(
        !protocol
            .step(Input::Tick, now + 3 * RENEW_AGAIN)
            .contains(&Output::MakeCsr)
    );
}

#[test]
fn a_spool_goes_on_where_the_master_has_it() {
    let (mut protocol, _, _) = welcomed(
        vec![
            state(1, 100, false),
            state(2, 50, false),
            state(3, 70, true),
        ],
        vec![ack(1, 40), ack(3, 70)],
    );
    let piece = protocol.next_piece().unwrap();
    assert_eq!((piece.run, piece.offset), (id(1), 40));
    protocol.sent(piece, 60);
    let piece = protocol.next_piece().unwrap();
    assert_eq!(
        (piece.run, piece.offset),
        (id(2), 0),
        "one that the welcome does not name starts at 0"
    );
    protocol.sent(piece, 50);
    assert_eq!(protocol.next_piece(), None);
}

#[test]
fn a_master_that_has_every_byte_is_told_that_these_are_all() {
    let (_, _, out) = welcomed(
        vec![state(3, 70, true), state(4, 70, false)],
        vec![ack(3, 70), ack(4, 70)],
    );
    let ends: Vec<_> = out.iter().filter(|output| matches!(output, Output::Send(Up::Spool(data)) if data.end && data.offset == 70)).collect();
    assert_eq!(ends.len(), 1);
}

#[test]
fn a_piece_without_a_whole_frame_waits_for_news() {
    let (mut protocol, now, _) = welcomed(vec![state(1, 3, false)], vec![]);
    let piece = protocol.next_piece().unwrap();
    protocol.sent(piece, 0);
    assert_eq!(protocol.next_piece(), None);
    protocol.step(Input::Grown(id(1), 80), now);
    assert_eq!(protocol.next_piece().map(|piece| piece.offset), Some(0));
}

proptest! {
    #[test]
    fn the_window_holds_and_runs_take_turns(lens in prop::collection::vec(1u64..3_000_000, 1..6), acks_every in 1usize..8) {
        let runs: Vec<RunState> = lens.iter().enumerate().map(|(n, len)| state(n as u128, *len, false)).collect();
        let (mut protocol, now, _) = welcomed(runs, vec![]);
        let mut got = vec![0u64; lens.len()];
        let mut turns: Vec<RunId> = Vec::new();
        for round in 0..100_000usize {
            let Some(piece) = protocol.next_piece() else {
                for (n, bytes) in got.iter().enumerate() {
                    tell(&mut protocol, Down::SpoolAck(ack(n as u128, *bytes)), now);
                }
                if protocol.next_piece().is_none() { break; }
                continue;
            };
            let n = (0..lens.len()).find(|n| id(*n as u128) == piece.run).unwrap();
            prop_assert_eq!(piece.offset, got[n]);
            prop_assert!(piece.most <= SPOOL_CHUNK_BYTES);
            let bytes = (lens[n] - got[n]).min(piece.most as u64);
            protocol.sent(piece, bytes as usize);
            got[n] += bytes;
            let under_way: u64 = protocol.runs.values().map(|run| run.sent - run.acked).sum();
            prop_assert!(under_way <= SPOOL_WINDOW_BYTES as u64);
            turns.push(piece.run);
            if round % acks_every == 0 {
                tell(&mut protocol, Down::SpoolAck(ack(n as u128, got[n])), now);
                tell(&mut protocol, Down::SpoolAck(ack(n as u128, got[n] / 2)), now);
            }
        }
        prop_assert_eq!(&got, &lens);
        if lens.len() > 1 && lens.iter().all(|len| *len > 3 * SPOOL_CHUNK_BYTES as u64) {
            prop_assert!(turns.windows(2).take(4).all(|pair| pair[0] != pair[1]), "one run twice in a row: {:?}", &turns[..4]);
        }
    }
}
