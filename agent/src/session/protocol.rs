//! What one session says and does, without doing it: messages, news and the time in, outputs out. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aot_proto::builtin::Builtin;
use aot_proto::facts::Joiner;
use aot_proto::frame::MAX_FRAME_BYTES;
use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, SILENCE, SPOOL_CHUNK_BYTES, SPOOL_WINDOW_BYTES};
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    BuiltinCall, BuiltinReply, ClusterFacts, ClusterFactsApplied, CopyProgress, FactsReport,
    GoingAway, Heartbeat, MasterMessage, OpenShell, RenewRequest, RunAnswer, RunState, SpoolAck,
    SpoolData, StartRun, Volumes, VolumesMounted, Welcome,
};

use crate::VERSION;
use crate::facts::is_news;

/// How often facts are looked at again.
const FACTS_EVERY: Duration = Duration::from_secs(600);
/// A renewal that got no answer, or a bad one, is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// Builtin calls that may wait for the first facts.
const MOST_WAITING: usize = 64;

/// What happened.
pub enum Input {
    /// The master said something.
    Master(MasterMessage),
    /// A run's spool has this length now.
    Grown(RunId, u64),
    /// Facts were collected.
    FactsCollected(Box<FactsReport>),
    /// Cluster facts were applied, or not.
    Applied(ClusterFactsApplied),
    /// Volumes were put in place, or one was not.
    Mounted(VolumesMounted),
    /// A run was journalled (`Ok`), or why it was not.
    Started(String, Result<(), String>),
    /// A signing request for the next certificate is made; `None` when it could not be.
    Csr(Option<Vec<u8>>),
    /// A renewed certificate is in place; the next one is wanted then.
    Installed(Instant),
    /// What a look at a file showed.
    Looked(BuiltinReply),
    /// So much of a copy's files is here.
    Fetched(CopyProgress),
    /// Time has passed.
    Tick,
    /// The agent is to stop.
    Stop,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this.
    Send(Up),
    /// Give the machine this host name, when it has another.
    NameHost(String),
    /// Collect facts; the main login user is this one.
    CollectFacts(String),
    /// Put cluster facts of this cluster in place.
    Apply(String, Box<ClusterFacts>),
    /// Journal and start a run.
    Start(Box<StartRun>),
    /// Cancel a run with this grace in ms.
    Cancel(RunId, u64),
    /// Drop a run.
    Forget(RunId),
    /// Put volumes in place.
    Mount(Volumes),
    /// Look at a file for the call of this id.
    Look(u64, Builtin),
    /// Open a terminal, on a connection of its own.
    OpenShell(Box<OpenShell>),
    /// Make a key and a signing request.
    MakeCsr,
    /// Check and keep a renewed certificate (PEM).
    Install(String),
    /// End the session once everything is sent.
    Close(Closed),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The agent stops.
    Stopping,
    /// The machine is to be rebooted.
    Reboot,
    /// The master said goodbye; come back within this.
    ByMaster(Duration),
    /// The master said nothing for too long.
    Silent,
    /// The stream ended or broke.
    Broken(String),
}

/// How far one run's spool has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    bytes: u64,
    sent: u64,
    acked: u64,
}

/// A piece of a spool to be read and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The run.
    pub run: RunId,
    /// From here.
    pub offset: u64,
    /// At most so many bytes.
    pub most: usize,
}

/// The state of one session.
pub struct Protocol {
    welcome: Option<Welcome>,
    hello_runs: Vec<RunState>,
    heartbeat: Duration,
    silence: Duration,
    heard: Instant,
    beat_at: Instant,
    beat: Heartbeat,
    runs: BTreeMap<RunId, Progress>,
    /// The run that was served last: the next one has its turn.
    served: Option<RunId>,
    facts: Option<Box<FactsReport>>,
    facts_at: Option<Instant>,
    waiting: Vec<u64>,
    joiner: Joiner,
    applying: bool,
    to_apply: Option<Box<ClusterFacts>>,
    mounting: bool,
    to_mount: Option<Volumes>,
    renew_at: Instant,
}

impl Protocol {
    /// A session that begins at `now` by a Hello naming `runs`; a certificate is to be renewed at `renew_at`.
    pub fn new(runs: Vec<RunState>, renew_at: Instant, now: Instant) -> Self {
        Self {
            welcome: None,
            hello_runs: runs,
            heartbeat: HEARTBEAT,
            silence: SILENCE,
            heard: now,
            beat_at: now + HEARTBEAT,
            beat: Heartbeat::default(),
            runs: BTreeMap::new(),
            served: None,
            facts: None,
            facts_at: None,
            waiting: Vec::new(),
            joiner: Joiner::default(),
            applying: false,
            to_apply: None,
            mounting: false,
            to_mount: None,
            renew_at,
        }
    }

    /// Whether the master has answered Hello.
    pub fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// Decides what follows from `input` at `now`.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<Output> {
        match input {
            Input::Master(message) => {
                self.heard = now;
                message
                    .body
                    .map_or_else(Vec::new, |body| self.told(body, now))
            }
            Input::Grown(run, bytes) => {
                let progress = self.runs.entry(run).or_default();
                progress.bytes = progress.bytes.max(bytes);
                Vec::new()
            }
            Input::FactsCollected(report) => self.collected(report, now),
            Input::Applied(applied) => self.applied(applied),
            Input::Mounted(mounted) => self.mounted(mounted),
            Input::Started(run_id, result) => {
                let accepted = result.is_ok();
                let answer = RunAnswer {
                    run_id,
                    accepted,
                    reason: result.err().unwrap_or_default(),
                };
                vec![Output::Send(Up::RunAnswer(answer))]
            }
            Input::Fetched(progress) if self.is_welcome() => {
                vec![Output::Send(Up::CopyProgress(progress))]
            }
            Input::Fetched(_) => Vec::new(),
            Input::Csr(Some(csr_der)) => vec![Output::Send(Up::Renew(RenewRequest { csr_der }))],
            Input::Csr(None) => Vec::new(),
            Input::Installed(renew_at) => {
                self.renew_at = renew_at;
                Vec::new()
            }
            Input::Looked(reply) => vec![Output::Send(Up::BuiltinReply(reply))],
            Input::Tick => self.tick(now),
            Input::Stop => vec![goodbye("the agent stops"), Output::Close(Closed::Stopping)],
        }
    }

    fn told(&mut self, body: Down, now: Instant) -> Vec<Output> {
        match body {
            Down::Welcome(welcome) => self.welcomed(welcome, now),
            Down::Heartbeat(beat) => {
                self.beat.echo = beat.seq;
                Vec::new()
            }
            Down::ClusterFacts(piece) => match self.joiner.take(&piece) {
                Ok(facts) => facts.map_or_else(Vec::new, |facts| self.apply(Box::new(facts))),
                // The next session is given them from their start.
                Err(error) => vec![Output::Close(Closed::Broken(error.to_string()))],
            },
            Down::StartRun(start) => vec![Output::Start(Box::new(start))],
            Down::CancelRun(cancel) => {
                parsed(&cancel.run_id, |run| Output::Cancel(run, cancel.grace_ms))
            }
            Down::SpoolAck(ack) => {
                self.acked(&ack);
                Vec::new()
            }
            Down::ForgetRun(forget) => parsed(&forget.run_id, |run| {
                self.runs.remove(&run);
                Output::Forget(run)
            }),
            Down::Volumes(volumes) => self.mount(volumes),
            Down::OpenShell(open) => vec![Output::OpenShell(Box::new(open))],
            Down::Builtin(call) => self.builtin(&call),
            Down::Renew(reply) if reply.error.is_empty() => {
                vec![Output::Install(reply.certificate_pem)]
            }
            Down::Renew(reply) => {
                tracing::warn!(
                    error = reply.error,
                    "the master did not renew the certificate; asking again later"
                );
                Vec::new()
            }
            Down::GoingAway(away) => vec![Output::Close(Closed::ByMaster(Duration::from_millis(
                away.reconnect_after_ms,
            )))],
            Down::Reboot(reboot) => vec![
                goodbye(&format!("reboot: {}", reboot.reason)),
                Output::Close(Closed::Reboot),
            ],
        }
    }

    /// The spool of a run that Hello named is longer for the master than it is here. To be told before the welcome.
    pub fn realigned(&mut self, run_id: &str, bytes: u64) {
        for state in self
            .hello_runs
            .iter_mut()
            .filter(|state| state.run_id == run_id)
        {
            state.spool_bytes = bytes;
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now: Instant) -> Vec<Output> {
        if self.welcome.is_some() {
            return Vec::new();
        }
        let or = |ms: u64, default: Duration| {
            if ms == 0 {
                default
            } else {
                Duration::from_millis(ms)
            }
        };
        self.heartbeat = or(welcome.heartbeat_ms, HEARTBEAT);
        self.silence = or(welcome.silence_ms, SILENCE).max(self.heartbeat * 2);
        self.beat_at = now + self.heartbeat;
        let mut out = Vec::new();
        if !welcome.hostname.is_empty() {
            out.push(Output::NameHost(welcome.hostname.clone()));
        }
        out.push(Output::CollectFacts(welcome.main_user.clone()));
        let acks: BTreeMap<&str, u64> = welcome
            .acks
            .iter()
            .map(|ack| (ack.run_id.as_str(), ack.bytes))
            .collect();
        for state in std::mem::take(&mut self.hello_runs) {
            let Ok(run) = state.run_id.parse::<RunId>() else {
                continue;
            };
            let acked = acks.get(state.run_id.as_str()).copied().unwrap_or(0);
            let progress = self.runs.entry(run).or_default();
            progress.bytes = progress.bytes.max(state.spool_bytes);
            (progress.sent, progress.acked) = (acked, acked);
            if state.ended && acked >= state.spool_bytes && state.spool_bytes > 0 {
                // It has every byte; that these are the last ones may have got lost with the old session.
                let last = SpoolData {
                    run_id: state.run_id,
                    offset: acked,
                    end: true,
                    ..SpoolData::default()
                };
                out.push(Output::Send(Up::Spool(last)));
            }
        }
        self.welcome = Some(welcome);
        out
    }

    fn acked(&mut self, ack: &SpoolAck) {
        let run = ack.run_id.parse().ok();
        if let Some(progress) = run.and_then(|run: RunId| self.runs.get_mut(&run)) {
            progress.acked = progress.acked.max(ack.bytes.min(progress.sent));
        }
    }

    fn builtin(&mut self, call: &BuiltinCall) -> Vec<Output> {
        let (json, error) = match Builtin::parse(&call.name, &call.args) {
            Ok(Builtin::Ping) => ("true".to_owned(), String::new()),
            Ok(Builtin::Version) => (format!("\"{VERSION}\""), String::new()),
            Ok(Builtin::Facts) => match &self.facts {
                Some(facts) => (facts.node_json.clone(), String::new()),
                None if self.waiting.len() < MOST_WAITING => {
                    self.waiting.push(call.id);
                    return Vec::new();
                }
                None => (String::new(), "the facts are not collected yet".to_owned()),
            },
            Ok(look @ (Builtin::Stat { .. } | Builtin::Tail { .. })) => {
                return vec![Output::Look(call.id, look)];
            }
            Err(error) => (
                String::new(),
                format!("{}: {error} (agent {VERSION})", call.name),
            ),
        };
        vec![Output::Send(Up::BuiltinReply(BuiltinReply {
            id: call.id,
            json,
            error,
        }))]
    }

    fn collected(&mut self, report: Box<FactsReport>, now: Instant) -> Vec<Output> {
        self.facts_at = Some(now + FACTS_EVERY);
        let mut out: Vec<Output> = Vec::new();
        if self.facts.as_ref().is_none_or(|old| is_news(old, &report)) {
            out.push(Output::Send(Up::Facts((*report).clone())));
        }
        for id in self.waiting.drain(..) {
            let reply = BuiltinReply {
                id,
                json: report.node_json.clone(),
                error: String::new(),
            };
            out.push(Output::Send(Up::BuiltinReply(reply)));
        }
        self.facts = Some(report);
        out
    }

    /// One generation at a time; of those that wait only the last counts.
    fn apply(&mut self, facts: Box<ClusterFacts>) -> Vec<Output> {
        if self.applying {
            self.to_apply = Some(facts);
            return Vec::new();
        }
        self.applying = true;
        let cluster = self
            .welcome
            .as_ref()
            .map(|welcome| welcome.cluster.clone())
            .unwrap_or_default();
        vec![Output::Apply(cluster, facts)]
    }

    fn applied(&mut self, applied: ClusterFactsApplied) -> Vec<Output> {
        self.applying = false;
        let mut out = vec![Output::Send(Up::ClusterFactsApplied(applied))];
        out.extend(
            self.to_apply
                .take()
                .into_iter()
                .flat_map(|facts| self.apply(facts)),
        );
        out
    }

    /// One message at a time; of those that wait only the last counts, and the others are not answered.
    fn mount(&mut self, volumes: Volumes) -> Vec<Output> {
        if self.mounting {
            self.to_mount = Some(volumes);
            return Vec::new();
        }
        self.mounting = true;
        vec![Output::Mount(volumes)]
    }

    fn mounted(&mut self, mounted: VolumesMounted) -> Vec<Output> {
        self.mounting = false;
        let mut out = vec![Output::Send(Up::VolumesMounted(mounted))];
        let next = self.to_mount.take();
        out.extend(next.into_iter().flat_map(|volumes| self.mount(volumes)));
        out
    }

    fn tick(&mut self, now: Instant) -> Vec<Output> {
        if now >= self.heard + self.silence {
            return vec![Output::Close(Closed::Silent)];
        }
        let mut out = Vec::new();
        if self.is_welcome() && now >= self.beat_at {
            self.beat_at = now + self.heartbeat;
            self.beat.seq += 1;
            out.push(Output::Send(Up::Heartbeat(self.beat)));
        }
        if let Some(welcome) = &self.welcome
            && self.facts_at.is_some_and(|at| now >= at)
        {
            self.facts_at = None;
            out.push(Output::CollectFacts(welcome.main_user.clone()));
        }
        if self.is_welcome() && now >= self.renew_at {
            self.renew_at = now + RENEW_AGAIN;
            out.push(Output::MakeCsr);
        }
        out
    }

    /// The next piece of a spool that may be sent: runs in turn, never more under way than the window.
    pub fn next_piece(&self) -> Option<Piece> {
        self.welcome.as_ref()?;
        let under_way: u64 = self.runs.values().map(|run| run.sent - run.acked).sum();
        let room =
            usize::try_from(SPOOL_WINDOW_BYTES as u64 - under_way.min(SPOOL_WINDOW_BYTES as u64))
                .unwrap_or(0);
        if room < MAX_FRAME_BYTES {
            return None;
        }
        let wanting = |(run, progress): (&RunId, &Progress)| {
            (progress.bytes > progress.sent).then_some((*run, progress.sent))
        };
        let after = self.served.and_then(|served| {
            let range = (
                std::ops::Bound::Excluded(served),
                std::ops::Bound::Unbounded,
            );
            self.runs.range(range).find_map(wanting)
        });
        let (run, offset) = after.or_else(|| self.runs.iter().find_map(wanting))?;
        Some(Piece {
            run,
            offset,
            most: room.min(SPOOL_CHUNK_BYTES),
        })
    }

    /// So many bytes of the piece are under way now. None means that there is no whole frame yet: the run waits for news.
    pub fn sent(&mut self, piece: Piece, bytes: usize) {
        self.served = Some(piece.run);
        if let Some(progress) = self.runs.get_mut(&piece.run) {
            progress.sent += bytes as u64;
            if bytes == 0 {
                progress.bytes = progress.sent;
            }
        }
    }

    /// The run can't be read: it is left out of this session.
    pub fn skip(&mut self, run: RunId) {
        self.runs.remove(&run);
    }
}

fn goodbye(reason: &str) -> Output {
    Output::Send(Up::GoingAway(GoingAway {
        reason: reason.to_owned(),
    }))
}

fn parsed(run_id: &str, output: impl FnOnce(RunId) -> Output) -> Vec<Output> {
    match run_id.parse() {
        Ok(run) => vec![output(run)],
        Err(error) => {
            tracing::warn!(%error, "the master named a run that cannot be");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
