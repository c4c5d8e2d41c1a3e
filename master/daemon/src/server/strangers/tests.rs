//! Who has to go for whom.

use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits {
    open: 6,
    strangers: 4,
    of_one: 3,
    passed_on: 2,
    passed_on_of_one: 1,
    requests: 3,
    requests_of_one: 2,
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
    assert!(table.requests.is_empty());
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
    assert_eq!((few.requests, few.requests_of_one), (64, 32));
    let many = ConnectionLimits::of(524_288);
    assert_eq!((many.strangers, many.passed_on), (MOST, 65_536));
    assert_eq!((many.requests, many.requests_of_one), (1024, 512));
}

/// Whether one continues at once.
fn goes_on(stay: &Stay) -> bool {
    matches!(stay.try_to_go_on(), GoesOn::Now)
}

#[test]
fn passed_on_ones_have_limits_of_their_own_and_nobody_goes_for_another() {
    let strangers = Strangers::new(LIMITS);
    let come = |last| strangers.enter(address(last)).expect("a place");
    let (mut first, mut second) = (come(1), come(1));
    assert!(goes_on(&first.0));
    assert!(!goes_on(&second.0), "one of an address");
    let mut third = come(2);
    assert!(goes_on(&third.0));
    let fourth = come(3);
    assert!(!goes_on(&fourth.0), "two in all");
    assert_eq!(strangers.table().open, 6, "two descriptors each of two");
    for stays in [&mut first, &mut second, &mut third] {
        assert!(!has_to_go(&mut stays.1));
    }
    drop(first);
    assert!(goes_on(&fourth.0));
    drop((second, third, fourth));
    assert_is_empty(&strangers);
}

#[tokio::test(start_paused = true)]
async fn one_that_finds_no_place_waits_for_it_and_not_without_end() {
    let strangers = Strangers::new(LIMITS);
    let within = |seconds| Instant::now() + Duration::from_secs(seconds);
    let (first, _first) = strangers.enter(address(1)).expect("a place");
    assert!(first.goes_on(within(0)).await);
    let (second, _second) = strangers.enter(address(1)).expect("a place");
    let began = Instant::now();
    assert!(!second.goes_on(within(8)).await);
    assert_eq!(began.elapsed(), Duration::from_secs(8));
    let leaves = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(first);
    };
    let began = Instant::now();
    let (goes_on, ()) = tokio::join!(second.goes_on(within(8)), leaves);
    assert!(goes_on);
    assert_eq!(began.elapsed(), Duration::from_millis(1_500), "it is told");
    // One that is let go meanwhile waits for nothing.
    let (third, _third) = strangers.enter(address(1)).expect("a place");
    let is_let_go = async { assert!(strangers.evict_oldest()) };
    let (goes_on, ()) = tokio::join!(third.goes_on(within(8)), is_let_go);
    assert!(!goes_on);
}

#[test]
fn nobody_comes_to_the_place_of_one_that_is_passed_on() {
    let strangers = Strangers::new(LIMITS);
    let (stay, mut passed_on) = strangers.enter(address(1)).expect("a place");
    assert!(goes_on(&stay));
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
    assert!(
        strangers.enter(address(7)).is_none(),
        "no descriptor is left"
    );
    assert!(!has_to_go(&mut passed_on));
    // Where the system has none, nobody could be accepted any more.
    assert!(strangers.evict_oldest());
    assert!(has_to_go(&mut passed_on), "there is no other left");
}

#[test]
fn one_that_was_let_go_is_not_passed_on_and_one_that_lasted_is_let_go_for_nobody() {
    let strangers = Strangers::new(LIMITS);
    let (stay, mut evicted) = strangers.enter(address(1)).expect("a place");
    assert!(strangers.evict_oldest() && has_to_go(&mut evicted));
    assert!(!goes_on(&stay));
    drop(stay);
    let (stay, _evicted) = strangers.enter(address(1)).expect("a place");
    assert!(goes_on(&stay));
    stay.has_lasted();
    assert!(!strangers.evict_oldest(), "there is none to let go");
    drop(stay);
    assert_is_empty(&strangers);
}

#[test]
fn requests_that_are_passed_on_have_a_number_of_their_own_and_count_among_the_descriptors() {
    let strangers = Strangers::new(LIMITS);
    let held: Vec<_> = [1, 1, 1, 2]
        .map(|last| strangers.enter(address(last)).expect("a place"))
        .into();
    held.iter().for_each(|(stay, _)| stay.stays());
    let stay = |at: usize| &held[at].0;
    let first = stay(0).passes_request().expect("there is room");
    let second = stay(1).passes_request().expect("there is room");
    assert!(stay(2).passes_request().is_none(), "two are of its address");
    assert_eq!(strangers.table().open, 6);
    assert!(stay(3).passes_request().is_none(), "no descriptor is left");
    drop(first);
    assert_eq!(strangers.table().open, 5);
    let third = stay(3).passes_request().expect("there is room again");
    drop((second, third, held));
    assert_is_empty(&strangers);
}

#[test]
fn a_stranger_that_is_waited_for_goes_for_a_request_that_is_passed_on() {
    let limits = ConnectionLimits { open: 2, ..LIMITS };
    let strangers = Strangers::new(limits);
    let (asker, _evicted) = strangers.enter(address(1)).expect("a place");
    let mut idle = strangers.enter(address(2)).expect("a place");
    asker.stays();
    let _request = asker.passes_request().expect("another one goes");
    assert!(has_to_go(&mut idle.1));
}
