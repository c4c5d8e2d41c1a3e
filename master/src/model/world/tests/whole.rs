//! What a launch needs besides machines, machines that fail in every way, and ends that leave nothing.

use super::*;
use crate::model::file::{GroupAction, SecurityGroupSpec, SpotSpec, VolumeSpec};

fn done(sim: &mut Sim) {
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
}

fn run(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds / 2 {
        done(sim);
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    done(sim);
}

fn instance<'a>(sim: &'a Sim, name: &str) -> &'a Instance {
    sim.world.instance(&key(name)).expect("is there")
}

fn last_code(sim: &Sim) -> u32 {
    sim.ended.last().expect("ended").1
}

fn first_token(sim: &Sim) -> String {
    let batches = &sim.world.clusters[&cluster()].batches;
    batches.keys().next().expect("one batch").clone()
}

fn group() -> SecurityGroupSpec {
    SecurityGroupSpec {
        name: "g".into(),
        action: GroupAction::Create,
        allow_all_own_traffic: true,
        allow_ssh_from: Vec::new(),
        allow_inbound: Vec::new(),
    }
}

#[test]
fn no_machine_is_asked_for_before_the_ground_is_there() {
    let mut sim = Sim::new();
    sim.no_ground = Some(ErrorKind::Throttled);
    sim.input(ask(&spec(&[1], &[]), &[]));
    run(&mut sim, 20);
    assert_eq!(sim.calls, 0);
    assert!(sim.prepares > 2, "it is tried again");
    sim.crash();
    sim.no_ground = None;
    sim.settle();
    assert_eq!((sim.calls, last_code(&sim)), (1, 0));
    sim.input(ask(&spec(&[1], &[]), &[]));
    let before = sim.prepares;
    sim.settle();
    assert_eq!(sim.prepares, before, "nothing to make, nothing to stand on");
}

#[test]
fn a_ground_that_cannot_be_ends_the_launch_without_a_machine() {
    let mut sim = Sim::new();
    sim.no_ground = Some(ErrorKind::Denied);
    sim.input(ask(&spec(&[2], &[]), &[]));
    done(&mut sim);
    assert_eq!((sim.calls, last_code(&sim)), (0, 1));
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(instance(&sim, "a1").note, "no");
    sim.no_ground = None;
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}

#[test]
fn groups_are_looked_after_by_every_launch_even_when_no_machine_is_missing() {
    let mut wanted = spec(&[1], &[]);
    wanted.security_groups.push(group());
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &[]));
    sim.settle();
    assert_eq!(sim.prepares, 1);
    sim.input(ask(&wanted, &[]));
    sim.settle();
    assert_eq!((sim.prepares, sim.calls, last_code(&sim)), (2, 1, 0));
    let changed = |sim: &Sim| {
        sim.world.clusters[&cluster()]
            .launch
            .as_ref()
            .unwrap()
            .changed
    };
    assert!(!changed(&sim));
    sim.news = vec!["a rule was added".into()];
    sim.input(ask(&wanted, &[]));
    sim.settle();
    assert!(changed(&sim), "a rule is a change");
    sim.no_ground = Some(ErrorKind::Denied);
    sim.input(ask(&wanted, &[]));
    done(&mut sim);
    assert_eq!(last_code(&sim), 1, "a launch whose groups fail has failed");
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}

#[test]
fn spot_without_capacity_falls_back_only_where_the_file_says_so() {
    for fallback in [true, false] {
        let mut wanted = spec(&[1], &["big", "small"]);
        wanted.pools[0].machine.spot = Some(SpotSpec {
            max_price: None,
            fallback,
        });
        let mut sim = Sim::new();
        for kind in ["big", "small"] {
            sim.refuse.insert(kind.to_owned(), ErrorKind::NoCapacity);
        }
        sim.input(ask(&wanted, &[]));
        done(&mut sim);
        let batches = &sim.world.clusters[&cluster()].batches;
        let tried: BTreeSet<(usize, bool)> = batches
            .values()
            .map(|batch| (batch.choice.kind, batch.choice.on_demand))
            .collect();
        let mut all = BTreeSet::from([(0, false), (1, false)]);
        if fallback {
            all.extend([(0, true), (1, true)]);
        }
        assert_eq!(tried, all);
        assert_eq!(last_code(&sim), 1);
    }
}

#[test]
fn an_account_limit_of_one_type_moves_on_to_the_next() {
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::Quota);
    sim.input(ask(&spec(&[2], &["big", "small"]), &[]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}

fn with_address() -> ClusterSpec {
    let mut wanted = spec(&[2], &[]);
    wanted.pools[0].machine.allocate_ip_address = true;
    wanted
}

#[test]
fn every_instance_that_wants_a_lasting_address_has_one_when_the_launch_ends() {
    let mut sim = Sim::new();
    sim.input(ask(&with_address(), &[]));
    sim.settle();
    assert_eq!(last_code(&sim), 0);
    for name in ["a1", "a2"] {
        let instance = instance(&sim, name);
        assert_eq!(
            instance.elastic_ip.as_ref().expect("given").allocation,
            format!("eipalloc-{name}")
        );
    }
}

#[test]
fn a_refused_address_fails_the_launch_and_names_the_instance() {
    let mut sim = Sim::new();
    sim.no_address = Some(ErrorKind::Quota);
    sim.input(ask(&with_address(), &[]));
    sim.settle();
    assert_eq!(last_code(&sim), 1);
    let error = sim.world.clusters[&cluster()].launch.as_ref().unwrap();
    assert!(
        error.error.contains("a1 has no Elastic IP: no"),
        "{}",
        error.error
    );
    sim.no_address = None;
    sim.input(ask(&with_address(), &[]));
    sim.settle();
    assert_eq!(last_code(&sim), 0);
}

fn with_volume() -> ClusterSpec {
    let mut wanted = spec(&[1], &[]);
    wanted.provider = ProviderKind::Ec2;
    wanted.pools[0].machine.volumes = vec![VolumeSpec {
        device: "/dev/sdf".into(),
        size_gib: Some(1),
        kind: None,
        iops: None,
        throughput: None,
        snapshot: None,
        encrypted: None,
        delete_on_termination: true,
        mount: Some("/data".into()),
        fs: Some("xfs".into()),
    }];
    wanted
}

fn show_volumes(sim: &mut Sim) {
    for machine in sim.machines.values_mut().flatten() {
        machine.volumes = vec![AttachedVolume {
            device: "/dev/sdf".into(),
            id: "vol-1".into(),
        }];
    }
}

#[test]
fn no_stage_starts_before_the_volumes_are_mounted() {
    let mut sim = Sim::new();
    sim.input(ask(&with_volume(), &["one"]));
    done(&mut sim);
    sim.agents_move();
    run(&mut sim, 10);
    assert!(
        sim.mounted.is_empty() && sim.started.is_empty(),
        "the disk is not shown yet"
    );
    show_volumes(&mut sim);
    sim.settle();
    assert_eq!(sim.mounted.len(), 1);
    let volume = &sim.mounted[0].1[0];
    assert_eq!(
        (
            volume.volume_id.as_str(),
            volume.mount.as_str(),
            volume.fs.as_str()
        ),
        ("vol-1", "/data", "xfs")
    );
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    // Every session is asked again: the machine may have been rebooted.
    let session = instance(&sim, "a1").session.expect("connected");
    sim.input(Input::Closed {
        at: key("a1"),
        session,
        why: String::new(),
    });
    sim.agents.get_mut(&key("a1")).unwrap().session = None;
    sim.agents_move();
    done(&mut sim);
    assert_eq!(sim.mounted.len(), 2);
}

#[test]
fn a_volume_that_cannot_be_mounted_fails_its_instance_and_can_be_tried_again() {
    let mut sim = Sim::new();
    sim.no_volume = "vol-1 (/dev/sdf): no".into();
    sim.input(ask(&with_volume(), &["one"]));
    done(&mut sim);
    show_volumes(&mut sim);
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(instance(&sim, "a1").note, "vol-1 (/dev/sdf): no");
    assert!(sim.started.is_empty());
    sim.no_volume.clear();
    sim.input(ask(&with_volume(), &["one"]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert_eq!(sim.started.len(), 1);
}

#[test]
fn a_disk_that_is_never_shown_is_not_waited_for_for_ever() {
    let mut sim = Sim::new();
    sim.input(ask(&with_volume(), &["one"]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert!(instance(&sim, "a1").note.contains("shows no disk"));
}

#[test]
fn a_silent_machine_is_explained_and_made_again_as_often_as_the_file_says() {
    let mut wanted = spec(&[2], &[]);
    wanted.launch.replace = 1;
    let mut sim = Sim::new();
    sim.silent.insert("a2".to_owned());
    sim.input(ask(&wanted, &["one"]));
    sim.settle();
    let found = instance(&sim, "a2");
    assert_eq!((found.phase, found.attempt), (Phase::Failed, 2));
    assert!(
        found.note.contains("never called home") && found.explanation.contains("impaired"),
        "{} {}",
        found.note,
        found.explanation
    );
    assert_eq!((sim.alive(), sim.calls), (2, 2), "the first one is ended");
    sim.silent.clear();
    sim.input(ask(&wanted, &["one"]));
    sim.settle();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 2)
    );
}

#[test]
fn a_replaced_machine_is_terminated_even_when_the_master_dies_before_the_call() {
    let mut wanted = spec(&[1], &[]);
    wanted.launch.replace = 1;
    let mut sim = Sim::new();
    sim.silent.insert("a1".to_owned());
    sim.input(ask(&wanted, &[]));
    done(&mut sim);
    sim.now += 601_000;
    sim.input(Input::Tick);
    while instance(&sim, "a1").attempt == 1 {
        sim.perform(0);
    }
    sim.crash(); // the intent to terminate is all that is left
    assert_eq!(sim.world.clusters[&cluster()].strays.len(), 1);
    sim.silent.clear();
    sim.agents.clear();
    sim.settle();
    run(&mut sim, 10);
    assert_eq!(sim.alive(), 1);
    assert!(sim.world.clusters[&cluster()].strays.is_empty());
}

#[test]
fn machines_that_show_up_after_a_rollback_are_ended() {
    let mut wanted = spec(&[1], &[]);
    wanted.launch.on_failure = OnFailure::Rollback;
    let mut sim = Sim::new();
    sim.refuse.insert(String::new(), ErrorKind::Unavailable);
    sim.input(ask(&wanted, &[]));
    run(&mut sim, 610);
    assert_eq!(last_code(&sim), 1);
    let token = first_token(&sim);
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    let calls = sim.calls;
    run(&mut sim, 130);
    assert_eq!(
        (sim.alive(), sim.calls),
        (0, calls),
        "a launch that is over asks for nothing"
    );
}

/// Everything that is pending but calls for machines.
fn all_but_launches(sim: &mut Sim) {
    let other = |effect: &Effect| !matches!(effect, Effect::CallLaunch { .. });
    while let Some(at) = sim.pending.iter().position(other) {
        sim.perform(at);
    }
}

/// A launch of one machine whose call gets no answer until the launch is over.
fn outlived_call(types: &[&str]) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], types), &[]));
    for _ in 0..310 {
        all_but_launches(&mut sim);
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    all_but_launches(&mut sim);
    assert_eq!(last_code(&sim), 1, "the time is up");
    sim
}

#[test]
fn a_call_that_fails_after_its_launch_is_followed_by_no_other() {
    for kind in [ErrorKind::NoCapacity, ErrorKind::Throttled] {
        let mut sim = outlived_call(&["big", "small"]);
        sim.refuse.insert("big".to_owned(), kind);
        run(&mut sim, 120);
        assert_eq!(sim.calls, 1, "nobody waits for a machine any more");
        assert_eq!(instance(&sim, "a1").phase, Phase::Failed);
    }
}

#[test]
fn what_a_call_has_made_is_shown_before_its_answer() {
    let mut sim = outlived_call(&[]);
    let token = first_token(&sim);
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    for _ in 0..2 {
        sim.now += 2_000;
        sim.input(Input::Tick);
        all_but_launches(&mut sim);
    }
    assert!(instance(&sim, "a1").has_machine(), "the table shows it");
    run(&mut sim, 4);
    assert_eq!((sim.alive(), sim.calls), (1, 1), "its answer says the same");
}

#[test]
fn what_an_unclear_answer_after_the_launch_left_behind_is_seen_soon() {
    let mut sim = outlived_call(&[]);
    sim.lose = true;
    sim.perform(0);
    let made = std::mem::take(&mut sim.machines);
    run(&mut sim, 4); // not shown at once
    sim.machines = made;
    run(&mut sim, 4);
    assert!(instance(&sim, "a1").has_machine(), "the table shows it");
}

#[test]
fn what_carries_the_tags_of_no_call_of_ours_is_left_alone() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.settle();
    sim.machines
        .insert("foreign".into(), vec![machine("foreign", 0)]);
    sim.input(Input::Poll { cluster: cluster() });
    done(&mut sim);
    assert_eq!(sim.alive(), 2);
    sim.input(Input::Cleanup { cluster: cluster() });
    run(&mut sim, 10);
    assert_eq!(
        sim.alive(),
        0,
        "a cleanup takes along whatever has the cluster's tag"
    );
    assert!(sim.world.clusters.is_empty());
}

#[test]
fn a_cleanup_waits_until_a_call_without_an_answer_can_show_no_more_machines() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.perform(1); // the ground; 0 is the event
    while !sim
        .pending
        .iter()
        .any(|effect| matches!(effect, Effect::CallLaunch { .. }))
    {
        sim.perform(0);
    }
    sim.crash(); // the call may have been made
    let token = first_token(&sim);
    sim.input(Input::Cleanup { cluster: cluster() });
    run(&mut sim, 20);
    assert!(!sim.world.clusters.is_empty(), "it may still show up");
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    run(&mut sim, 60);
    assert_eq!(sim.alive(), 0);
    assert!(sim.world.clusters.is_empty());
}

#[test]
fn what_is_left_is_deleted_by_one_call_at_a_time() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.settle();
    sim.input(Input::Cleanup { cluster: cluster() });
    let mut sweeps = 0;
    for _ in 0..10 {
        while let Some(at) = sim
            .pending
            .iter()
            .position(|effect| !matches!(effect, Effect::CallCleanup { .. }))
        {
            sim.perform(at);
        }
        sweeps = sim.pending.len();
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    assert_eq!(sweeps, 1, "it waits for the first one's answer");
    run(&mut sim, 10);
    assert!(sim.world.clusters.is_empty());
}

#[test]
fn a_launch_starts_stopped_machines_and_waits_for_their_agents() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.settle();
    for machine in sim.machines.values_mut().flatten() {
        machine.state = MachineState::Stopped;
    }
    for name in ["a1", "a2"] {
        let session = instance(&sim, name).session.expect("connected");
        sim.input(Input::Closed {
            at: key(name),
            session,
            why: String::new(),
        });
        sim.agents.get_mut(&key(name)).unwrap().session = None;
    }
    sim.input(Input::Poll { cluster: cluster() });
    done(&mut sim);
    assert_eq!(instance(&sim, "a1").state(), "stopped");
    assert!(matches!(
        sim.input(ask(&spec(&[2], &[]), &[])),
        Answer::Started(_)
    ));
    run(&mut sim, 10);
    assert!(
        sim.world.clusters[&cluster()].launching(),
        "their agents are not back"
    );
    sim.settle();
    assert_eq!(last_code(&sim), 0);
    assert!(
        sim.machines
            .values()
            .flatten()
            .all(|m| m.state == MachineState::Running)
    );
}

#[test]
fn an_old_machine_that_the_provider_no_longer_knows_is_gone_and_a_new_one_is_not() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.settle();
    let id = instance(&sim, "a1").machine_id().unwrap().clone();
    let unknown = |sim: &mut Sim| {
        sim.input(Input::Terminated {
            cluster: cluster(),
            unknown: vec![id.clone()],
            error: None,
        })
    };
    let young = std::time::UNIX_EPOCH + Duration::from_millis(sim.now);
    for machine in sim.machines.values_mut().flatten() {
        machine.launched_at = Some(young);
    }
    sim.input(Input::Poll { cluster: cluster() });
    done(&mut sim);
    unknown(&mut sim);
    assert_eq!(instance(&sim, "a1").phase, Phase::Ready);
    sim.now += 301_000;
    unknown(&mut sim);
    assert_eq!(instance(&sim, "a1").phase, Phase::Gone);
}

#[test]
fn others_are_told_the_last_addresses_of_a_machine_that_is_down() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.settle();
    let show = |sim: &mut Sim, state, public: Option<&str>| {
        for machine in sim.machines.values_mut().flatten() {
            machine.state = state;
            machine.public_ip = public.map(str::to_owned);
        }
        sim.input(Input::Poll { cluster: cluster() });
        done(sim);
    };
    show(&mut sim, MachineState::Running, Some("192.0.2.1"));
    let generation = sim.world.clusters[&cluster()].generation;
    show(&mut sim, MachineState::Stopped, None);
    show(&mut sim, MachineState::Pending, None);
    assert_eq!(sim.world.clusters[&cluster()].generation, generation);
    show(&mut sim, MachineState::Running, Some("192.0.2.2"));
    assert_eq!(sim.world.clusters[&cluster()].generation, generation + 1);
}
