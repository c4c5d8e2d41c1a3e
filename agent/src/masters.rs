//! Which master is dialled next. The addresses that a master named last come first, those of the settings after them, each
//! list in an order that is this machine's own: so the agents of a fleet spread over its masters. The one that answered last
//! goes before all, so that an address that does not is waited for once. Pure, but for [`kept`] and [`epoch`]; used by the link.

pub(crate) mod epoch;
pub(crate) mod kept;

use aot_host::hash::sha256_hex;
use aot_proto::limits::{MAX_ADDRESS_BYTES, MAX_MASTERS};

use crate::config::is_dialable;

/// The addresses of masters, and with which of them the next connection begins.
#[derive(Debug)]
pub struct DialOrder {
    machine: String,
    settings: Vec<String>,
    /// As a master named them; empty when none did.
    named: Vec<String>,
    order: Vec<String>,
    /// `None`: the first of `order`.
    first: Option<String>,
}

impl DialOrder {
    /// For the machine of this id: the addresses of its settings, and those that a master named before.
    pub fn new(machine: &str, settings: Vec<String>, named: Vec<String>) -> Self {
        let mut new = Self {
            machine: machine.to_owned(),
            settings,
            named,
            order: Vec::new(),
            first: None,
        };
        new.arrange();
        new
    }

    /// Every address once, beginning with the one that is next.
    pub fn round(&self) -> Vec<String> {
        let Some(first) = &self.first else {
            return self.order.clone();
        };
        let from = self.order.iter().position(|address| address == first);
        let (before, rest) = self.order.split_at(from.unwrap_or(0));
        // A session continues with a master that is no longer named.
        let gone = from.is_none().then_some(first);
        gone.into_iter()
            .chain(rest)
            .chain(before)
            .cloned()
            .collect()
    }

    /// This master answered: what is opened beside the session goes there too, and so does what comes after it.
    pub fn reached(&mut self, address: &str) {
        self.first = Some(address.to_owned());
    }

    /// This one did not, or had nothing for us: the next one is next.
    pub fn failed(&mut self, address: &str) {
        let at = self.order.iter().position(|other| other == address);
        let next = at.map(|at| (at + 1) % self.order.len());
        self.first = next.map(|next| self.order[next].clone());
    }

    /// Takes over what a master names, as far as it can be dialled; `Some` with all of that when it was not known before.
    pub fn learn(&mut self, named: &[String]) -> Option<Vec<String>> {
        let named = sanitize(named);
        if named.is_empty() || named == self.named {
            return None;
        }
        self.named.clone_from(&named);
        self.arrange();
        Some(named)
    }

    fn arrange(&mut self) {
        let rest = self.settings.iter();
        let rest: Vec<String> = rest
            .filter(|address| !self.named.contains(address))
            .cloned()
            .collect();
        let rest = permuted(&self.machine, &rest);
        self.order = permuted(&self.machine, &self.named);
        self.order.extend(rest);
    }
}

/// Each address once, by the hash of machine and address (rendezvous hashing: Thaler and Ravishankar, "Using Name-Based
/// Mappings to Increase Hit Rates", 1998). Where an address comes or goes, the others stay in their order.
#[must_use]
pub fn permuted(machine: &str, addresses: &[String]) -> Vec<String> {
    let rank = |address: &String| sha256_hex(format!("{machine}\n{address}").as_bytes());
    let mut order = addresses.to_vec();
    order.sort_by_cached_key(rank);
    order.dedup();
    order
}

/// What can be dialled of what a master names, bounded, each once, in its order.
fn sanitize(named: &[String]) -> Vec<String> {
    let mut fit: Vec<String> = Vec::new();
    for address in named {
        if fit.len() == MAX_MASTERS {
            break;
        }
        if address.len() <= MAX_ADDRESS_BYTES && is_dialable(address) && !fit.contains(address) {
            fit.push(address.clone());
        }
    }
    fit
}

#[cfg(test)]
mod tests;
