//! The targets of a job that have not been given it yet, in their order. Those that can't be given it now stand aside, so that
//! they are not asked about again at every end of another. Changed by `world` alone.

use std::collections::BTreeMap;

use aot_proto::ids::InstanceName;

/// Targets that wait, each with its place in the job's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    next: BTreeMap<u32, InstanceName>,
    /// Without a session when they were last asked about.
    aside: BTreeMap<InstanceName, u32>,
}

impl FromIterator<InstanceName> for Waiting {
    /// In this order.
    fn from_iter<I: IntoIterator<Item = InstanceName>>(names: I) -> Self {
        Self {
            next: (0..).zip(names).collect(),
            aside: BTreeMap::new(),
        }
    }
}

impl Waiting {
    /// How many.
    pub fn len(&self) -> usize {
        self.next.len() + self.aside.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty() && self.aside.is_empty()
    }

    /// All, with their places: in their order, but for those that stand aside, which come last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &InstanceName)> {
        let next = self.next.iter().map(|(place, name)| (*place, name));
        next.chain(self.aside.iter().map(|(name, place)| (*place, name)))
    }

    pub(super) fn insert(&mut self, place: u32, name: InstanceName) {
        self.next.insert(place, name);
    }

    /// The next `count` that are there; they wait no longer. Others that come before them stand aside.
    pub(crate) fn pop(
        &mut self,
        count: usize,
        is_there: impl Fn(&InstanceName) -> bool,
    ) -> Vec<InstanceName> {
        let mut popped = Vec::new();
        while popped.len() < count
            && let Some((place, name)) = self.next.pop_first()
        {
            if is_there(&name) {
                popped.push(name);
            } else {
                self.aside.insert(name, place);
            }
        }
        popped
    }

    /// It has come: it has its place again. Says whether it stood aside.
    pub(crate) fn came(&mut self, name: &InstanceName) -> bool {
        let Some((name, place)) = self.aside.remove_entry(name) else {
            return false;
        };
        self.next.insert(place, name);
        true
    }

    /// Those for which this is not so wait no longer.
    pub(crate) fn retain(&mut self, waits: impl Fn(&InstanceName) -> bool) {
        self.next.retain(|_, name| waits(name));
        self.aside.retain(|name, _| waits(name));
    }

    /// Nobody stands aside any more: all are to be asked about.
    pub(crate) fn ask_all(&mut self) {
        let aside = std::mem::take(&mut self.aside);
        self.next
            .extend(aside.into_iter().map(|(name, place)| (place, name)));
    }

    /// All of them, in their order; none waits any longer.
    pub fn pop_all(&mut self) -> Vec<InstanceName> {
        self.ask_all();
        std::mem::take(&mut self.next).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(number: usize) -> InstanceName {
        format!("n{number}").parse().expect("a name")
    }

    proptest! {
        /// Whoever comes and goes: the same are given it, in the same order, as when all were asked about each time.
        #[test]
        fn those_that_stand_aside_keep_their_places(
            size in 1usize..20,
            steps in prop::collection::vec((0usize..20, 0usize..4), 0..60),
        ) {
            let mut plain: Vec<InstanceName> = (0..size).map(name).collect();
            let mut waiting: Waiting = plain.iter().cloned().collect();
            let mut away = std::collections::BTreeSet::new();
            for (who, count) in steps {
                let who = name(who);
                if away.remove(&who) {
                    waiting.came(&who);
                } else {
                    away.insert(who);
                }
                let is_there = |name: &InstanceName| !away.contains(name);
                let chosen: Vec<_> = plain.iter().filter(|name| is_there(name)).take(count).cloned().collect();
                plain.retain(|name| !chosen.contains(name));
                prop_assert_eq!(waiting.pop(count, is_there), chosen);
                prop_assert_eq!(waiting.len(), plain.len());
            }
            prop_assert_eq!(waiting.pop_all(), plain);
            prop_assert!(waiting.is_empty());
        }
    }
}
