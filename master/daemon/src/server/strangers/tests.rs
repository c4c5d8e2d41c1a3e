//! Who has to go for whom.

use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits {
    open: 6,
    strangers: 4,
    of_one: 3,
    passed_on: 2,
    passed_on_of_one: 1,
};

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn has_to_go(evicted: &mut Evicted) -> bool {
    evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

fn assert_is_empty(strangers: &Strangers) {
    let table = strangers.table();
    assert_eq!(table.open, 0);
    assert!(table.strangers.is_empty() && table.passed_on.is_empty());
}

#[test]
fn the_oldest_of_an_address_goes_for_its_next_one_and_others_are_left_alone() {
    let strangers = Strangers::new(LIMITS);
    let mut other = strangers.enter(address(2)).expect("a place");
    let mut held: Vec<_> = (0..3)
        .map(|_| strangers.enter(address(1)).expect("a place"))
        .collect();
    held.push(strangers.enter(address(1)).expect("the oldest goes"));
    let gone: Vec<bool> = held.iter_mut().map(|(_, gone)| has_to_go(gone)).collect();
    assert_eq!(gone, [true, false, false, false]);
    assert!(!has_to_go(&mut other.1));
}

#[test]
fn who_waits_for_us_or_has_shown_a_token_is_not_let_go() {
    let strangers = Strangers::new(LIMITS);
    let mut held: Vec<_> = (0..3)
        .map(|_| strangers.enter(address(1)).expect("a place"))
        .collect();
    held.iter().for_each(|(stay, _)| stay.stays());
    assert!(
        strangers.enter(address(1)).is_none(),
        "it is refused instead"
    );
    assert!(strangers.enter(address(2)).is_some(), "others are not");
    held[1].0.is_waited_for();
    assert!(strangers.enter(address(1)).is_some());
    assert!(has_to_go(&mut held[1].1));
}

#[test]
fn who_shows_a_certificate_leaves_its_place_to_others() {
    let strangers = Strangers::new(LIMITS);
    let agents: Vec<_> = (0..4)
        .map(|_| {
            let (stay, _) = strangers.enter(address(1)).expect("a place");
            stay.is_known();
            stay
        })
        .collect();
    let one = strangers.enter(address(1)).expect("a place");
    one.0.stays();
    let two = strangers.enter(address(1)).expect("a place");
    two.0.stays();
    assert!(
        strangers.enter(address(1)).is_none(),
        "all descriptors are used"
    );
    drop(agents);
    assert!(strangers.enter(address(1)).is_some());
}

#[test]
fn what_is_dropped_leaves_nothing_behind() {
    let strangers = Strangers::new(LIMITS);
    for round in 0..100 {
        let (stay, _evicted) = strangers.enter(address(round)).expect("a place");
        stay.stays();
    }
    assert_is_empty(&strangers);
}

#[test]
fn a_network_of_ipv6_has_one_share() {
    let of = |text: &str| shared_by(text.parse().expect("an address"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
}

#[test]
fn few_descriptors_leave_some_for_operators_and_files() {
    let few = ConnectionLimits::of(1024);
    assert_eq!((few.open, few.strangers, few.of_one), (896, 512, 256));
    assert_eq!((few.passed_on, few.passed_on_of_one), (128, 64));
    let many = ConnectionLimits::of(524_288);
    assert_eq!((many.strangers, many.passed_on), (MOST, 65_536));
}

#[test]
fn passed_on_ones_have_limits_of_their_own_and_the_oldest_goes() {
    let strangers = Strangers::new(LIMITS);
    let pass = |last| {
        let (stay, evicted) = strangers.enter(address(last)).expect("a place");
        assert!(stay.goes_on());
        (stay, evicted)
    };
    let mut first = pass(1);
    let mut second = pass(1);
    assert!(has_to_go(&mut first.1), "one of an address");
    let mut third = pass(2);
    assert!(!has_to_go(&mut second.1), "two in all");
    drop(first);
    assert_eq!(strangers.table().open, 4, "two descriptors each");
    let _fourth = pass(3);
    assert!(has_to_go(&mut second.1) && !has_to_go(&mut third.1));
}

#[test]
fn strangers_that_come_in_numbers_go_before_those_that_are_passed_on() {
    let strangers = Strangers::new(LIMITS);
    let (stay, mut passed_on) = strangers.enter(address(1)).expect("a place");
    assert!(stay.goes_on());
    let mut held: Vec<_> = (2..6)
        .map(|last| strangers.enter(address(last)).expect("a place"))
        .collect();
    assert_eq!(strangers.table().open, 6, "all that may be open");
    held.push(strangers.enter(address(6)).expect("the oldest goes"));
    assert!(has_to_go(&mut held[0].1) && !has_to_go(&mut passed_on));
    held.iter().for_each(|(stay, _)| stay.stays());
    held.remove(0);
    assert!(
        strangers.enter(address(7)).is_none(),
        "those without a certificate are too many"
    );
    held[0].0.is_known();
    assert!(strangers.enter(address(7)).is_some());
    assert!(has_to_go(&mut passed_on), "there is no other left");
}

#[test]
fn one_that_was_let_go_is_not_passed_on_and_one_that_lasted_is_let_go_for_nobody() {
    let strangers = Strangers::new(LIMITS);
    let (stay, mut evicted) = strangers.enter(address(1)).expect("a place");
    assert!(strangers.evict_oldest() && has_to_go(&mut evicted));
    assert!(!stay.goes_on());
    drop(stay);
    let (stay, _evicted) = strangers.enter(address(1)).expect("a place");
    assert!(stay.goes_on());
    stay.has_lasted();
    assert!(!strangers.evict_oldest(), "there is none to let go");
    drop(stay);
    assert_is_empty(&strangers);
}
