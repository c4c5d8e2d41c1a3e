//! Lasting addresses: given, refused, and told of while a machine is down.

use super::*;

fn with_address() -> ClusterSpec {
    let mut wanted = spec(&[2], &[]);
    wanted.pools[0].machine.allocate_ip_address = true;
    wanted
}

#[test]
fn every_instance_that_wants_a_lasting_address_has_one_when_the_launch_ends() {
    let mut sim = Sim::new();
    sim.input(ask(&with_address(), &[]));
    sim.run_until_quiet();
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
    sim.run_until_quiet();
    assert_eq!(last_code(&sim), 1);
    let error = sim.world.clusters[&cluster()].launch.as_ref().unwrap();
    assert!(
        error.error.contains("a1 has no Elastic IP: no"),
        "{}",
        error.error
    );
    sim.no_address = None;
    sim.input(ask(&with_address(), &[]));
    sim.run_until_quiet();
    assert_eq!(last_code(&sim), 0);
}

#[test]
fn others_are_told_the_last_addresses_of_a_machine_that_is_down() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    let show = |sim: &mut Sim, state, public: Option<&str>| {
        for machine in sim.machines.values_mut().flatten() {
            machine.state = state;
            machine.public_ip = public.map(str::to_owned);
        }
        sim.input(Input::Poll { cluster: cluster() });
        sim.perform_all();
    };
    show(&mut sim, MachineState::Running, Some("192.0.2.1"));
    let generation = sim.world.clusters[&cluster()].generation;
    show(&mut sim, MachineState::Stopped, None);
    show(&mut sim, MachineState::Pending, None);
    assert_eq!(sim.world.clusters[&cluster()].generation, generation);
    show(&mut sim, MachineState::Running, Some("192.0.2.2"));
    assert_eq!(sim.world.clusters[&cluster()].generation, generation + 1);
}
