//! Shut out means now, whatever the other side does: it does not read, it downloads, it shows a certificate that was
//! replaced. And two that hold one identity are told, while an honest agent that comes back is not.

use std::fs;
use std::time::{Duration, Instant};

use aot_proto::limits::PROTOCOL;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    AgentMessage, FetchChunk, FetchRequest, Hello, MasterMessage, RenewReply, RenewRequest,
    SpoolData, start_run,
};
use aot_tests::liar::{Identity, Liar, hello};
use aot_tests::rig::Rig;
use aot_tests::wait;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// How soon "at once" is: before the silence of a session that does not read would end it (20 s).
const AT_ONCE: Duration = Duration::from_secs(15);

/// Why a session ends whose queue runs over, as the log has it.
const UNREAD: &str = "did not read what it was sent";

/// Longest time until something shows.
const SOON: Duration = Duration::from_secs(120);

fn launched(instances: &str) -> Rig {
    let rig = Rig::local();
    rig.cluster(&format!(
        "\ncluster: shut\nprovider: local\ninstances: [{instances}]\n"
    ));
    rig.launch().expect(0);
    rig
}

/// The identity of an instance whose honest agent says nothing from now on.
fn stolen(rig: &Rig, instance: &str) -> Identity {
    let machine = rig.machine(instance);
    let identity = Identity::of(rig, &machine);
    machine.stop_agent();
    identity
}

/// A session that nobody reads: its stream is kept, and its end is seen in the log alone.
struct Unread {
    liar: Liar,
    out: mpsc::Sender<AgentMessage>,
    _stream: Streaming<MasterMessage>,
}

impl Unread {
    fn attach(rig: &Rig, identity: &Identity) -> Self {
        let liar = Liar::dial(rig, identity);
        let (out, messages) = mpsc::channel(64);
        let first = AgentMessage {
            body: Some(Up::Hello(hello())),
        };
        out.try_send(first).expect("it is empty");
        let mut link = liar.link();
        let answer = liar.block_on(link.attach(ReceiverStream::new(messages)));
        let stream = answer.expect("it is let in").into_inner();
        Self {
            liar,
            out,
            _stream: stream,
        }
    }

    /// Says something that is answered, until the session is over or the log says why it will be.
    fn provoke(&self, rig: &Rig) {
        let end = Instant::now() + SOON;
        for number in 0_u128.. {
            let piece = SpoolData {
                run_id: aot_proto::ids::RunId::from_parts(1, number).to_string(),
                data: vec![0].into(),
                ..SpoolData::default()
            };
            let message = AgentMessage {
                body: Some(Up::Spool(piece)),
            };
            let sent = self.out.send(message);
            let limit = Duration::from_millis(500);
            let sent = self
                .liar
                .block_on(async { tokio::time::timeout(limit, sent).await });
            let is_over = match sent {
                Ok(sent) => sent.is_err(),
                // It takes no more, for the moment or for good.
                Err(_) => sessions(rig, UNREAD) > 0 || Instant::now() >= end,
            };
            if is_over {
                return;
            }
        }
    }
}

fn sessions(rig: &Rig, what: &str) -> usize {
    let log = rig.log();
    let lines = log.lines().filter(|line| line.contains(what));
    lines.count()
}

fn revoke(rig: &Rig, instance: &str) -> Instant {
    rig.cli(["agents", "revoke", instance, "--yes"]).expect(0);
    Instant::now()
}

#[test]
fn a_session_that_does_not_read_is_shut_out_all_the_same() {
    let _turn = crate::turn();
    let mut rig = launched("{name: a}, {name: b}");
    let a = stolen(&rig, "a");
    let unread = Unread::attach(&rig, &a);
    wait::until(
        || rig.status()["a"]["agent"]["connected"] == json!(true),
        SOON,
        "the liar has the session",
    );
    let before = sessions(&rig, "its identity was revoked");
    let revoked = revoke(&rig, "a");
    wait::until(
        || sessions(&rig, "its identity was revoked") > before,
        AT_ONCE,
        "the end of the session of a revoked machine that does not read",
    );
    assert!(revoked.elapsed() < AT_ONCE);
    let asked = rig.cli(["exec", "--json", "a", "version"]);
    assert_eq!(
        asked.one(|line| line["instance"] == "a")["outcome"],
        "absent"
    );
    drop(unread);

    // One that makes its own queue run over is not there.
    let b = stolen(&rig, "b");
    let unread = Unread::attach(&rig, &b);
    unread.provoke(&rig);
    wait::until(
        || sessions(&rig, UNREAD) > 0,
        SOON,
        "the end of a session whose queue is full",
    );
    let asked = rig.cli(["exec", "--json", "b", "version"]);
    assert_eq!(
        asked.one(|line| line["instance"] == "b")["outcome"],
        "absent"
    );
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[test]
fn a_transfer_under_way_ends_with_the_identity_of_its_machine() {
    let _turn = crate::turn();
    let mut rig = launched("{name: a}");
    let identity = stolen(&rig, "a");
    let mut liar = Liar::attach(&rig, &identity);
    let big = rig.dir().join("big");
    fs::write(&big, vec![7_u8; 32 << 20]).expect("a file");
    let copy = rig.spawn(["cp", &big.display().to_string(), "a:/tmp/"]);
    let start = liar.start_run();
    let Some(start_run::What::CopyIn(wanted)) = start.what else {
        panic!("{start:?}")
    };
    let fetch = || FetchRequest {
        sha256: wanted.sha256.clone(),
        offset: 0,
    };
    let mut link = liar.link();
    let answer = liar.block_on(link.fetch(fetch()));
    let mut stream: Streaming<FetchChunk> = answer.expect("it is let in").into_inner();
    let first = liar.block_on(stream.message()).expect("bytes");
    let mut got = first.expect("some").data.len() as u64;
    revoke(&rig, "a");
    let end: Result<(), Status> = liar.block_on(async {
        while let Some(chunk) = stream.message().await? {
            got += chunk.data.len() as u64;
        }
        Ok(())
    });
    assert!(
        end.is_err() && got < wanted.bytes,
        "{got} of {} bytes",
        wanted.bytes
    );
    let again = liar.block_on(link.fetch(fetch()));
    assert!(again.is_err(), "nor is another one begun");
    copy.finish(SOON);
    assert_eq!(rig.clean(), Vec::<String>::new());
}

/// Another certificate, asked for with a new key in this session.
fn renewed(liar: &mut Liar, old: &Identity) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key);
    let csr_der = request.expect("signs").der().to_vec();
    liar.send(Up::Renew(RenewRequest { csr_der }));
    let reply: RenewReply = liar.wait("a renewal", |body| match body {
        Down::Renew(reply) => Some(reply.clone()),
        _ => None,
    });
    assert_eq!(reply.error, "");
    Identity {
        pem: format!("{}{}", key.serialize_pem(), reply.certificate_pem),
        ..old.clone()
    }
}

fn attaches(rig: &Rig, identity: &Identity) -> Result<(), Status> {
    let liar = Liar::dial(rig, identity);
    let (out, messages) = mpsc::channel(4);
    let first = AgentMessage {
        body: Some(Up::Hello(hello())),
    };
    out.try_send(first).expect("it is empty");
    let mut link = liar.link();
    let answer = liar.block_on(link.attach(ReceiverStream::new(messages)))?;
    liar.block_on(answer.into_inner().message()).map(drop)
}

#[test]
fn a_certificate_that_was_replaced_opens_nothing_not_even_where_it_came_in() {
    let _turn = crate::turn();
    let mut rig = launched("{name: a}");
    let first = stolen(&rig, "a");
    let mut liar = Liar::attach(&rig, &first);
    let second = renewed(&mut liar, &first);
    attaches(&rig, &first).expect("the answer to a renewal may get lost");
    attaches(&rig, &second).expect("it is good");
    let refused = |result: Result<(), Status>| result.expect_err("it was replaced").code();
    assert_eq!(refused(attaches(&rig, &first)), Code::PermissionDenied);
    // On a connection that was open before, too.
    let mut link = liar.link();
    let fetch = FetchRequest {
        sha256: "0".repeat(64),
        offset: 0,
    };
    let fetched = liar.block_on(link.fetch(fetch)).map(drop);
    assert_eq!(refused(fetched), Code::PermissionDenied);
    attaches(&rig, &second).expect("it is good still");
    assert_eq!(rig.clean(), Vec::<String>::new());
}

fn used_twice(rig: &Rig, instance: &str) -> Value {
    let agents = rig.cli(["agents", "--json"]);
    agents.one(|line| line["instance"] == instance)["used_twice"].clone()
}

#[test]
fn two_that_hold_one_identity_are_told_and_an_honest_agent_that_comes_back_is_not() {
    let _turn = crate::turn();
    let mut rig = launched("{name: a}, {name: b}");
    // The honest one continues; the thief does not know which process it is.
    let identity = Identity::of(&rig, &rig.machine("a"));
    let thief = Liar::attach(&rig, &identity);
    wait::until(
        || used_twice(&rig, "a").is_string(),
        SOON,
        "two processes of one identity are told",
    );
    assert!(rig.log().contains("identity-used-twice"));
    let note = rig.status()["a"]["warning"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(note.contains("two processes use its identity"), "{note}");
    drop(thief);

    let connected = || rig.status()["b"]["agent"]["connected"] == json!(true);
    let times = || {
        let log = rig.log();
        let lines = log.lines().filter(|line| line.contains("session begins"));
        lines.filter(|line| line.contains("shut/b")).count()
    };
    for fault in ["the agent is killed", "it is rebooted", "the power is lost"] {
        let before = times();
        match fault {
            "the agent is killed" => {
                rig.machine("b").kill_agent();
            }
            "it is rebooted" => {
                rig.cli(["reboot", "b", "--yes"]).expect(0);
            }
            _ => {
                rig.machine("b").lose_power();
                rig.cli(["start", "b"]).expect(0);
            }
        }
        wait::until(|| times() > before && connected(), SOON, fault);
        assert_eq!(used_twice(&rig, "b"), Value::Null, "{fault}");
    }
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[test]
fn a_thief_that_knows_all_of_the_process_is_given_away_by_the_answer_of_the_other() {
    let _turn = crate::turn();
    let mut rig = launched("{name: a}");
    let identity = stolen(&rig, "a");
    let copied = Hello {
        protocol: PROTOCOL,
        process_id: "the same".to_owned(),
        ..hello()
    };
    let mut first = Liar::attach_with(&rig, &identity, copied.clone());
    first.wait("a welcome", |body| {
        matches!(body, Down::Welcome(_)).then_some(())
    });
    // The one before may be taken for another process; its session ends here.
    let seen = used_twice(&rig, "a");
    let mut second = Liar::attach_with(&rig, &identity, copied);
    second.wait("a welcome", |body| {
        matches!(body, Down::Welcome(_)).then_some(())
    });
    first.ended();
    wait::until(
        || rig.log().contains("this one still answers"),
        SOON,
        "the first one's answer is noted",
    );
    wait::until(
        || used_twice(&rig, "a").is_string(),
        SOON,
        "two that call themselves one process are told",
    );
    drop((seen, first, second));
    assert_eq!(rig.clean(), Vec::<String>::new());
}
