//! What serves agents and operators, each with what it needs of the master. Made once, at the start of `running`.

use std::sync::Arc;

use aot_proto::limits::{MAX_ENROL_BYTES, MAX_MESSAGE_BYTES};
use aot_proto::v1;
use aot_proto::v1::agent_link_server::AgentLinkServer;
use aot_proto::v1::enrolment_server::EnrolmentServer;
use aot_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::operators::Operators;
use super::state::State;
use super::{Opened, operators};
use crate::enrol::secret_vault::SecretVault;
use crate::fleet::ClusterFinder;
use crate::run::Engines;
use crate::run::ask::Lookups;
use crate::run::providers::Providers;
use crate::server::agent_api::{self, AgentApi};
use crate::server::boot_api::{self, BootApi};
use crate::server::boot_pass::BootPass;
use crate::server::forwards::Forwards;
use crate::server::health;
use crate::server::limits::RateLimit;
use crate::server::operator_api::OperatorApi;
use crate::server::pending::PendingLinks;
use crate::server::route::Guide;
use crate::server::ways::Ways;
use crate::session::registry::Registry;

/// Where machines are led to.
pub(super) struct AgentWays {
    /// What this master advertises.
    pub(super) advertised: Arc<[String]>,
    pub(super) finder: ClusterFinder,
    pub(super) guide: Guide,
}

pub(super) struct Services {
    agent_api: AgentApi,
    boot: Arc<BootApi>,
    boot_pass: Arc<BootPass>,
    store: Arc<dyn Store>,
    providers: Arc<Providers>,
    vault: Arc<SecretVault>,
}

impl Services {
    pub(super) fn new(
        opened: &Opened,
        state: &State,
        engine: Engines,
        registry: Arc<Registry>,
        ways: AgentWays,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let limit = Arc::new(RateLimit::default());
        let boot = Arc::new(BootApi {
            engine: engine.clone(),
            agents: opened.agents.clone(),
            contents: state.agents.clone(),
            limit: limit.clone(),
            open: boot_api::SharedFile::default(),
        });
        let boot_pass = Arc::new(BootPass {
            guide: ways.guide,
            ca: opened.ca.clone(),
            limit: limit.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let agent_api = AgentApi {
            engine,
            ca: opened.ca.clone(),
            registry,
            advertised: ways.advertised,
            finder: ways.finder,
            spools: state.spools.clone(),
            outputs: state.outputs.clone(),
            shells: PendingLinks::default(),
            tunnels: PendingLinks::default(),
            bundles: state.bundles.clone(),
            uploads: state.uploads.clone(),
            transfers: state.transfers.clone(),
            room: opened.room.clone(),
            limit,
            certificates: Arc::new(opened.options.certificates.clone()),
            waiting: Arc::new(Semaphore::new(agent_api::enrol::WAITING)),
            facts: Arc::new(Semaphore::new(agent_api::FACTS)),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        Self {
            agent_api,
            boot,
            boot_pass,
            store: state.store.clone(),
            providers: opened.options.providers.clone(),
            vault: Arc::new(SecretVault::new(&state.join_key)),
        }
    }

    /// Everything behind the agents' port: three gRPC services and the boot routes.
    pub(super) fn agents(&self) -> axum::Router {
        let enrolment =
            EnrolmentServer::new(self.agent_api.clone()).max_decoding_message_size(MAX_ENROL_BYTES);
        let link = AgentLinkServer::new(self.agent_api.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Routes::new(enrolment)
            .add_service(link)
            .into_axum_router()
            .merge(agent_api::routes(self.agent_api.clone()))
            .merge(boot_api::routes(self.boot.clone(), self.boot_pass.clone()))
            .merge(health::routes(
                self.agent_api.finder.clone(),
                self.agent_api.stop.clone(),
            ))
    }

    /// What operators ask. It shares with the agents' services what both have a hand in: terminals and copies.
    pub(super) fn operators(&self, info: v1::InfoReply, ways: Ways) -> Operators {
        let shared = self.agent_api.clone();
        let api = OperatorApi {
            ways: ways.clone(),
            engine: shared.engine,
            registry: shared.registry,
            store: self.store.clone(),
            spools: shared.spools,
            outputs: shared.outputs,
            shells: shared.shells,
            tunnels: shared.tunnels,
            forwards: Forwards::default(),
            calls: self.providers.calls.clone(),
            lookups: Lookups {
                providers: self.providers.clone(),
                tasks: shared.tasks.clone(),
            },
            certificates: shared.certificates,
            agents: self.boot.agents.clone(),
            bundles: shared.bundles,
            uploads: shared.uploads,
            transfers: shared.transfers,
            room: shared.room,
            vault: self.vault.clone(),
            info: Arc::new(info),
            tasks: shared.tasks,
            stop: shared.stop,
        };
        operators::service(api, ways, self.store.clone())
    }
}
