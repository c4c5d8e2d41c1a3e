//! What a session does with its agent's reports, in order: the second half of a session, beside `stream`. Each file has one
//! kind: `hello`, `facts`, `output` (pieces on their way to disk), `acks` (what was stored), `ends` (of runs), `renewal`.
//! Run by `life`; reaches the rest of the master by `Master` alone, and decides nothing about clusters.

mod acks;
mod ends;
mod facts;
mod hello;
mod master;
mod output;
mod renewal;
#[cfg(test)]
mod tests;

use std::time::Instant;

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{RunId, SpiffeId};
use aot_proto::limits::SPOOL_WINDOW_BYTES;
use aot_proto::v1::{self, master_message};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;

pub(crate) use hello::Origin;
pub(crate) use master::{Greeting, Master, OwnRun};

use super::end::SessionEnd;
use super::protocol::SessionReport;
use super::registry::SessionCommand;
use crate::log_limit::LogLimit;
use facts::FactsPace;
use output::UnstoredRuns;

/// Pieces of output of one session that may be on their way to disk, and together no more than an agent may send ahead
/// ([`SPOOL_WINDOW_BYTES`]) and one piece. When full, no more of its reports are read.
const PIECES: usize = 64;

/// Carries one session's reports on, in order.
pub(crate) struct Reports<M> {
    master: M,
    at: InstanceKey,
    id: SpiffeId,
    session: u64,
    end: SessionEnd,
    origin: Origin,
    held: UnstoredRuns,
    log_limit: LogLimit,
}

impl<M: Master> Reports<M> {
    /// Of a session that was just registered.
    pub(crate) fn new(
        master: M,
        at: InstanceKey,
        id: SpiffeId,
        session: u64,
        end: SessionEnd,
        origin: Origin,
    ) -> Self {
        Self {
            master,
            at,
            id,
            session,
            end,
            origin,
            held: UnstoredRuns::default(),
            log_limit: LogLimit::default(),
        }
    }

    /// Until the session's owner brings nothing more, or the session's end has come: what it brought before that and is not
    /// yet decided on is brought again by the next session.
    pub(crate) async fn run(mut self: Box<Self>, inbox: mpsc::Receiver<Box<SessionReport>>) {
        let end = self.end.clone();
        tokio::select! {
            () = end.come() => {}
            () = self.carry(inbox) => {}
        }
    }

    async fn carry(&mut self, mut inbox: mpsc::Receiver<Box<SessionReport>>) {
        // Nobody waits for one piece's disk before the next is read: it would cost a sync each.
        let mut pieces = FuturesOrdered::new();
        let mut on_the_way = 0;
        let mut pace = FactsPace::default();
        loop {
            let report = tokio::select! {
                report = inbox.recv(), if pieces.len() < PIECES && on_the_way < SPOOL_WINDOW_BYTES => report,
                Some(piece) = pieces.next() => {
                    on_the_way -= Box::pin(self.stored(&mut pieces, piece)).await;
                    continue;
                }
                () = self.held.due() => {
                    self.request_again();
                    continue;
                }
                facts = pace.due() => Some(Box::new(SessionReport::Facts(facts))),
            };
            match report.map(|report| *report) {
                Some(SessionReport::Spool { run, data }) => {
                    let bytes = data.data.len();
                    if let Some(piece) = self.piece(run, data).await {
                        on_the_way += bytes;
                        pieces.push_back(piece);
                    }
                }
                Some(SessionReport::Facts(facts)) => {
                    if let Some(facts) = pace.now_or_later(facts) {
                        Box::pin(self.facts(*facts)).await;
                    }
                }
                // Rare, and its memory is not for every session to hold all the time.
                Some(report) => Box::pin(self.report(report)).await,
                None => break,
            }
        }
        while let Some(piece) = pieces.next().await {
            Box::pin(self.stored(&mut pieces, piece)).await;
        }
    }

    async fn report(&mut self, report: SessionReport) {
        match report {
            SessionReport::Hello { hello, protocol } => self.hello(hello, protocol).await,
            SessionReport::Facts(facts) => self.facts(*facts).await,
            SessionReport::FactsTooLarge => self.ignored("facts of more than 256 KiB"),
            SessionReport::Volumes(mounted) => {
                self.submit(AgentInput::VolumesMounted {
                    id: mounted.id,
                    error: mounted.error,
                })
                .await;
            }
            SessionReport::Applied(applied) => {
                self.submit(AgentInput::Applied {
                    generation: applied.generation,
                    error: applied.error,
                })
                .await;
            }
            SessionReport::RunAnswer(answer) => self.run_answer(answer).await,
            SessionReport::Spool { run, data } => {
                if let Some(piece) = self.piece(run, data).await {
                    self.ack(piece.await).await;
                }
            }
            SessionReport::Copied { run, progress } => self.copied(run, &progress),
            SessionReport::Renew(csr) => self.renew(&csr).await,
        }
    }

    /// As an input of this session and instance, whatever it says.
    fn input(&self, report: AgentInput) -> Input {
        Input::Agent {
            at: self.at.clone(),
            session: self.session,
            report,
        }
    }

    async fn submit(&self, report: AgentInput) {
        self.master.submit(self.input(report)).await;
    }

    fn send(&self, body: master_message::Body) {
        let command = SessionCommand::Send(Box::new(body));
        let registry = self.master.registry();
        if !registry.send(&self.at, self.session, command) {
            tracing::debug!(instance = %self.at, session = self.session, "the session has ended meanwhile");
        }
    }

    /// Lets the agent drop a run, in this session alone: one that was replaced is sent nothing any more.
    fn forget(&self, run: RunId) {
        let run_id = run.to_string();
        self.send(master_message::Body::ForgetRun(v1::ForgetRun { run_id }));
    }

    fn own_run(&self, run: RunId) -> Option<OwnRun> {
        self.master.own_run(&self.at, self.session, run)
    }

    async fn run_answer(&self, answer: v1::RunAnswer) {
        if let Ok(run) = answer.run_id.parse() {
            let (accepted, reason) = (answer.accepted, answer.reason);
            self.submit(AgentInput::RunAnswer {
                run,
                accepted,
                reason,
            })
            .await;
        }
    }

    fn copied(&self, run: RunId, progress: &v1::CopyProgress) {
        if let Some(own) = self.own_run(run) {
            self.master.copy_progress(own.job, &self.at, progress);
        }
    }

    /// Something that its agent sent goes no further.
    fn ignored(&self, what: &str) {
        if let Some(left_out) = self.log_limit.admit(Instant::now()) {
            tracing::warn!(instance = %self.at, what, left_out, "ignored something an agent sent");
        }
    }
}
