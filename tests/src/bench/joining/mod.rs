//! Simulated agents that join: they enrol with the token of their machine's user-data, attach, report, apply what they get and
//! answer their stages at once. No machine is behind them. A role of a bench.

mod counted;
mod member;

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aot_agent::inside::roots;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::program::Program;
use member::Member;

/// Handshakes at once.
const DIALLING: usize = 32;

/// What all of them have done.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// How many have a session.
    pub attached: usize,
    /// How many have applied each generation of the cluster facts.
    pub applied: BTreeMap<u64, usize>,
    /// Bytes that came to them, TLS and all.
    pub received: u64,
    /// How many sessions broke.
    pub lost: usize,
}

/// What they share.
#[derive(Default)]
struct Shared {
    report: Mutex<Report>,
    received: Arc<AtomicU64>,
    /// The first has something new to report.
    news: Notify,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Simulated agents in one process; they end when this is dropped.
pub struct Joining(Program);

impl Joining {
    /// Starts the process by `inside`, which is this program in the network where `address` is. `ca` is the file of the
    /// master's authority.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut inside: Command, ca: &Path, address: &str) -> Self {
        inside.arg("joining").arg(ca).arg(address);
        Self(Program::by(inside))
    }

    /// One more machine, by its id, with its join token.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn join(&mut self, machine: &str, token: &str) {
        self.0.tell(&format!("join {machine} {token}"));
    }

    /// The first machine reports something new.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn news(&mut self) {
        self.0.tell("news");
    }

    /// What all have done so far.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn report(&mut self) -> Report {
        self.0.tell("report");
        serde_json::from_str(&self.0.line()).expect("a report")
    }
}

pub(super) fn play(ca: &Path, address: &str) {
    aot_host::descriptors::raise().expect("up to the hard limit");
    let ca = std::fs::read_to_string(ca).expect("an authority");
    let roots = roots(&ca).expect("it is one");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (shared, dialling) = (
        Arc::new(Shared::default()),
        Arc::new(Semaphore::new(DIALLING)),
    );
    let tasks = TaskTracker::new();
    let mut number = 0;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["join", machine, token] => {
                let member = Member {
                    number,
                    machine: machine.to_owned(),
                    token: token.to_owned(),
                    roots: roots.clone(),
                    address: address.to_owned(),
                    dialling: dialling.clone(),
                    shared: shared.clone(),
                };
                number += 1;
                tasks.spawn_on(member.run(), runtime.handle());
            }
            ["news"] => shared.news.notify_one(),
            ["report"] => shared.note(|report| {
                report.received = shared.received.load(Ordering::Relaxed);
                println!("{}", serde_json::to_string(report).expect("it is JSON"));
            }),
            _ => panic!("{line:?} is no word of this role"),
        }
    }
    runtime.shutdown_background();
}
