//! What one session does with what happens, without doing it: messages, results and the time in, outputs out. Called by the
//! session's loop. No I/O, no clock.

mod events;
mod latest;
mod node_facts;
mod spool_window;
mod welcome;

use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::builtin::Builtin;
use aot_proto::facts::{BadPiece, Joiner};
use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, SILENCE};
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    BuiltinCall, BuiltinReply, ClusterFacts, ClusterFactsApplied, FactsReport, GoingAway,
    Heartbeat, RenewRequest, RunAnswer, RunState, Volumes, Welcome,
};

use crate::VERSION;
pub use events::{Closed, SessionInput, SessionOutput};
use latest::Latest;
use node_facts::SentFacts;
pub use spool_window::SpoolPiece;
use spool_window::SpoolWindow;

/// A renewal that got no answer, or a bad one, is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Longest reason of a master's goodbye, in characters; what is past it is cut.
const MAX_REASON: usize = 300;

/// The state of one session.
pub struct Protocol {
    /// Version of the protocol that both sides speak: what is sent may depend on it. `None` before the welcome.
    agreed: Option<u32>,
    /// The highest epoch that a master of this cluster had; 0 = none named one.
    epoch: i64,
    /// The session is being left: what its master still says is not obeyed.
    is_left: bool,
    welcome: Option<Welcome>,
    hello_runs: Vec<RunState>,
    heartbeat: Duration,
    silence: Duration,
    heard: Instant,
    beat_at: Instant,
    beat: Heartbeat,
    spools: SpoolWindow,
    facts: SentFacts,
    joiner: Joiner,
    cluster_facts: Latest<Box<ClusterFacts>>,
    volumes: Latest<Volumes>,
    renew_at: Instant,
}

impl Protocol {
    /// A session that begins at `now` by a Hello naming `runs`; a certificate is to be renewed at `renew_at`. `epoch` is the
    /// highest that a master of this cluster had so far.
    pub fn new(runs: Vec<RunState>, epoch: i64, renew_at: Instant, now: Instant) -> Self {
        Self {
            agreed: None,
            epoch,
            is_left: false,
            welcome: None,
            hello_runs: runs,
            heartbeat: HEARTBEAT,
            silence: SILENCE,
            heard: now,
            beat_at: now + HEARTBEAT,
            beat: Heartbeat::default(),
            spools: SpoolWindow::new(now),
            facts: SentFacts::default(),
            joiner: Joiner::default(),
            cluster_facts: Latest::default(),
            volumes: Latest::default(),
            renew_at,
        }
    }

    /// Decides what follows from `input` at `now`.
    pub fn step(&mut self, input: SessionInput, now: Instant) -> Vec<SessionOutput> {
        match input {
            SessionInput::Master(message) => {
                self.heard = now;
                message
                    .body
                    .map_or_else(Vec::new, |body| self.on_message(body, now))
            }
            SessionInput::Grown(run, bytes) => {
                self.spools.grown(run, bytes, now);
                Vec::new()
            }
            SessionInput::FactsCollected(report) => self.facts_collected(report, now),
            SessionInput::Applied(applied) => {
                let answer = SessionOutput::Send(Up::ClusterFactsApplied(applied));
                let next = self.cluster_facts.done();
                let next = next.map(|facts| self.apply(facts));
                [answer].into_iter().chain(next).collect()
            }
            SessionInput::Mounted(mounted) => {
                let answer = SessionOutput::Send(Up::VolumesMounted(mounted));
                let next = self.volumes.done().map(SessionOutput::Mount);
                [answer].into_iter().chain(next).collect()
            }
            SessionInput::Started(run_id, result) => {
                let accepted = result.is_ok();
                let answer = RunAnswer {
                    run_id,
                    accepted,
                    reason: result.err().unwrap_or_default(),
                };
                vec![SessionOutput::Send(Up::RunAnswer(answer))]
            }
            SessionInput::Fetched(progress) if self.is_welcome() => {
                vec![SessionOutput::Send(Up::CopyProgress(progress))]
            }
            SessionInput::Fetched(_) => Vec::new(),
            SessionInput::Csr(Some(csr_der)) => {
                vec![SessionOutput::Send(Up::Renew(RenewRequest { csr_der }))]
            }
            SessionInput::Csr(None) => Vec::new(),
            SessionInput::Installed(renew_at) => {
                self.renew_at = renew_at;
                Vec::new()
            }
            SessionInput::FileRead(reply) => vec![SessionOutput::Send(Up::BuiltinReply(reply))],
            SessionInput::Tick => self.tick(now),
            SessionInput::Stop => vec![
                goodbye("the agent stops"),
                SessionOutput::Close(Closed::Stopping),
            ],
        }
    }

    fn on_message(&mut self, body: Down, now: Instant) -> Vec<SessionOutput> {
        if self.is_left {
            return Vec::new();
        }
        if let Some(why) = self.speaks_too_soon(&body) {
            return self.leave(why);
        }
        match body {
            Down::Welcome(welcome) => self.welcomed(welcome, now),
            Down::Heartbeat(beat) => {
                self.beat.echo = beat.seq;
                Vec::new()
            }
            Down::ClusterFacts(piece) => match self.joiner.step(&piece) {
                Ok(facts) => {
                    let facts = facts.and_then(|facts| self.cluster_facts.offer(Box::new(facts)));
                    let apply = facts.map(|facts| self.apply(facts));
                    apply.into_iter().collect()
                }
                // The next session is given them from their start.
                Err(error @ BadPiece::Missing) => {
                    vec![SessionOutput::Close(Closed::Broken(error.to_string()))]
                }
                // They would be the same in the next session: the master asks again at a pace, and says why it has to.
                Err(error) => {
                    let applied = ClusterFactsApplied {
                        generation: piece.generation,
                        sha256: String::new(),
                        error: error.to_string(),
                    };
                    vec![SessionOutput::Send(Up::ClusterFactsApplied(applied))]
                }
            },
            Down::StartRun(start) => vec![SessionOutput::Start(Box::new(start))],
            Down::CancelRun(cancel) => parsed(&cancel.run_id, |run| {
                SessionOutput::Cancel(run, cancel.grace_ms)
            }),
            Down::SpoolAck(ack) => {
                self.spools.acked(&ack, now);
                Vec::new()
            }
            Down::ForgetRun(forget) => parsed(&forget.run_id, |run| {
                self.spools.remove(run);
                SessionOutput::Forget(run)
            }),
            Down::Volumes(volumes) => {
                let volumes = self.volumes.offer(volumes);
                volumes.map(SessionOutput::Mount).into_iter().collect()
            }
            Down::OpenShell(open) => vec![SessionOutput::OpenShell(Box::new(open))],
            Down::OpenTunnel(open) => vec![SessionOutput::OpenTunnel(Box::new(open))],
            Down::Builtin(call) => self.builtin(&call),
            Down::Renew(reply) if reply.error.is_empty() => {
                vec![SessionOutput::Install(reply.certificate_pem)]
            }
            Down::Renew(reply) => {
                tracing::warn!(
                    error = reply.error,
                    "the master did not renew the certificate; asking again later"
                );
                Vec::new()
            }
            Down::GoingAway(away) => vec![
                // Shows that it was read: the master may ask itself whether another speaks for this machine.
                SessionOutput::Send(Up::Heartbeat(self.beat)),
                SessionOutput::Close(Closed::ByMaster {
                    reason: away.reason.chars().take(MAX_REASON).collect(),
                    within: Duration::from_millis(away.reconnect_after_ms),
                }),
            ],
            Down::Reboot(reboot) => vec![
                goodbye(&format!("reboot: {}", reboot.reason)),
                SessionOutput::Close(Closed::Reboot),
            ],
        }
    }

    /// The spool of a run that Hello named is longer for the master than it is here. To be called before the
    /// welcome is fed in.
    pub(crate) fn realigned(&mut self, run_id: &str, bytes: u64) {
        for state in self
            .hello_runs
            .iter_mut()
            .filter(|state| state.run_id == run_id)
        {
            state.spool_bytes = bytes;
        }
    }

    fn builtin(&mut self, call: &BuiltinCall) -> Vec<SessionOutput> {
        let (json, error) = match Builtin::parse(&call.name, &call.args) {
            Ok(Builtin::Ping) => ("true".to_owned(), String::new()),
            Ok(Builtin::Version) => (format!("\"{VERSION}\""), String::new()),
            Ok(Builtin::Facts) => match self.facts.answer(call.id) {
                None => return Vec::new(),
                Some(Ok(json)) => (json, String::new()),
                Some(Err(error)) => (String::new(), error.to_owned()),
            },
            Ok(what @ (Builtin::Stat { .. } | Builtin::Tail { .. })) => {
                return vec![SessionOutput::ReadFile(call.id, what)];
            }
            Err(error) => (
                String::new(),
                format!("{}: {error} (agent {VERSION})", call.name),
            ),
        };
        vec![SessionOutput::Send(Up::BuiltinReply(BuiltinReply {
            id: call.id,
            json,
            error,
        }))]
    }

    fn facts_collected(&mut self, report: Box<FactsReport>, now: Instant) -> Vec<SessionOutput> {
        let (send, answers) = self.facts.collected(report, now);
        let report = send.map(Up::Facts);
        let answers = answers.into_iter().map(Up::BuiltinReply);
        report
            .into_iter()
            .chain(answers)
            .map(SessionOutput::Send)
            .collect()
    }

    fn apply(&self, facts: Box<ClusterFacts>) -> SessionOutput {
        let cluster = self.welcome.as_ref().map(|it| it.cluster.clone());
        SessionOutput::Apply(cluster.unwrap_or_default(), facts)
    }

    fn tick(&mut self, now: Instant) -> Vec<SessionOutput> {
        if now >= self.heard + self.silence {
            return vec![SessionOutput::Close(Closed::Silent)];
        }
        let mut out = Vec::new();
        if self.is_welcome() && now >= self.beat_at {
            self.beat_at = now + self.heartbeat;
            self.beat.seq += 1;
            out.push(SessionOutput::Send(Up::Heartbeat(self.beat)));
        }
        if let Some(welcome) = &self.welcome
            && self.facts.is_due(now)
        {
            out.push(SessionOutput::CollectFacts(welcome.main_user.clone()));
        }
        if self.is_welcome() && now >= self.renew_at {
            self.renew_at = now + RENEW_AGAIN;
            out.push(SessionOutput::MakeCsr);
        }
        out
    }

    /// The next piece of a spool that may be sent; none before the welcome.
    pub fn next_piece(&self, now: Instant) -> Option<SpoolPiece> {
        self.welcome.as_ref()?;
        self.spools.next_piece(now)
    }

    /// When a piece that waits for more may go without; `None` when none does, or the master has to catch up first.
    pub fn piece_at(&self, now: Instant) -> Option<Instant> {
        self.spools.piece_at(now)
    }

    /// This many bytes of the piece are under way now; 0 when there is no whole frame yet.
    pub fn sent(&mut self, piece: SpoolPiece, bytes: usize, now: Instant) {
        self.spools.sent(piece, bytes, now);
    }

    /// The run can't be read: it is left out of this session.
    pub(crate) fn skip(&mut self, run: RunId) {
        self.spools.remove(run);
    }
}

fn goodbye(reason: &str) -> SessionOutput {
    SessionOutput::Send(Up::GoingAway(GoingAway {
        reason: reason.to_owned(),
    }))
}

fn parsed(run_id: &str, output: impl FnOnce(RunId) -> SessionOutput) -> Vec<SessionOutput> {
    match run_id.parse() {
        Ok(run) => vec![output(run)],
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "the master named an invalid run");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
