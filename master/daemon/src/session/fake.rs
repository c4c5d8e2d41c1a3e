//! A master for tests of sessions: real spools and a real registry, and a loop that writes down what it is brought.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{ClusterName, JobId, RunId, SpiffeId};
use aot_proto::v1::{self, frame::Body};
use aot_store::room::Room;
use aot_store::spool::Spools;
use prost::bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::registry::Registry;
use super::reports::{Greeting, Master, OwnRun};
use crate::enrol::ca::Issued;

/// What the loop was brought, in order, and how.
#[derive(Debug)]
pub(super) enum Brought {
    Submitted(Input),
    Decided(Input),
    Ended(RunId, Box<v1::Ended>, Option<Bytes>),
    OncePut(RunId, Box<v1::Ended>),
}

/// Of its hold on every cluster.
pub(super) const EPOCH: i64 = 7;

/// Instances that it knows; most of them have no session.
pub(super) const INSTANCES: usize = 2_000;

pub(super) struct FakeMaster {
    /// Of the spools; goes with this.
    pub(super) dir: TempDir,
    spools: Arc<Spools>,
    rooms: [Room; 2],
    is_full: AtomicBool,
    is_stopping: AtomicBool,
    puts: AtomicBool,
    shares: AtomicBool,
    registry: Registry,
    advertised: Vec<String>,
    facts: Semaphore,
    own: Mutex<BTreeMap<RunId, OwnRun>>,
    brought: Mutex<Vec<Brought>>,
    /// Serials that renewals were asked with.
    asked_with: Mutex<Vec<String>>,
    copied: Mutex<Vec<(JobId, u64)>>,
}

impl FakeMaster {
    pub(super) fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let path: &Path = dir.path();
        Arc::new(Self {
            spools: Spools::open(path).expect("opens"),
            rooms: [Room::new(path, 0), Room::without_any(path)],
            is_full: AtomicBool::new(false),
            puts: AtomicBool::new(false),
            shares: AtomicBool::new(false),
            registry: Registry::new(1),
            advertised: (0..3).map(|n| format!("m{n}:7440")).collect(),
            facts: Semaphore::new(1),
            own: Mutex::default(),
            brought: Mutex::default(),
            asked_with: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            copied: Mutex::default(),
            dir,
        })
    }

    /// From now on, whether there is room for output.
    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// From now on nothing is decided any more.
    pub(super) fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// From now on it is one of several.
    pub(super) fn shares_outputs(&self) {
        self.shares.store(true, Ordering::Relaxed);
    }

    /// From now on long outputs are put elsewhere first.
    pub(super) fn puts_outputs(&self) {
        self.puts.store(true, Ordering::Relaxed);
        self.shares_outputs();
    }

    /// A run of the instance whose output nobody reads a second time.
    pub(super) fn add_archive(&self, number: u64) -> RunId {
        let run = self.add_run(number, u64::MAX, false);
        let mut own = self.own.lock().expect("fine");
        own.get_mut(&run).expect("was added").is_archive = true;
        run
    }

    /// A run of the instance that is not over.
    pub(super) fn add_run(&self, number: u64, output_cap: u64, is_stage: bool) -> RunId {
        let run = RunId::from_parts(number, 1);
        let own = OwnRun {
            job: JobId::from_parts(number, 2),
            output_cap,
            is_stage,
            is_archive: false,
        };
        self.own.lock().expect("fine").insert(run, own);
        run
    }

    pub(super) fn brought(&self) -> Vec<Brought> {
        std::mem::take(&mut self.brought.lock().expect("fine"))
    }

    pub(super) fn asked_with(&self) -> Vec<String> {
        self.asked_with.lock().expect("fine").clone()
    }

    pub(super) fn copied(&self) -> Vec<(JobId, u64)> {
        self.copied.lock().expect("fine").clone()
    }

    fn push(&self, brought: Brought) {
        self.brought.lock().expect("fine").push(brought);
    }
}

impl Master for Arc<FakeMaster> {
    fn spools(&self) -> &Arc<Spools> {
        &self.spools
    }

    fn room(&self) -> &Room {
        &self.rooms[usize::from(self.is_full.load(Ordering::Relaxed))]
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn addresses(&self) -> Vec<String> {
        self.advertised.clone()
    }

    fn epoch(&self, _: &ClusterName) -> i64 {
        EPOCH
    }

    fn facts_turns(&self) -> &Semaphore {
        &self.facts
    }

    fn greeting(&self, _: &InstanceKey) -> Greeting {
        Greeting {
            main_user: Some("admin".to_owned()),
            hostname: "web1".to_owned(),
            open: self.own.lock().expect("fine").keys().copied().collect(),
            instances: INSTANCES,
        }
    }

    fn own_run(&self, _: &InstanceKey, _: u64, run: RunId) -> Option<OwnRun> {
        self.own.lock().expect("fine").get(&run).copied()
    }

    async fn submit(&self, input: Input) {
        self.push(Brought::Submitted(input));
    }

    /// As the world does with an end: the run is over then.
    async fn decide(&self, input: Input) -> bool {
        if let Input::Agent {
            report: AgentInput::RunEnded { run, .. },
            ..
        } = &input
        {
            self.own.lock().expect("fine").remove(run);
        }
        self.push(Brought::Decided(input));
        !self.is_stopping.load(Ordering::Relaxed)
    }

    async fn submit_end(
        &self,
        _: InstanceKey,
        _: u64,
        report: AgentInput,
        spool: Option<(RunId, Bytes)>,
    ) {
        let AgentInput::RunEnded { run, ended } = report else {
            panic!("not an end: {report:?}")
        };
        if let Some((of, _)) = &spool {
            assert_eq!(*of, run, "the spool of another run");
        }
        self.push(Brought::Ended(run, ended, spool.map(|(_, bytes)| bytes)));
    }

    fn outputs_are_shared(&self) -> bool {
        self.shares.load(Ordering::Relaxed)
    }

    fn outputs_are_put(&self) -> bool {
        self.puts.load(Ordering::Relaxed)
    }

    fn submit_once_put(&self, _: &InstanceKey, run: RunId, ended: Box<v1::Ended>) {
        self.push(Brought::OncePut(run, ended));
    }

    fn copy_progress(&self, job: JobId, _: &InstanceKey, progress: &v1::CopyProgress) {
        let mut copied = self.copied.lock().expect("fine");
        copied.push((job, progress.bytes));
    }

    async fn renew(
        &self,
        csr_der: &[u8],
        _: &SpiffeId,
        _: u64,
        asked_with: String,
    ) -> Result<Issued, String> {
        let mut all = self.asked_with.lock().expect("fine");
        all.push(asked_with);
        match csr_der {
            b"good" => Ok(Issued {
                pem: "PEM".to_owned(),
                serial: format!("serial {}", all.len()),
                expires_unix: 7,
            }),
            _ => Err("not a request".to_owned()),
        }
    }
}

pub(super) fn key() -> InstanceKey {
    InstanceKey {
        cluster: "c".parse().expect("a name"),
        instance: "web1".parse().expect("a name"),
    }
}

pub(super) fn id() -> SpiffeId {
    SpiffeId {
        master: "m".to_owned(),
        cluster: key().cluster,
        instance: key().instance,
        machine: "i-1".parse().expect("an id"),
    }
}

/// A spool: these parts on standard error, then the end, if there is one.
pub(super) fn spool(parts: &[&[u8]], exit_code: Option<i32>) -> Bytes {
    let mut bytes = Vec::new();
    let parts = parts
        .iter()
        .map(|part| Body::Stderr(Bytes::copy_from_slice(part)));
    let end = exit_code.map(|exit_code| {
        Body::Ended(v1::Ended {
            kind: v1::EndKind::Exited as i32,
            exit_code,
            ..v1::Ended::default()
        })
    });
    for body in parts.chain(end) {
        let frame = v1::Frame {
            unix_ms: 1,
            body: Some(body),
        };
        aot_proto::frame::encode(&frame, &mut bytes);
    }
    bytes.into()
}
