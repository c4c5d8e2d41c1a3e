//! Who is attached to what, and how long who was away.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::super::plan::AgentsPlan;
use super::runs::Start;

/// What all agents of a process have seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AgentsState {
    /// Agents with a session.
    pub attached: usize,
    /// The same by cluster.
    pub by_cluster: BTreeMap<String, usize>,
    /// The same by the address that was dialled.
    pub doors: BTreeMap<String, usize>,
    /// The epochs of the owners that they are attached to, by cluster.
    pub epochs: BTreeMap<String, BTreeMap<i64, usize>>,
    /// Of the sessions that ended after the last mark.
    pub since_mark: SinceMark,
    /// Welcomes that were believed.
    pub attaches: u64,
    /// Welcomes with a lower epoch than a former one, which were left.
    pub lower_epochs: u64,
    /// Certificates that a master did not take; the last one's reason.
    pub refused: u64,
    /// Its reason.
    pub refused_why: String,
    /// How many agents have which cluster facts, by cluster: `GENERATION DIGEST`. Only of those that keep them.
    pub facts: BTreeMap<String, BTreeMap<String, usize>>,
    /// Runs that were started.
    pub starts: u64,
    /// Of which an agent was told that it start a run that it has.
    pub repeated_starts: u64,
    /// Of which an agent was told to start another run of the same job.
    pub double_starts: u64,
}

/// Who lost a session, and when who was back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SinceMark {
    /// Agents that lost a session.
    pub lost: usize,
    /// Of which have one again.
    pub back: usize,
    /// When half of them were back, in ms from the mark on.
    pub half_ms: Option<u64>,
    /// When 99 % were.
    pub most_ms: Option<u64>,
    /// When all were.
    pub all_ms: Option<u64>,
    /// How often cluster facts came as a whole,
    pub wholes: u64,
    /// and as a change.
    pub changes: u64,
}

/// One agent.
#[derive(Default)]
struct Seat {
    cluster: usize,
    /// Address and epoch of its session.
    session: Option<(usize, i64)>,
    has_been: bool,
    lost: bool,
    /// First welcome after the mark, and after the session was lost.
    back: Option<Instant>,
    /// The cluster facts that it keeps.
    facts: Option<String>,
}

struct BoardParts {
    seats: Vec<Seat>,
    clusters: Vec<String>,
    addresses: Vec<String>,
    mark: Instant,
    /// Cluster facts that have come since then, whole and as changes.
    sent: (u64, u64),
    counts: AgentsState,
}

/// Shared by all agents.
pub(super) struct Board(Mutex<BoardParts>);

impl Board {
    pub(super) fn new(plan: &AgentsPlan) -> Self {
        let seats = plan.clusters.iter().enumerate().flat_map(|(at, cluster)| {
            cluster.agents.clone().map(move |_| Seat {
                cluster: at,
                ..Seat::default()
            })
        });
        Self(Mutex::new(BoardParts {
            seats: seats.collect(),
            clusters: plan.clusters.iter().map(|it| it.name.clone()).collect(),
            addresses: Vec::new(),
            mark: Instant::now(),
            sent: (0, 0),
            counts: AgentsState::default(),
        }))
    }

    fn parts(&self) -> MutexGuard<'_, BoardParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_been_attached(&self, at: usize) -> bool {
        self.parts().seats[at].has_been
    }

    pub(super) fn attached(&self, at: usize, address: &str, epoch: i64) {
        let parts = &mut *self.parts();
        let known = parts.addresses.iter().position(|known| known == address);
        let address = known.unwrap_or_else(|| {
            parts.addresses.push(address.to_owned());
            parts.addresses.len() - 1
        });
        parts.counts.attaches += 1;
        let seat = &mut parts.seats[at];
        seat.session = Some((address, epoch));
        seat.has_been = true;
        if seat.lost {
            seat.back.get_or_insert_with(Instant::now);
        }
    }

    /// Cluster facts have come to somebody.
    pub(super) fn sent_facts(&self, is_whole: bool) {
        let sent = &mut self.parts().sent;
        *(if is_whole { &mut sent.0 } else { &mut sent.1 }) += 1;
    }

    /// It has these.
    pub(super) fn has_facts(&self, at: usize, which: String) {
        self.parts().seats[at].facts = Some(which);
    }

    /// Its session is over, if it had one.
    pub(super) fn left(&self, at: usize) {
        let seat = &mut self.parts().seats[at];
        if seat.session.take().is_some() {
            (seat.lost, seat.back) = (true, None);
        }
    }

    pub(super) fn left_for_its_epoch(&self, _at: usize) {
        self.parts().counts.lower_epochs += 1;
    }

    pub(super) fn refused(&self, at: usize, why: &str) {
        let counts = &mut self.parts().counts;
        counts.refused += 1;
        counts.refused_why = format!("agent {at}: {why}");
    }

    pub(super) fn started(&self, start: Start) {
        let counts = &mut self.parts().counts;
        match start {
            Start::New => counts.starts += 1,
            Start::Repeated => counts.repeated_starts += 1,
            Start::Double => counts.double_starts += 1,
        }
    }

    /// From now on, who loses a session counts anew.
    pub(super) fn mark(&self) {
        let parts = &mut *self.parts();
        parts.mark = Instant::now();
        parts.sent = (0, 0);
        for seat in &mut parts.seats {
            (seat.lost, seat.back) = (false, None);
        }
    }

    pub(super) fn state(&self) -> AgentsState {
        let parts = &*self.parts();
        let mut state = parts.counts.clone();
        for seat in &parts.seats {
            if let Some(facts) = &seat.facts {
                let cluster = parts.clusters[seat.cluster].clone();
                let of = state.facts.entry(cluster).or_default();
                *of.entry(facts.clone()).or_default() += 1;
            }
            let Some((address, epoch)) = seat.session else {
                continue;
            };
            let cluster = &parts.clusters[seat.cluster];
            state.attached += 1;
            *state.by_cluster.entry(cluster.clone()).or_default() += 1;
            let door = parts.addresses[address].clone();
            *state.doors.entry(door).or_default() += 1;
            let epochs = state.epochs.entry(cluster.clone()).or_default();
            *epochs.entry(epoch).or_default() += 1;
        }
        state.since_mark = parts.since_mark();
        state
    }
}

impl BoardParts {
    fn since_mark(&self) -> SinceMark {
        let lost = self.seats.iter().filter(|seat| seat.lost);
        let mut back: Vec<u64> = lost
            .clone()
            .filter_map(|seat| seat.back)
            .map(|at| u64::try_from((at - self.mark).as_millis()).unwrap_or(u64::MAX))
            .collect();
        back.sort_unstable();
        let lost = lost.count();
        // Those that are still away come last.
        let when = |share: f64| {
            let rank = (lost as f64 * share).ceil() as usize;
            back.get(rank.max(1) - 1).copied()
        };
        SinceMark {
            lost,
            back: back.len(),
            half_ms: when(0.5),
            most_ms: when(0.99),
            all_ms: when(1.0),
            wholes: self.sent.0,
            changes: self.sent.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::PlannedCluster;
    use super::*;

    #[test]
    fn who_was_away_is_counted_from_the_mark_on() {
        let plan = AgentsPlan {
            certificates: "/".into(),
            clusters: vec![PlannedCluster {
                name: "c".to_owned(),
                agents: 0..100,
            }],
            addresses: Vec::new(),
            generation: 1,
            keeps_facts: false,
        };
        let board = Board::new(&plan);
        (0..100).for_each(|at| board.attached(at, "a:1", 1));
        board.left(0);
        board.mark();
        board.attached(0, "a:1", 1);
        assert_eq!(board.state().since_mark.lost, 0, "lost before the mark");
        (0..100).for_each(|at| board.left(at));
        board.left(5);
        (0..99).for_each(|at| board.attached(at, "b:1", 2));
        let state = board.state();
        let since = &state.since_mark;
        assert_eq!((since.lost, since.back), (100, 99));
        assert!(since.half_ms.is_some() && since.most_ms.is_some());
        assert_eq!(since.all_ms, None, "one is away");
        assert_eq!(state.doors, BTreeMap::from([("b:1".to_owned(), 99)]));
        assert_eq!(state.epochs["c"], BTreeMap::from([(2, 99)]));
        board.attached(99, "b:1", 2);
        assert!(board.state().since_mark.all_ms.is_some());
    }
}
