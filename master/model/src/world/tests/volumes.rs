//! Volumes that are to be mounted before any stage.

use super::*;
use crate::spec::VolumeSpec;

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
    sim.perform_all();
    sim.agents_move();
    run(&mut sim, 10);
    assert!(
        sim.mounted.is_empty() && sim.started.is_empty(),
        "the disk is not shown yet"
    );
    show_volumes(&mut sim);
    sim.run_until_quiet();
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
    sim.agent(
        key("a1"),
        session,
        AgentInput::Closed { why: String::new() },
    );
    sim.agents.get_mut(&key("a1")).unwrap().session = None;
    sim.agents_move();
    sim.perform_all();
    assert_eq!(sim.mounted.len(), 2);
}

#[test]
fn a_volume_that_cannot_be_mounted_fails_its_instance_and_can_be_tried_again() {
    let mut sim = Sim::new();
    sim.no_volume = "vol-1 (/dev/sdf): no".into();
    sim.input(ask(&with_volume(), &["one"]));
    sim.perform_all();
    show_volumes(&mut sim);
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(instance(&sim, "a1").note, "vol-1 (/dev/sdf): no");
    assert!(sim.started.is_empty());
    sim.no_volume.clear();
    sim.input(ask(&with_volume(), &["one"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert_eq!(sim.started.len(), 1);
}

#[test]
fn a_disk_that_is_never_shown_is_not_waited_for_for_ever() {
    let mut sim = Sim::new();
    sim.input(ask(&with_volume(), &["one"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert!(instance(&sim, "a1").note.contains("shows no disk"));
}
