//! The order, its spread, and where the next connection begins.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("10.0.0.{n}:7440")).collect()
}

fn order(settings: &[&str], named: &[&str]) -> DialOrder {
    let own = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    DialOrder::new("i-1", own(settings), own(named))
}

/// Of these machines, how many begin with each address.
fn load(masters: &[String], machines: &[String]) -> BTreeMap<String, usize> {
    let mut load = BTreeMap::new();
    for machine in machines {
        let first = permuted(machine, masters).swap_remove(0);
        *load.entry(first).or_default() += 1;
    }
    load
}

fn machines(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("i-0{n:016x}")).collect()
}

/// Whether each of them got its share of a fair draw, within four standard deviations. The machines are always the same.
fn is_fair(load: &BTreeMap<String, usize>, among: usize) -> bool {
    let (all, share) = (load.values().sum::<usize>() as f64, 1.0 / among as f64);
    let most = 4.0 * (all * share * (1.0 - share)).sqrt();
    let is_near = |load: &usize| (*load as f64 - all * share).abs() <= most;
    load.len() == among && load.values().all(is_near)
}

#[test]
fn a_thousand_machines_spread_evenly_over_the_masters() {
    for count in [2, 3, 7] {
        let load = load(&names(1..count + 1), &machines(1_000));
        assert!(is_fair(&load, count), "{load:?}");
    }
}

#[test]
fn the_machines_of_a_master_that_dies_spread_evenly_over_the_others() {
    for count in [3, 7] {
        let masters = names(1..count + 1);
        let (dead, rest) = masters.split_first().unwrap();
        let mut orphans = machines(10_000);
        orphans.retain(|machine| permuted(machine, &masters)[0] == *dead);
        let load = load(rest, &orphans);
        assert!(is_fair(&load, count - 1), "{load:?}");
    }
}

#[test]
fn the_order_is_the_same_in_every_version() {
    let order = permuted("i-0123456789abcdef0", &names(1..5));
    let last: Vec<&str> = order.iter().map(|it| &it[7..8]).collect();
    assert_eq!(last, ["1", "3", "4", "2"]);
}

proptest! {
    #[test]
    fn the_order_does_not_depend_on_the_lists_and_stays_when_an_address_goes(
        machine in "[a-z0-9-]{1,20}",
        masters in prop::collection::vec("[a-z]{1,8}:7440", 1..8),
        gone in 0usize..8,
    ) {
        let before = permuted(&machine, &masters);
        let backwards: Vec<String> = masters.iter().rev().cloned().collect();
        prop_assert_eq!(&before, &permuted(&machine, &backwards));
        let gone = &masters[gone % masters.len()];
        let rest: Vec<String> = masters.iter().filter(|it| *it != gone).cloned().collect();
        let expected: Vec<String> = before.into_iter().filter(|it| it != gone).collect();
        prop_assert_eq!(permuted(&machine, &rest), expected);
    }

    #[test]
    fn a_round_has_every_address_once(
        settings in prop::collection::vec("[a-e]:1", 1..5),
        named in prop::collection::vec("[c-g]:1", 0..5),
        failures in 0usize..12,
    ) {
        let mut order = DialOrder::new("i-1", settings.clone(), Vec::new());
        order.learn(&named);
        for _ in 0..failures {
            let next = order.round().swap_remove(0);
            order.failed(&next);
        }
        let mut round = order.round();
        round.sort();
        let mut all = [settings, named].concat();
        all.sort();
        all.dedup();
        prop_assert_eq!(round, all);
    }
}

#[test]
fn the_next_one_is_next_after_a_failure_and_the_same_one_after_a_session() {
    let mut order = order(&["a:1", "b:1", "c:1"], &[]);
    let begin = order.round();
    let rotated = |by: usize| {
        let mut round = begin.clone();
        round.rotate_left(by);
        round
    };
    order.failed(&begin[0]);
    assert_eq!(order.round(), rotated(1));
    order.reached(&begin[1]);
    assert_eq!(order.round(), rotated(1), "all that is opened beside it");
    order.failed(&begin[1]);
    assert_eq!(order.round(), rotated(2), "it was no session");
    order.failed(&begin[2]);
    assert_eq!(order.round(), begin);
    order.reached(&begin[2]);
    assert_eq!(order.round(), rotated(2), "also for what comes after it");
    order.failed("unknown:1");
    assert_eq!(order.round(), begin);
}

#[test]
fn what_a_master_named_goes_before_the_settings() {
    let mut order = order(&["a:1", "b:1"], &["x:1", "b:1"]);
    let round = order.round();
    assert_eq!(round[2], "a:1");
    assert_eq!(round.len(), 3, "{round:?}");
    // The session continues where it is, though that one is named no longer.
    order.reached("x:1");
    let named = ["y:1".to_owned(), "z:1".to_owned()];
    assert_eq!(order.learn(&named), Some(named.to_vec()));
    let round = order.round();
    assert_eq!(round[0], "x:1");
    assert_eq!(round.len(), 5, "{round:?}");
    order.failed("x:1");
    assert!(!order.round().contains(&"x:1".to_owned()));
    assert_eq!(order.learn(&named), None, "it is known");
    assert_eq!(order.learn(&[]), None, "of a master that names none");
    assert_eq!(order.round().len(), 4);
}

#[test]
fn of_what_a_master_names_only_what_can_be_dialled_is_used_and_not_without_end() {
    let mut order = order(&["a:1"], &[]);
    let long = format!("{}:7440", "m".repeat(MAX_ADDRESS_BYTES - 4));
    let bad = [
        "",
        "m",
        "m:0",
        ":1",
        "0.0.0.0:1",
        "[::]:1",
        "m n:1",
        "m\n:1",
        "\u{1b}[2J:1",
        "a:b:1",
        "é:1",
        "m/x:1",
        &long,
    ];
    let mut named: Vec<String> = bad.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(order.learn(&named), None);
    named.extend(["good:1".to_owned(), "good:1".to_owned()]);
    assert_eq!(order.learn(&named), Some(vec!["good:1".to_owned()]));
    let many = names(1..MAX_MASTERS + 10);
    assert_eq!(order.learn(&many), Some(many[..MAX_MASTERS].to_vec()));
}
