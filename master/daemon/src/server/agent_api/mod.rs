//! Enrolment and the agents' services: from gRPC to `enrol` and `session`, and back. Attach hands its stream to a session.

mod broken;
pub(crate) mod enrol;
mod fetch;
mod inbound;
mod link;
mod master;
mod outgoing;

use std::sync::Arc;

use aot_host::chain::Chain;
use aot_model::key::InstanceKey;
use aot_model::world::{Answer, Input};
use aot_proto::ids::SpiffeId;
use aot_proto::status;
use aot_store::room::Room;
use aot_store::spool::Spools;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};

pub(crate) use link::routes;

use super::limits::RateLimit;
use super::listener::Peer;
use super::pending::{PendingLinks, ShellLink, TunnelLink};
use super::transfers::Transfers;
use crate::enrol::attest::certificates::Certificates;
use crate::enrol::ca;
use crate::fleet::ClusterFinder;
use crate::run::contents::Contents;
use crate::run::outputs::Outputs;
use crate::run::{Engines, Unanswered, now_ms};
use crate::session::registry::{Open, Registry};

/// Facts that are taken apart at once; others wait as text. When a thousand agents come back together, what they need for
/// a moment would stay with the process.
pub(crate) const FACTS: usize = 64;

/// What the agents' services need.
#[derive(Clone)]
pub(crate) struct AgentApi {
    /// Who decides.
    pub engine: Engines,
    /// Who signs.
    pub ca: Arc<ca::Ca>,
    /// Who is there.
    pub registry: Arc<Registry>,
    /// Where agents find this master.
    pub advertised: Arc<[String]>,
    /// Where they find the others.
    pub finder: ClusterFinder,
    /// Copies of runs' spools.
    pub spools: Arc<Spools>,
    /// What runs printed that have ended.
    pub outputs: Arc<Outputs>,
    /// Terminals that wait for their agents.
    pub shells: PendingLinks<ShellLink>,
    /// Connections that wait for their agents.
    pub tunnels: PendingLinks<TunnelLink>,
    /// What stages are run from.
    pub bundles: Arc<Contents>,
    /// Archives of copies.
    pub uploads: Arc<Contents>,
    /// How far copies are.
    pub transfers: Arc<Transfers>,
    /// Whether there is room for more.
    pub room: Arc<Room>,
    /// How often one may try to enrol.
    pub limit: Arc<RateLimit>,
    /// AWS's certificates for identity documents.
    pub certificates: Arc<Certificates>,
    /// Enrolments that wait for the provider to show their machine, see [`enrol::WAITING`].
    pub waiting: Arc<Semaphore>,
    /// Turns of facts that are read and decided on, see [`FACTS`].
    pub facts: Arc<Semaphore>,
    /// Owner of sessions.
    pub tasks: TaskTracker,
    /// Ends sessions.
    pub stop: CancellationToken,
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Status::internal("no connection"))
}

/// Why there is no answer of the loop's. What stopped it is not for machines.
fn unanswered(why: Unanswered) -> Status {
    match why {
        Unanswered::Stopping => status::stopping(),
        Unanswered::Away | Unanswered::Unsure => status::store_away(),
        Unanswered::Elsewhere => status::moved(),
    }
}

fn key_of(id: &SpiffeId) -> InstanceKey {
    InstanceKey {
        cluster: id.cluster.clone(),
        instance: id.instance.clone(),
    }
}

impl AgentApi {
    /// Signs a certificate, and gives it out when the world says that its holder still is who it was: in a renewal, by the
    /// session that asked for it, and the certificate that it asked with.
    async fn issue(
        &self,
        csr: &ca::SigningRequest,
        id: &SpiffeId,
        renewal: Option<(u64, String)>,
    ) -> Result<ca::Issued, Status> {
        let at = key_of(id);
        let issued = self.ca.issue(csr, id).map_err(|error| {
            tracing::error!(instance = %at, error = %Chain(&error), "cannot sign a certificate");
            Status::internal("cannot sign")
        })?;
        let (session, asked_with) = renewal.unzip();
        let input = Input::Issued {
            at: at.clone(),
            machine: id.machine.clone(),
            session,
            asked_with,
            key_sha256: csr.key_sha256.clone(),
            serial: issued.serial.clone(),
            expires_unix: issued.expires_unix,
        };
        match self.engine.ask(input).await {
            Ok(Answer::Refused(refused)) => {
                tracing::warn!(instance = %at, error = %Chain(&refused), "refused to give out a certificate");
                Err(Status::permission_denied("not admitted"))
            }
            Ok(_) => Ok(issued),
            Err(why) => Err(unanswered(why)),
        }
    }

    /// As [`AgentApi::known`], for a stream beside the session, which ends when its machine is shut out.
    async fn open(&self, peer: &Peer) -> Result<(InstanceKey, Open), Status> {
        let known = self.known(peer)?;
        let open = self.registry.open(&known.at);
        self.known(peer)?; // shut out meanwhile: then nobody ends what was opened after that
        if known.is_new {
            let (at, serial) = (known.at.clone(), known.serial);
            self.engine
                .submit(Input::CertificateSeen { at, serial })
                .await;
        }
        Ok((known.at, open))
    }

    /// The instance that a connection's certificate stands for, when that is so at this very moment: a connection lives
    /// longer than what was found out when it was made.
    fn known(&self, peer: &Peer) -> Result<Caller, Status> {
        let holder = peer
            .holder
            .as_ref()
            .ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let at = key_of(&holder.id);
        // It was led here, or dialled, a moment before its cluster went; or it is about to come.
        if !self.engine.is_decided_here(&at.cluster) && !self.finder.is_none(&at.cluster) {
            return Err(status::moved());
        }
        let now = now_ms();
        let found = self.engine.read(&at.cluster, |world| {
            let instance = world.instance(&at);
            let instance = instance.filter(|it| it.machine_id() == Some(&holder.id.machine));
            let identity = instance
                .and_then(|it| it.identity.as_ref())
                .filter(|_| holder.id.master == self.ca.id())
                .ok_or(Unfit::NotThatInstance)?;
            if holder.expires_unix.saturating_mul(1000) <= now {
                return Err(Unfit::Expired);
            }
            if !identity.certifies(&holder.serial, now) {
                return Err(Unfit::Superseded);
            }
            Ok(identity.is_renewing() && identity.serial == holder.serial)
        });
        match found {
            Ok(is_new) => Ok(Caller {
                at,
                id: holder.id.clone(),
                serial: holder.serial.clone(),
                is_new,
            }),
            Err(unfit) => {
                self.limit.log(peer.address.ip(), |left_out| {
                    tracing::warn!(address = %peer.address, agent = %holder.id, error = %Chain(&unfit), left_out, "refused an agent");
                });
                Err(Status::permission_denied(unfit.to_string()))
            }
        }
    }
}

/// Who makes a call.
struct Caller {
    at: InstanceKey,
    id: SpiffeId,
    /// Of its certificate, hex.
    serial: String,
    /// It is shown for the first time since it was given out.
    is_new: bool,
}

/// Why a certificate of ours does not count. Its holder learns it: it may have a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("not admitted: the machine is not that instance, or no longer is")]
    NotThatInstance,
    #[error("the certificate has expired: enrol again")]
    Expired,
    #[error("another certificate was given out in place of this one: enrol again")]
    Superseded,
}
