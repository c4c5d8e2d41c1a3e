//! The third phase: the state is read, the loop and all that serves run as tasks, until a signal, `shutdown` or a disk that
//! refuses; then they are drained, and the state is given back.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use aot_host::chain::Chain;
use aot_host::descriptors;
use aot_proto::v1;
use aot_store::fatal::vital;
use aot_store::fleet::Announcement;
use aot_store::{Hold, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Error;
use super::ports::PeerPort;
use super::services::{AgentWays, Services};
use super::state::State;
use super::{Bound, Opened, ServeOptions, Stop, operators, warnings};
use crate::fleet::ClusterFinder;
use crate::run::blob_janitor::BlobJanitor;
use crate::run::janitor::{Janitor, UnnamedOutputs};
use crate::run::keeper::ClusterKeeper;
use crate::run::{Engines, Inherited, Parts, now_ms, stop};
use crate::server::listener;
use crate::server::peer::{self, PeerIdentity, Peers};
use crate::server::route::Guide;
use crate::server::strangers::ConnectionLimits;
use crate::server::taken_over;
use crate::server::ways::Ways;
use crate::session::registry::Registry;

/// A master that serves.
pub struct Running {
    stop: Stop,
    store: Arc<dyn Store>,
    hold: Arc<Hold>,
    socket: PathBuf,
    /// Last: the next master may have the state once all of this one is gone.
    _lock: File,
}

impl Bound {
    /// Reads the state and starts to serve, until `stop` fires, as a signal, an operator or a failure makes it.
    ///
    /// # Errors
    /// When the state can't be read or brought up to date, or the system has no random bytes; [`Error::Interrupted`] when
    /// `stop` fires before that is done.
    pub async fn run(self, ending: Stop) -> Result<Running, Error> {
        self.run_among(ending, None).await
    }

    /// The same; `finder` stands for that of the store's own masters.
    pub(super) async fn run_among(
        self,
        ending: Stop,
        finder: Option<ClusterFinder>,
    ) -> Result<Running, Error> {
        let Self {
            opened,
            port,
            listen,
            advertise,
            tls,
            peer,
            socket,
        } = self;
        let (stop, tasks) = (&ending.token, &ending.tasks);
        // A database may be long in coming, or another master's for now.
        let mut state = tokio::select! {
            state = State::read(&opened, &ending) => state?,
            () = stop.cancelled() => return Err(Error::Interrupted),
        };
        let inherited = Inherited {
            loaded: std::mem::take(&mut state.loaded),
            is_taken_over: state.is_taken_over,
        };
        warnings::log(&opened.options);
        let registry = Arc::new(Registry::new(now_ms()));
        let parts = Arc::new(parts(&opened, &state, &registry, &ending));
        let asked = state.hold.clone();
        let calls = &opened.options.providers.calls;
        calls.send_while(move || asked.is_good());
        let engine = Engines::start(inherited, parts, seed()?);
        let taken = engine.taken_over(); // before any is
        tasks.spawn(stop_when_lost(state.hold.clone(), stop.clone()));
        if let Some(fleet) = &state.fleet {
            let build = opened.options.build.clone();
            let says = announcement(&advertise, &listen, peer.as_ref(), build);
            fleet.announce(says).await?;
            let mut keeper = ClusterKeeper::new(fleet.clone(), engine.clone());
            // What is this master's is here before anybody asks.
            tokio::select! {
                () = keeper.round() => {}
                () = stop.cancelled() => return Err(Error::Interrupted),
            }
            tasks.spawn(vital("the keeper of clusters", keeper.run(stop.clone())));
        }
        let janitor = Janitor {
            engine: engine.clone(),
            store: state.store.clone(),
            outputs: state.outputs.clone(),
            limits: opened.options.retention,
            unnamed: UnnamedOutputs::default(),
        };
        tasks.spawn(vital("the janitor", janitor.run(stop.clone())));
        let blobs = blob_janitor(&opened, &state, &engine).run(stop.clone());
        tasks.spawn(vital("the janitor of blobs", blobs));
        let (tidied, until) = (state.transfers.clone(), stop.clone());
        let asked = engine.clone();
        tasks.spawn(async move { tidied.tidy_regularly(asked, until).await });
        tracing::info!(listen = %listen, advertise = %advertise.join(","), socket = %opened.options.socket.display(), "serving");
        let finder = finder.unwrap_or_else(|| {
            let (finder, engines) = (ClusterFinder::new(state.fleet.clone()), engine.clone());
            finder.ask_here(move |cluster| engines.has(cluster));
            finder
        });
        let guide = Guide::new(finder.clone(), &state.join_key);
        let ways = AgentWays {
            advertised: advertise.as_slice().into(),
            finder: finder.clone(),
            guide: guide.clone(),
        };
        let info = info(&opened.options, listen, advertise);
        let services = Services::new(&opened, &state, engine, registry, ways, stop, tasks);
        let among = Among::masters(&opened, finder, stop, tasks);
        let operators = services.operators(info, among.ways.clone());
        among.serve(peer, operators.clone(), stop, tasks);
        let ways = among.ways.clone();
        tasks.spawn(taken_over::announce_losses(
            taken,
            ways,
            tasks.clone(),
            stop.clone(),
        ));
        let socket = operators::serve(socket, operators, stop.clone());
        tasks.spawn(vital("the operators' socket", socket));
        let descriptors = usize::try_from(descriptors::limit()).unwrap_or(usize::MAX);
        let port = listener::serve(
            port,
            tls,
            services.agents(),
            ConnectionLimits::of(descriptors),
            guide,
            tasks.clone(),
            stop.clone(),
        );
        tasks.spawn(vital("the agents' port", port));
        Ok(Running {
            stop: ending,
            store: state.store,
            hold: state.hold,
            socket: opened.options.socket,
            _lock: opened.lock,
        })
    }
}

/// This master among others.
struct Among {
    /// `None` for a master alone.
    identity: Option<Arc<PeerIdentity>>,
    ways: Ways,
}

impl Among {
    fn masters(
        opened: &Opened,
        finder: ClusterFinder,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let identity = finder
            .me()
            .map(|id| PeerIdentity::new(opened.ca.clone(), id));
        let identity = identity.map(Arc::new);
        let peers = |it: &Arc<PeerIdentity>| Peers::new(it.clone(), tasks.clone(), stop.clone());
        let peers = identity.as_ref().map(peers).map(Arc::new);
        let ways = Ways { finder, peers };
        Self { identity, ways }
    }

    /// Serves the others, where there may be any.
    fn serve(
        &self,
        peer: Option<PeerPort>,
        operators: operators::Operators,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        if let (Some(PeerPort { port, advertise }), Some(identity)) = (peer, &self.identity) {
            tracing::info!(peer = %advertise, "serving other masters");
            let (identity, owner) = (identity.clone(), tasks.clone());
            let port = peer::serve(port, identity, operators, owner, stop.clone());
            tasks.spawn(vital("the masters' port", port));
        }
    }
}

impl Running {
    /// Waits for the end, then drains: sessions say goodbye, the socket goes, what waits for the disk is written.
    ///
    /// # Errors
    /// [`Error::Stopped`] when nobody asked the master to stop.
    pub async fn ended(self) -> Result<(), Error> {
        self.stop.token.cancelled().await;
        let are_drained = stop::drain(&self.stop.tasks).await;
        if !are_drained {
            tracing::warn!("some tasks did not end in time");
        }
        let _ = std::fs::remove_file(&self.socket); // one that is left is replaced at the next start
        // Some task that did not end may still have it: what it acknowledged is on disk all the same.
        if are_drained {
            self.store.close(&self.hold).await;
        }
        tracing::info!("stopped");
        match stop::why() {
            Some(why) => Err(Error::Stopped(why)),
            None => Ok(()),
        }
    }
}

/// What this master knows is no longer true once another has the records, also when nothing is to be written.
async fn stop_when_lost(hold: Arc<Hold>, stop: CancellationToken) {
    tokio::select! {
        lost = hold.until_lost() => {
            tracing::error!(error = %Chain(&lost), "stopping");
            stop::because(lost.to_string());
            stop.cancel();
        }
        () = stop.cancelled() => {}
    }
}

/// What this master says of itself. `link` is its own port, whatever machines dial.
fn announcement(
    advertise: &[String],
    listen: &str,
    peer: Option<&PeerPort>,
    build: String,
) -> Announcement {
    let peer = peer.map(|peer| peer.advertise.clone()).unwrap_or_default();
    Announcement {
        agents: advertise.to_vec(),
        link: link(listen, &peer),
        peer,
        build,
    }
}

/// The agents' port of this very master: as bound, or, where that is all addresses, on the host that other masters dial.
fn link(listen: &str, peer: &str) -> String {
    let bound = listen.parse::<std::net::SocketAddr>();
    match (bound, peer.rsplit_once(':')) {
        (Ok(bound), Some((host, _))) if bound.ip().is_unspecified() => {
            format!("{host}:{}", bound.port())
        }
        _ => listen.to_owned(),
    }
}

fn blob_janitor(opened: &Opened, state: &State, engine: &Engines) -> BlobJanitor {
    BlobJanitor {
        engine: engine.clone(),
        store: state.store.clone(),
        outputs: state.outputs.clone(),
        bundles: state.bundles.clone(),
        agents: state.agents.clone(),
        handed_out: opened.agents.clone(),
        uploads: state.uploads.clone(),
    }
}

fn parts(opened: &Opened, state: &State, registry: &Arc<Registry>, ending: &Stop) -> Parts {
    Parts {
        store: state.store.clone(),
        hold: state.hold.clone(),
        fleet: state.fleet.clone(),
        spools: state.spools.clone(),
        outputs: state.outputs.clone(),
        room: opened.room.clone(),
        registry: registry.clone(),
        providers: opened.options.providers.clone(),
        agents: opened.agents.clone(),
        ca_pem: opened.ca.pem().to_owned(),
        join_key: state.join_key.clone(),
        tasks: ending.tasks.clone(),
        stop: ending.token.clone(),
    }
}

fn info(options: &ServeOptions, listen: String, advertise: Vec<String>) -> v1::InfoReply {
    v1::InfoReply {
        api_calls: 0, // counted when asked
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: options.build.clone(),
        pid: std::process::id(),
        listen,
        advertise,
        state_dir: options.state_dir.display().to_string(),
        log_path: if options.background {
            options.state_dir.join("master.log").display().to_string()
        } else {
            String::new()
        },
        started_unix: now_ms() / 1000,
        background: options.background,
        ..v1::InfoReply::default() // the rest is looked for when asked
    }
}

fn seed() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}
