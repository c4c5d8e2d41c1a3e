//! Any order of effects, with a crash of the master wherever one may be.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The master is killed wherever the numbers say, effects are done in any order, and `launch` comes again now and
    /// then: one set of machines, each stage once everywhere, all ready.
    #[test]
    fn any_order_and_any_crash_gives_one_set_of_machines_and_each_stage_once(
        moves in prop::collection::vec((0usize..7, any::<prop::sample::Index>()), 0..120),
        batch in 1usize..6,
    ) {
        let mut wanted = spec(&[1, 3], &[]);
        wanted.pools[1].machine.allocate_ip_address = true;
        let mut sim = Sim::new();
        sim.batch = batch;
        sim.input(ask(&wanted, &["one", "two"]));
        for (what, index) in moves {
            match what {
                0 => sim.crash(),
                1 => { sim.input(ask(&wanted, &["one", "two"])); }
                2 => sim.agents_move(),
                3 => { sim.now += 700; sim.input(Input::Tick); }
                4 => sim.lose = true,
                _ if !sim.pending.is_empty() => sim.perform(index.index(sim.pending.len())),
                _ => {}
            }
        }
        sim.crash();
        sim.input(ask(&wanted, &["one", "two"]));
        sim.run_until_quiet();
        prop_assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
        prop_assert_eq!(sim.alive(), 4, "machines: {:?}", sim.machines.keys());
        let found = &sim.world.clusters[&cluster()];
        prop_assert_eq!(found.instances.values().filter(|i| i.elastic_ip.is_some()).count(), 3);
        prop_assert!(found.strays.is_empty());
        prop_assert_eq!(sim.started.len(), 8);
        prop_assert!(sim.started.values().all(|count| *count == 1), "{:?}", sim.started);
    }
}
