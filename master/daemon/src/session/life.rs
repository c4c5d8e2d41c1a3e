//! The life of one session: its stream and its reports side by side, until both have ended; then the loop learns why. Called
//! by `server` for each `Attach` that it let in; decides nothing.

use std::net::IpAddr;
use std::time::Instant;

use aot_host::chain::Chain;
use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::SpiffeId;
use aot_proto::v1::{AgentMessage, MasterMessage};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Closed;
use super::protocol::Protocol;
use super::registry::Registered;
use super::reports::{Master, Origin, Reports};
use super::stream::{Broken, Session};

/// Reports of one session that may wait for a decision, each of at most 256 KiB (`session::wall`): 4 MiB. When full, the
/// session stops reading.
const REPORTS: usize = 16;

/// An agent that was let in, as its session needs it.
pub(crate) struct Attached<M> {
    pub(crate) master: M,
    pub(crate) at: InstanceKey,
    /// Whom its certificate names.
    pub(crate) id: SpiffeId,
    /// Of that certificate, hex.
    pub(crate) serial: String,
    /// Where it dials from.
    pub(crate) address: IpAddr,
    pub(crate) registered: Registered,
    /// Ends its connection.
    pub(crate) hang_up: CancellationToken,
}

impl<M: Master + Clone> Attached<M> {
    /// Runs the session until the agent leaves, its end comes, or `stop` fires. Boxed, as its parts are: what a future is given
    /// it has room for twice, in every session.
    pub(crate) async fn run<S>(
        self: Box<Self>,
        inbound: S,
        outbound: mpsc::Sender<Box<MasterMessage>>,
        stop: CancellationToken,
    ) where
        S: Stream<Item = Result<AgentMessage, Broken>> + Unpin,
    {
        let (master, at) = (self.master, self.at);
        let session = self.registered.session;
        let (to_reports, inbox) = mpsc::channel(REPORTS);
        let owner = Box::new(Session {
            inbound,
            outbound,
            commands: self.registered.commands,
            end: self.registered.end.clone(),
            reports: to_reports,
            turns: self.registered.turns,
            protocol: Protocol::new(Instant::now()),
        });
        let reports = Box::new(Reports::new(
            master.clone(),
            at.clone(),
            self.id,
            session,
            self.registered.end,
            Origin::new(self.address, self.serial, self.registered.replaced),
        ));
        let stream = async {
            let why = owner.run(stop).await;
            // Not after its reports: what it brought may still be under way, and nothing more is to be sent to it.
            master.registry().remove(&at, session);
            why
        };
        let (why, ()) = tokio::join!(stream, reports.run(inbox));
        if why.is_at_once() {
            self.hang_up.cancel();
        }
        Box::pin(closed(&master, at, session, &why)).await;
    }
}

async fn closed(master: &impl Master, at: InstanceKey, session: u64, why: &Closed) {
    if *why == Closed::StillThere {
        let at = at.clone();
        master.submit(Input::StillThere { at, session }).await;
    }
    tracing::info!(instance = %at, session, error = %Chain(why), "session ends");
    let report = AgentInput::Closed {
        why: why.to_string(),
    };
    let input = Input::Agent {
        at,
        session,
        report,
    };
    master.submit(input).await;
}

#[cfg(test)]
mod tests;
