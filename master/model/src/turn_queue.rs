//! How far a change at a pace is, as a pass over all instances found it: enough to give a place that is free to the next without
//! such a pass. Made by `world` after each, and thrown away with the first input that may make it untrue. Pure.

use std::collections::{BTreeSet, VecDeque};

use aot_proto::ids::{InstanceName, JobId};

use super::pace::{Pace, PaceStep, SoFar};

/// Who has a place, and who is next.
#[derive(Debug, PartialEq)]
pub(crate) struct TurnQueue {
    /// Whose change it is.
    pub(crate) job: JobId,
    /// As those of its rolling.
    pub(crate) groups: Vec<GroupQueue>,
    /// Stages may start, as far as cluster facts go.
    pub(crate) is_barrier_open: bool,
    /// No instance's stages depend on others', so what succeeds on one means nothing to the rest.
    pub(crate) is_apart: bool,
}

/// How far a group is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct GroupQueue {
    /// Without a pause between batches.
    pub(crate) pace: Pace,
    /// Groups that go first.
    pub(crate) after: Vec<usize>,
    /// Who is there and waits, in order.
    pub(crate) next: VecDeque<InstanceName>,
    /// Who waits, whether there or not.
    pub(crate) waiting: usize,
    /// Who has a place.
    pub(crate) running: BTreeSet<InstanceName>,
    /// Who has, or had, one.
    pub(crate) started: usize,
    /// Who had one and did not succeed.
    pub(crate) failed: usize,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QueueStep {
    /// These have a place now.
    Begin(Vec<InstanceName>),
    /// Nothing now.
    Wait,
    /// A pass over all has to say it.
    Pass,
}

impl TurnQueue {
    /// Whether it has a place in this group.
    pub(crate) fn has_place(&self, group: usize, name: &InstanceName) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.running.contains(name))
    }

    /// Whether anybody has a place.
    pub(crate) fn is_moving(&self) -> bool {
        self.groups.iter().any(|group| !group.running.is_empty())
    }

    /// All is well with it: its place is free.
    pub(crate) fn leave(&mut self, group: usize, name: &InstanceName) {
        if let Some(group) = self.groups.get_mut(group) {
            group.running.remove(name);
        }
    }

    /// Who has a place now; to be asked until nobody has.
    pub(crate) fn next(&mut self) -> QueueStep {
        for index in 0..self.groups.len() {
            let is_open = |other: &usize| self.groups.get(*other).is_some_and(GroupQueue::is_open);
            let group = &self.groups[index];
            if group.waiting == 0 || group.after.iter().any(is_open) {
                continue;
            }
            match group.pace.next(&group.so_far(), 0) {
                PaceStep::Wait => {}
                PaceStep::Stop(_) => return QueueStep::Pass,
                PaceStep::Start(most) => {
                    let names = self.groups[index].begin(most);
                    if !names.is_empty() {
                        return QueueStep::Begin(names);
                    }
                }
            }
        }
        match self.is_moving() {
            true => QueueStep::Wait,
            false => QueueStep::Pass, // it may be over
        }
    }
}

impl GroupQueue {
    fn is_open(&self) -> bool {
        self.waiting > 0 || !self.running.is_empty()
    }

    fn so_far(&self) -> SoFar {
        SoFar {
            waiting: self.waiting,
            running: self.running.len(),
            started: self.started,
            failed: self.failed,
            batch_ended_ms: 0,
        }
    }

    fn begin(&mut self, most: usize) -> Vec<InstanceName> {
        let count = most.min(self.next.len());
        let names: Vec<InstanceName> = self.next.drain(..count).collect();
        self.waiting -= count.min(self.waiting);
        self.started += count;
        self.running.extend(names.iter().cloned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> InstanceName {
        format!("a{number}").parse().expect("a name")
    }

    fn group(concurrency: usize, count: usize) -> GroupQueue {
        GroupQueue {
            pace: Pace {
                concurrency: Some(concurrency),
                ..Pace::default()
            },
            next: (1..=count).map(name).collect(),
            waiting: count,
            ..GroupQueue::default()
        }
    }

    fn queue(groups: Vec<GroupQueue>) -> TurnQueue {
        TurnQueue {
            job: JobId::from_parts(1, 1),
            groups,
            is_barrier_open: true,
            is_apart: true,
        }
    }

    fn begun(numbers: &[usize]) -> QueueStep {
        QueueStep::Begin(numbers.iter().copied().map(name).collect())
    }

    #[test]
    fn each_place_that_is_free_goes_to_the_next_in_order() {
        let mut queue = queue(vec![group(2, 4)]);
        assert_eq!(queue.next(), begun(&[1, 2]));
        assert_eq!(queue.next(), QueueStep::Wait);
        assert!(queue.has_place(0, &name(2)) && !queue.has_place(0, &name(3)));
        queue.leave(0, &name(2));
        assert_eq!(queue.next(), begun(&[3]));
        queue.leave(0, &name(1));
        queue.leave(0, &name(3));
        assert_eq!(queue.next(), begun(&[4]));
        queue.leave(0, &name(4));
        assert_eq!(queue.next(), QueueStep::Pass, "that was the last");
    }

    #[test]
    fn canaries_go_alone_and_an_error_among_them_is_left_to_a_pass() {
        let mut canary = group(3, 4);
        canary.pace.canary = 1;
        let mut well = queue(vec![canary]);
        assert_eq!(well.next(), begun(&[1]));
        assert_eq!(well.next(), QueueStep::Wait);
        well.leave(0, &name(1));
        assert_eq!(well.next(), begun(&[2, 3, 4]));
        let mut canary = group(3, 4);
        (canary.pace.canary, canary.started, canary.failed) = (2, 1, 1);
        assert_eq!(queue(vec![canary]).next(), QueueStep::Pass);
    }

    #[test]
    fn a_group_waits_for_those_that_go_first() {
        let later = GroupQueue {
            after: vec![0],
            ..group(2, 2)
        };
        let mut queue = queue(vec![group(2, 1), later]);
        assert_eq!(queue.next(), begun(&[1]));
        assert_eq!(queue.next(), QueueStep::Wait);
        queue.leave(0, &name(1));
        assert_eq!(queue.next(), begun(&[1, 2]));
        assert!(queue.has_place(1, &name(1)) && !queue.has_place(0, &name(1)));
    }

    #[test]
    fn who_is_away_has_no_place_and_holds_up_what_goes_after() {
        let mut away = group(2, 1);
        away.waiting = 2;
        let later = GroupQueue {
            after: vec![0],
            ..group(2, 2)
        };
        let mut queue = queue(vec![away, later]);
        assert_eq!(queue.next(), begun(&[1]));
        queue.leave(0, &name(1));
        assert_eq!(queue.next(), QueueStep::Pass);
    }
}
