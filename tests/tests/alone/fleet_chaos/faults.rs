//! What goes wrong in a round, and when all is well again.

use std::time::{Duration, Instant};

use aot_tests::fleet::agents::SimulatedAgents;
use aot_tests::fleet::{Fleet, MASTERS};
use aot_tests::lab::dice::Dice;
use aot_tests::proxy::Parting;
use aot_tests::wait;

use super::LIMIT;

/// Until nearly all agents of what failed have a master again: of one whose port refuses, and of one that is silent, which is
/// replaced after 15 s, and whose agents wait for their silence of 20 s. With room for a slow machine.
const BACK: Duration = Duration::from_secs(30);
const BACK_FROM_SILENCE: Duration = Duration::from_secs(60);

/// Milliseconds between two looks for connections of machines that are to be broken.
const BREAK_EVERY: u64 = 300;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A master is killed, and not started again until others have its clusters.
    Killed,
    /// It is killed and started at once.
    Restarted,
    /// It does nothing for longer than it is waited for.
    Paused,
    /// Its way to the database is cut.
    CutOff,
    /// Nothing that is said on that way arrives, until much later.
    Muted,
    /// It is told to end.
    Stopped,
    /// It and another master don't reach each other for so many milliseconds. Where that is a cut, what machines have between
    /// them breaks too, again and again.
    Parted(Parting, u64),
    /// The database is killed, and away for so many milliseconds.
    Database(u64),
    /// It is killed after so many milliseconds, and its standby takes its place.
    FailOver(u64),
    /// The bucket is away for so many milliseconds.
    Bucket(u64),
}

/// All of them.
pub const KINDS: [Fault; 11] = [
    Fault::Killed,
    Fault::Database(0),
    Fault::Paused,
    Fault::Restarted,
    Fault::CutOff,
    Fault::Muted,
    Fault::Stopped,
    Fault::Parted(Parting::Cut, 0),
    Fault::Parted(Parting::Held, 0),
    Fault::FailOver(0),
    Fault::Bucket(0),
];

/// The faults of a case: every kind once in some order, then any.
pub fn faults(dice: &mut Dice, rounds: usize) -> Vec<Fault> {
    let mut left = KINDS.to_vec();
    let next = |_| {
        let at = dice.below(left.len() as u64);
        let fault = match left.is_empty() {
            true => *dice.one(&KINDS),
            false => left.swap_remove(usize::try_from(at).expect("below the length")),
        };
        match fault {
            Fault::Database(_) => Fault::Database(200 + dice.below(4_000)),
            Fault::FailOver(_) => Fault::FailOver(dice.below(2_000)),
            Fault::Bucket(_) => Fault::Bucket(200 + dice.below(8_000)),
            Fault::Parted(how, _) => Fault::Parted(how, 200 + dice.below(12_000)),
            other => other,
        }
    };
    (0..rounds).map(next).collect()
}

/// One fault, until all is well again.
pub fn round(fleet: &mut Fleet, agents: &mut SimulatedAgents, dice: &mut Dice, fault: Fault) {
    // Of one that has nothing a fault would show little.
    let with_clusters = (0..MASTERS).filter(|at| !fleet.clusters_of(0, *at).is_empty());
    let victim = *dice.one(&with_clusters.collect::<Vec<_>>());
    agents.mark();
    match fault {
        Fault::Parted(..) | Fault::Database(_) | Fault::FailOver(_) | Fault::Bucket(_) => {
            let broken = outage(fleet, victim, fault);
            let state = agents.until_attached(LIMIT);
            let lost = state.since_mark.lost;
            println!(
                "{fault:?}: {broken} connections of machines were broken, {lost} sessions lost"
            );
            assert!(
                lost <= broken,
                "{fault:?} ends no session by itself: {lost}"
            );
        }
        _ => loss(fleet, agents, victim, fault),
    }
}

/// Something that masters need is away for a while, and they keep what they have. How many connections of machines were broken.
fn outage(fleet: &mut Fleet, victim: usize, fault: Fault) -> usize {
    let other = (victim + 1) % MASTERS;
    let mut broken = 0;
    match fault {
        Fault::Parted(how, ms) => {
            fleet.part(victim, other, how);
            let is_noticed = || fleet.parted(victim, other) > 0;
            wait::until(is_noticed, LIMIT, "one of them calls the other");
            let began = Instant::now();
            while how == Parting::Cut && began.elapsed() < Duration::from_millis(ms) {
                broken += fleet.break_passed_on(victim, other);
                pass(BREAK_EVERY);
            }
            if how == Parting::Held {
                pass(ms);
            }
            fleet.join(victim, other);
        }
        Fault::Database(ms) => {
            fleet.server().kill();
            pass(ms);
            fleet.server().run();
        }
        Fault::FailOver(ms) => {
            let done = fleet.fail_over(Duration::from_millis(ms));
            done.expect("PostgreSQL is here");
        }
        Fault::Bucket(ms) => {
            let before = fleet.bucket().failed();
            fleet.bucket().go_away();
            let is_noticed = || fleet.bucket().failed() > before;
            wait::until(is_noticed, LIMIT, "something long is to be put");
            pass(ms);
            fleet.bucket().come_back();
        }
        other => unreachable!("{other:?} takes a master's sessions"),
    }
    let began = Instant::now();
    for master in &fleet.masters {
        let answers = || master.run(&["masters"]).code == Some(0);
        wait::until(answers, LIMIT, "the database is heard");
    }
    println!(
        "{fault:?}: all masters answer after {:.1?}",
        began.elapsed()
    );
    broken
}

/// A master is lost, and its sessions with it.
fn loss(fleet: &mut Fleet, agents: &mut SimulatedAgents, victim: usize, fault: Fault) {
    let asked = (victim + 1) % MASTERS;
    let had = fleet.clusters_of(asked, victim);
    let lost: usize = had.iter().map(|name| fleet.size(name)).sum();
    let began = Instant::now();
    let master = &mut fleet.masters[victim];
    match fault {
        Fault::Paused => master.pause(),
        Fault::CutOff => master.way().cut(),
        Fault::Muted => master.way().mute(),
        Fault::Stopped => master.stop(),
        _ => master.kill(),
    }
    match fault {
        Fault::Restarted => fleet.masters[victim].serve(),
        _ => others_have(fleet, asked, victim, &had),
    }
    let taken = began.elapsed();
    let state = agents.until_back(lost, LIMIT);
    let most = Duration::from_millis(state.since_mark.most_ms.unwrap_or_default());
    println!(
        "{fault:?} of m{}: {had:?} elsewhere after {taken:.1?}; of {} that lost their session 99 % are back after {most:.1?}",
        victim + 1,
        state.since_mark.lost,
    );
    let limit = match fault {
        Fault::Paused | Fault::CutOff | Fault::Muted => BACK_FROM_SILENCE,
        _ => BACK,
    };
    assert!(most < limit, "{fault:?}: {most:?}");
    let master = &mut fleet.masters[victim];
    match fault {
        Fault::Killed | Fault::Stopped => master.serve(),
        Fault::Paused => master.resume(),
        Fault::CutOff | Fault::Muted => master.way().mend(),
        _ => {}
    }
    let lives = || {
        let mut says = fleet.says(asked).into_iter();
        says.any(|(at, it)| at == victim && it["alive"] == true)
    };
    wait::until(lives, LIMIT, "it takes part again");
}

/// It is so for this many milliseconds.
fn pass(ms: u64) {
    let _ = wait::maybe(|| None::<()>, Duration::from_millis(ms));
}

/// Waits until other masters have these clusters.
fn others_have(fleet: &Fleet, asked: usize, victim: usize, clusters: &[String]) {
    for cluster in clusters {
        let taken = || {
            fleet
                .owner(asked, cluster)
                .is_some_and(|owner| owner != victim)
        };
        wait::until(taken, LIMIT, &format!("{cluster} has another owner"));
    }
}
