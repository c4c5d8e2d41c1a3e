use super::*;
use aot_proto::limits::{PROTOCOL, SPOOL_CHUNK_BYTES};
use proptest::prelude::*;

fn agent(body: agent_message::Body) -> SessionInput {
    SessionInput::Agent(Box::new(v1::AgentMessage { body: Some(body) }))
}

fn hello(protocol: u32) -> SessionInput {
    agent(agent_message::Body::Hello(v1::Hello {
        protocol,
        ..v1::Hello::default()
    }))
}

fn greeted(now: Instant) -> Protocol {
    let mut protocol = Protocol::new(now);
    let out = protocol.step(hello(PROTOCOL), now);
    assert!(matches!(
        out[..],
        [SessionOutput::Report(SessionReport::Hello { .. })]
    ));
    protocol
}

fn closes(out: &[SessionOutput]) -> Option<&Closed> {
    out.iter().find_map(|output| match output {
        SessionOutput::Close(why) => Some(why),
        _ => None,
    })
}

#[test]
fn the_first_message_is_a_hello_of_our_protocol_and_the_only_one() {
    let now = Instant::now();
    let beat = || agent(agent_message::Body::Heartbeat(v1::Heartbeat::default()));
    assert!(closes(&Protocol::new(now).step(beat(), now)).is_some());
    assert!(closes(&Protocol::new(now).step(hello(PROTOCOL + 1), now)).is_some());
    assert!(closes(&greeted(now).step(hello(PROTOCOL), now)).is_some());
    assert!(closes(&greeted(now).step(beat(), now)).is_none());
}

#[test]
fn the_version_of_a_session_is_the_newest_that_both_speak() {
    let now = Instant::now();
    let range = |oldest_protocol, newest_protocol| v1::Hello {
        protocol: oldest_protocol,
        oldest_protocol,
        newest_protocol,
        ..v1::Hello::default()
    };
    let knows_no_ranges = v1::Hello {
        protocol: PROTOCOL,
        ..v1::Hello::default()
    };
    for hello in [range(1, PROTOCOL + 9), knows_no_ranges] {
        let mut protocol = Protocol::new(now);
        let out = protocol.step(agent(agent_message::Body::Hello(hello)), now);
        let [SessionOutput::Report(SessionReport::Hello { protocol: said, .. })] = out[..] else {
            panic!("{out:?}")
        };
        assert_eq!((said, protocol.agreed), (PROTOCOL, Some(PROTOCOL)));
    }
    let too_new = range(PROTOCOL + 1, PROTOCOL + 2);
    let mut protocol = Protocol::new(now);
    let out = protocol.step(agent(agent_message::Body::Hello(too_new)), now);
    let [
        SessionOutput::Send(body),
        SessionOutput::Close(Closed::Version(refused)),
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    let master_message::Body::GoingAway(goodbye) = &**body else {
        panic!("{body:?}")
    };
    assert_eq!(goodbye.reason, refused.to_string(), "the agent learns why");
    assert_eq!(protocol.agreed, None);
}

#[test]
fn what_comes_after_a_breach_or_a_goodbye_is_not_taken() {
    let now = Instant::now();
    let ends = [hello(PROTOCOL), SessionInput::Stop, SessionInput::Replaced];
    for end in ends {
        let mut protocol = greeted(now);
        protocol.step(end, now);
        let facts = agent_message::Body::Facts(v1::FactsReport::default());
        assert!(protocol.step(agent(facts), now).is_empty());
    }
}

#[test]
fn a_piece_of_output_has_a_bound() {
    let now = Instant::now();
    let run = RunId::from_parts(1, 1);
    for (bytes, fits) in [(SPOOL_CHUNK_BYTES, true), (SPOOL_CHUNK_BYTES + 1, false)] {
        let piece = v1::SpoolData {
            run_id: run.to_string(),
            data: vec![0; bytes].into(),
            ..v1::SpoolData::default()
        };
        let out = greeted(now).step(agent(agent_message::Body::Spool(piece)), now);
        assert_eq!(closes(&out).is_none(), fits, "{bytes} bytes");
    }
}

#[test]
fn a_silent_agent_is_let_go_and_one_that_beats_is_not() {
    let start = Instant::now();
    let (mut silent, mut alive) = (greeted(start), greeted(start));
    for second in 1..=60 {
        let now = start + Duration::from_secs(second);
        alive.step(
            agent(agent_message::Body::Heartbeat(v1::Heartbeat::default())),
            now,
        );
        assert!(closes(&alive.step(SessionInput::Tick, now)).is_none());
        let out = silent.step(SessionInput::Tick, now);
        assert_eq!(
            closes(&out),
            (now - start >= SILENCE).then_some(&Closed::Silent)
        );
    }
}

#[test]
fn a_call_is_answered_once_and_only_by_its_own_number() {
    let now = Instant::now();
    let mut protocol = greeted(now);
    let (answer, mut reply) = tokio::sync::oneshot::channel();
    let deadline = now + Duration::from_secs(1);
    let call = SessionCommand::Builtin(Box::new(Question {
        name: "ping".to_owned(),
        args: Vec::new(),
        answer,
        deadline,
    }));
    let out = protocol.step(SessionInput::Command(call), now);
    let [SessionOutput::Send(body)] = &out[..] else {
        panic!("{out:?}")
    };
    let master_message::Body::Builtin(call) = &**body else {
        panic!("{body:?}")
    };
    let answer = |id, json: &str| {
        let reply = v1::BuiltinReply {
            id,
            json: json.to_owned(),
            error: String::new(),
        };
        agent(agent_message::Body::BuiltinReply(reply))
    };
    protocol.step(answer(call.id + 1, "false"), now);
    assert!(reply.try_recv().is_err());
    protocol.step(answer(call.id, "true"), now);
    protocol.step(answer(call.id, "again"), now);
    assert_eq!(
        reply.try_recv().expect("answered").result,
        Ok("true".to_owned())
    );
}

#[test]
fn goodbye_is_said_before_the_close() {
    let now = Instant::now();
    for input in [SessionInput::Stop, SessionInput::Replaced] {
        let out = greeted(now).step(input, now);
        assert!(
            matches!(
                out[..],
                [.., SessionOutput::Send(_), SessionOutput::Close(_)]
            ),
            "{out:?}"
        );
    }
}

proptest! {
    /// Whatever an agent sends, in whatever order: no panic, and nothing is reported before its hello.
    #[test]
    fn nothing_is_taken_from_a_stranger(kinds in prop::collection::vec(0u8..10, 1..30)) {
        let now = Instant::now();
        let mut protocol = Protocol::new(now);
        let (mut greeted, mut over) = (false, false);
        for kind in kinds {
            use agent_message::Body;
            let body = match kind {
                0 => Body::Hello(v1::Hello { protocol: PROTOCOL, ..v1::Hello::default() }),
                1 => Body::Heartbeat(v1::Heartbeat::default()),
                2 => Body::Facts(v1::FactsReport::default()),
                3 => Body::ClusterFactsApplied(v1::ClusterFactsApplied::default()),
                4 => Body::RunAnswer(v1::RunAnswer::default()),
                5 => Body::Spool(v1::SpoolData::default()),
                6 => Body::BuiltinReply(v1::BuiltinReply::default()),
                7 => Body::Renew(v1::RenewRequest::default()),
                8 => Body::VolumesMounted(v1::VolumesMounted::default()),
                _ => Body::GoingAway(v1::GoingAway::default()),
            };
            let is_hello = kind == 0;
            let out = protocol.step(agent(body), now);
            if over {
                prop_assert!(out.is_empty());
            } else if !greeted && !is_hello {
                prop_assert!(closes(&out).is_some());
                prop_assert!(!out.iter().any(|output| matches!(output, SessionOutput::Report(_))));
            }
            over |= closes(&out).is_some();
            greeted |= is_hello;
        }
    }
}

#[test]
fn an_agent_that_nobody_listens_to_is_not_silent_and_is_sent_beats() {
    let begun = Instant::now();
    let mut protocol = greeted(begun);
    let mut beats = 0;
    for second in 1..=2 * SILENCE.as_secs() {
        let now = begun + Duration::from_secs(second);
        let out = protocol.step(SessionInput::DeafTick, now);
        assert!(closes(&out).is_none(), "after {second} s");
        beats += out.len() as u64;
    }
    assert_eq!(beats, 2 * SILENCE.as_secs() / HEARTBEAT.as_secs());
    // From the moment that it is listened to again.
    let listened = begun + 2 * SILENCE;
    let nearly = listened + SILENCE - Duration::from_secs(1);
    assert!(closes(&protocol.step(SessionInput::Tick, nearly)).is_none());
    let out = protocol.step(SessionInput::Tick, listened + SILENCE);
    assert_eq!(closes(&out), Some(&Closed::Silent));
}
