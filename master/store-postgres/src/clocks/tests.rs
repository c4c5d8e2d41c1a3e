use super::*;

/// Nobody else is there.
fn alone(check: &mut ClockCheck, reading: ClockReading) -> ClockFinding {
    check.read(reading, &BTreeMap::new())
}

/// The clocks of a host and of its database, in milliseconds.
#[derive(Clone, Copy)]
struct Clocks {
    boot: u64,
    wall: u64,
    database: u64,
}

impl Clocks {
    fn new() -> Self {
        Self {
            boot: 500_000,
            wall: 1_000_000_000,
            database: 1_000_000_000,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            since_boot: Duration::from_millis(self.boot),
            since_1970: Duration::from_millis(self.wall),
        }
    }

    /// All continue.
    fn pass(&mut self, ms: u64) {
        self.boot += ms;
        self.wall += ms;
        self.database += ms;
    }

    /// The host stands still, and does not know of it.
    fn suspend(&mut self, ms: u64) {
        self.database += ms;
    }

    /// A beat whose ways there and back take so long.
    fn beat(&mut self, there: u64, back: u64) -> ClockReading {
        let sent = self.moment();
        self.pass(there);
        let database = Duration::from_millis(self.database);
        self.pass(back);
        ClockReading {
            sent,
            answered: self.moment(),
            database,
        }
    }
}

#[test]
fn clocks_that_go_alike_are_trusted_however_long_the_ways_take() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    for (there, back) in [(0, 0), (1900, 0), (0, 1900), (1, 1), (1900, 1900)] {
        let finding = alone(&mut check, clocks.beat(there, back));
        assert!(finding.is_trusted() && !finding.is_new, "{finding:?}");
        clocks.pass(2000);
    }
    // After an outage of a day in which this host's clock lost half a minute.
    clocks.pass(86_400_000);
    clocks.suspend(30_000);
    assert!(alone(&mut check, clocks.beat(1, 1)).stood_still.is_zero());
}

#[test]
fn a_host_that_stood_still_is_trusted_once_a_beat_shows_that_it_goes() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    alone(&mut check, clocks.beat(1, 1));
    clocks.pass(2000);
    clocks.suspend(20_000);
    let finding = alone(&mut check, clocks.beat(1, 1));
    assert!(!finding.is_trusted());
    let stood_still = finding.stood_still.as_millis();
    assert!((19_990..=20_000).contains(&stood_still), "{stood_still}");
    // Put right by what resumed it.
    clocks.wall += 20_000;
    assert!(alone(&mut check, clocks.beat(1, 1)).is_trusted());
}

#[test]
fn a_host_that_was_suspended_between_a_beat_and_its_answer_is_found_out_by_the_next() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    let mut reading = clocks.beat(1, 0);
    clocks.suspend(20_000);
    reading.answered = clocks.moment();
    assert!(
        alone(&mut check, reading).is_trusted(),
        "nothing shows it yet"
    );
    clocks.pass(2000);
    assert!(!alone(&mut check, clocks.beat(1, 1)).is_trusted());
}

#[test]
fn a_clock_that_goes_at_half_its_speed_is_never_trusted() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    alone(&mut check, clocks.beat(1, 1));
    for _ in 0..5 {
        clocks.pass(2000);
        clocks.suspend(2000);
        assert!(!alone(&mut check, clocks.beat(1, 1)).is_trusted());
    }
}

#[test]
fn a_database_whose_clock_is_put_back_is_no_reason_to_doubt_a_hold() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    alone(&mut check, clocks.beat(1, 1));
    clocks.database -= 1500;
    clocks.pass(2000);
    assert!(alone(&mut check, clocks.beat(1, 1)).is_trusted());
}

#[test]
fn a_wall_clock_is_warned_of_once_and_far_off_it_counts_for_nothing() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    let mut at = |offset: i64| {
        clocks.pass(2000);
        let mut off = clocks;
        off.wall = off.wall.saturating_add_signed(offset);
        let other = Duration::from_millis(clocks.wall);
        check.read(off.beat(1, 1), &[("other".to_owned(), other)].into())
    };
    for (offset, wall, is_new) in [
        (1900, WallClock::Well, false),
        (-2100, WallClock::Off, true),
        (-2100, WallClock::Off, false),
        (-1500, WallClock::Off, false),
        (-900, WallClock::Well, true),
        (11_000, WallClock::FarOff, true),
        (11_000, WallClock::FarOff, false),
        (9000, WallClock::Off, true),
        (0, WallClock::Well, true),
        (-3_600_000, WallClock::FarOff, true),
        (0, WallClock::Well, true),
    ] {
        let finding = at(offset);
        assert_eq!((finding.wall, finding.is_new), (wall, is_new), "{offset}");
        assert_eq!(finding.is_trusted(), wall != WallClock::FarOff, "{offset}");
        if wall != WallClock::Well {
            assert_eq!(finding.offset.is_behind, offset < 0, "{offset}");
        }
    }
}

/// What comes of this many beats of two masters whose clocks are off by so much, in ms, where the database's is off by `database`.
fn of_two(database: i64, own: i64, other: i64, beats: usize) -> Vec<WallClock> {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    clocks.database = clocks.database.saturating_add_signed(database);
    let other_wall = |clocks: &Clocks| clocks.wall.saturating_add_signed(other);
    let mut found = Vec::new();
    for _ in 0..beats {
        // It wrote that down some time before it is read.
        let wrote = Duration::from_millis(other_wall(&clocks));
        clocks.pass(1500);
        let mut off = clocks;
        off.wall = off.wall.saturating_add_signed(own);
        let others = [("other".to_owned(), wrote)].into();
        found.push(check.read(off.beat(200, 200), &others).wall);
        clocks.pass(500);
    }
    found
}

#[test]
fn a_database_whose_clock_is_far_off_those_of_its_masters_stops_none_of_them() {
    for off in [-3_600_000, -13_000, 13_000, 3_600_000] {
        let found = of_two(off, 0, 300, 4);
        let want = [WallClock::Unsure]
            .into_iter()
            .chain([WallClock::DatabaseFarOff; 3]);
        assert_eq!(found, want.collect::<Vec<_>>(), "{off}");
        let mut check = ClockCheck::default();
        let mut clocks = Clocks::new();
        clocks.database = clocks.database.saturating_add_signed(off);
        let finding = alone(&mut check, clocks.beat(1, 1));
        assert!(finding.is_trusted() && finding.is_new, "{finding:?}");
    }
}

#[test]
fn a_master_that_another_one_and_the_database_are_against_does_nothing() {
    for off in [-3_600_000, -20_000, 20_000, 3_600_000] {
        let found = of_two(0, off, 0, 3);
        let want = [WallClock::Unsure, WallClock::FarOff, WallClock::FarOff];
        assert_eq!(found, want, "{off}");
        assert_eq!(of_two(0, 0, off, 3), [WallClock::Well; 3], "the other one");
    }
}

#[test]
fn a_clock_that_is_put_on_is_not_believed_for_what_was_said_before() {
    let (mut clocks, mut check) = (Clocks::new(), ClockCheck::default());
    let other = |clocks: &Clocks| Duration::from_millis(clocks.database);
    for at in 0..6 {
        let others = [("other".to_owned(), other(&clocks))].into();
        clocks.pass(2000);
        if at == 3 {
            clocks.wall += 60_000;
        }
        let finding = check.read(clocks.beat(1, 1), &others);
        let want = if at < 3 {
            WallClock::Well
        } else {
            WallClock::FarOff
        };
        assert_eq!(finding.wall, want, "{at}");
    }
    // After a time without the database nothing is known of the others, until they continue.
    clocks.pass(60_000);
    let others = [("other".to_owned(), other(&clocks))].into();
    let finding = check.read(clocks.beat(1, 1), &others);
    assert_eq!(finding.wall, WallClock::FarOff, "it stays as it was");
    clocks.wall -= 60_000;
    clocks.database += 60_000;
    let finding = alone(&mut check, clocks.beat(1, 1));
    assert_eq!(finding.wall, WallClock::DatabaseFarOff);
    // One that comes is asked first, and that is no reason to stop.
    clocks.pass(2000);
    let others = [("other".to_owned(), other(&clocks))].into();
    let finding = check.read(clocks.beat(1, 1), &others);
    assert_eq!(finding.wall, WallClock::DatabaseFarOff);
}
