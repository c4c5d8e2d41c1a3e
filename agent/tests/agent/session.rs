//! What else the master asks of an agent, and how a session ends.

use aot_proto::facts;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{ClusterFacts, Peer, Reboot, Volume, Volumes};

use super::fake::{Rig, exec, run_id, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_facts_are_applied_and_come_back_after_a_restart() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let peer = Peer {
        name: "web2".into(),
        hostname: "web2".into(),
        addresses: vec!["10.9.8.7".into()],
        ..Peer::default()
    };
    let entry = facts::entry("web2", &serde_json::json!({}), peer);
    let whole = ClusterFacts {
        generation: 4,
        complete: true,
        digest: facts::digest("", [facts::hash(&entry)].iter()).to_vec(),
        entries: vec![entry],
        ..ClusterFacts::default()
    };
    for piece in facts::pieces(&whole).iter() {
        rig.master.send(Down::ClusterFacts(piece.clone())).await;
    }
    let applied = rig.master.until("an answer", |state| {
        state.received.iter().find_map(|up| {
            if let Up::ClusterFactsApplied(applied) = up {
                Some(applied.clone())
            } else {
                None
            }
        })
    });
    let applied = applied.await;
    assert_eq!((applied.generation, applied.error.as_str()), (4, ""));
    let hosts = rig.path("etc/hosts");
    assert!(
        std::fs::read_to_string(&hosts)
            .unwrap()
            .contains("10.9.8.7 web2")
    );
    rig.kill_agent();
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    rig.start_agent();
    let generation = rig.master.until("another hello", |state| {
        let mut hellos = state.received.iter().filter_map(|up| {
            if let Up::Hello(hello) = up {
                Some(hello.cluster_facts_generation)
            } else {
                None
            }
        });
        hellos.nth(1)
    });
    assert_eq!(generation.await, 4);
    let text = std::fs::read_to_string(&hosts).unwrap();
    assert!(
        text.starts_with("127.0.0.1 localhost\n") && text.contains("10.9.8.7 web2"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_announced_and_leaves_runs_alone() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (begun, go) = (rig.path("begun"), rig.path("go"));
    rig.master
        .start(exec(
            1,
            &format!(
                "touch {}; until [ -e {} ]; do sleep 0.02; done; echo ok",
                begun.display(),
                go.display()
            ),
        ))
        .await;
    until(|| begun.exists());
    let status = rig.stop_agent().await;
    assert!(status.success(), "{status}");
    rig.master
        .until("a goodbye", |state| {
            state
                .received
                .iter()
                .any(|up| matches!(up, Up::GoingAway(_)))
                .then_some(())
        })
        .await;
    std::fs::write(go, "").unwrap();
    rig.start_agent();
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.stdout(), "ok\n", "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_is_announced_then_done() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master
        .send(Down::Reboot(Reboot {
            reason: "stage 1".into(),
        }))
        .await;
    rig.master
        .until("a goodbye", |state| {
            state
                .received
                .iter()
                .any(|up| matches!(up, Up::GoingAway(away) if away.reason.contains("stage 1")))
                .then_some(())
        })
        .await;
    let done = rig.path("rebooted");
    tokio::task::spawn_blocking(move || until(|| done.exists()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_answered_in_every_session() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let volume = Volume {
        volume_id: "vol-0a1b".into(),
        device: "/dev/sdf".into(),
        mount: "relative".into(),
        fs: String::new(),
    };
    for (id, volumes, words) in [
        (1, vec![], ""),
        (2, vec![volume], "vol-0a1b (/dev/sdf) at relative"),
        (3, vec![], ""),
    ] {
        rig.master
            .send(Down::Volumes(Volumes { id, volumes }))
            .await;
        let answer = rig.master.until("an answer to Volumes", |state| {
            state.received.iter().find_map(|up| match up {
                Up::VolumesMounted(mounted) if mounted.id == id => Some(mounted.clone()),
                _ => None,
            })
        });
        let error = answer.await.error;
        assert!(error.starts_with(words), "{error}");
        assert_eq!(error.is_empty(), words.is_empty(), "{error}");
        if id == 2 {
            rig.kill_agent();
            rig.start_agent();
            rig.master
                .until("another session", |state| {
                    (state.sessions == 2).then_some(())
                })
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_small() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master.builtin(1, "facts").await;
    let rollup =
        std::fs::read_to_string(format!("/proc/{}/smaps_rollup", rig.agent_pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .expect("a number of KiB")
    };
    println!(
        "Pss {} KiB, anonymous {} KiB",
        field("Pss:"),
        field("Anonymous:")
    );
    // A debug build's own memory; its code is another matter.
    assert!(field("Anonymous:") < 8 << 10, "{rollup}");
}
