//! `aot-master serve`: opens everything, serves until it is told to stop, closes in order.

use std::net::ToSocketAddrs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aot_proto::limits::MAX_MESSAGE_BYTES;
use aot_proto::v1;
use aot_proto::v1::agent_link_server::AgentLinkServer;
use aot_proto::v1::enrolment_server::EnrolmentServer;
use aot_proto::v1::operator_server::OperatorServer;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::agent_api::{self, AgentApi};
use super::boot_api::{self, Boot};
use super::limits::RateLimit;
use super::listener;
use super::operator_api::OperatorApi;
use super::shells::Shells;
use super::transfers::Transfers;
use crate::enrol::{self, ca};
use crate::model::retention::Limits;
use crate::model::world::World;
use crate::run::agents::{self, Agents};
use crate::run::janitor::Janitor;
use crate::run::providers::Providers;
use crate::run::{Engine, Parts, now_ms, stop};
use crate::session::registry::Registry;
use crate::store::spool::Spools;
use crate::store::{self, Store};

/// What a daemon is started with; every default is applied.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Agents' port, `host:port`; port 0 = any.
    pub listen: String,
    /// What agents dial; empty = the address as bound.
    pub advertise: Vec<String>,
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// Operators' socket.
    pub socket: PathBuf,
    /// Where agents to hand out lie.
    pub agent_dir: PathBuf,
    /// Started by a command, not by `serve`.
    pub background: bool,
    /// How long jobs, and how much of what they printed, are kept.
    pub keep: Limits,
}

/// Why a daemon can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one runs.
    #[error("a master already uses {}", .0.display())]
    Running(PathBuf),
    /// The agents' port.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file, folder or socket.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An address that agents could never dial.
    #[error("{0:?} is no host:port to advertise to agents")]
    Advertise(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] listener::Error),
    /// Agents.
    #[error(transparent)]
    Agents(#[from] agents::Error),
    /// Random numbers.
    #[error("the system has no random bytes")]
    Random,
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// Another one after every boot (random(4)). Where there is none, power cuts go unnoticed.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Serves until a signal, `shutdown`, or a disk that refuses.
///
/// # Errors
/// When it can't start.
pub async fn serve(options: ServeOptions) -> Result<(), Error> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    stop::on_signal(&stop, &tasks).map_err(io("listen to signals in", &options.state_dir))?;
    crate::files::private_dir(&options.state_dir)
        .map_err(io("make the folder", &options.state_dir))?;
    let _lock = lock(&options.state_dir)?;
    let ca = Arc::new(ca::Ca::open(&options.state_dir)?);
    let agents = Arc::new(Agents::open(
        &options.agent_dir,
        &options.state_dir.join("agents"),
    )?);
    let tcp = bind_again(&options.listen, &options.state_dir).await?;
    let bound = tcp
        .local_addr()
        .map_err(io("look at the port of", &options.state_dir))?
        .to_string();
    let advertise = if options.advertise.is_empty() {
        vec![bound.clone()]
    } else {
        options.advertise.clone()
    };
    let tls = listener::tls(&ca, &hosts(&advertise, &bound)?)?;
    let socket = operators_socket(&options.socket)?;
    mark_foreground(&options)?;
    if options.background {
        ask_for_a_larger_share();
    }
    let (store, loaded) = Store::open(&options.state_dir)?;
    let store = Arc::new(store);
    let spools = Spools::open(&options.state_dir.join("spools"))?;
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let open = loaded.runs.iter().map(|run| run.id);
    spools
        .distrust_other_boots(boot.trim(), open)
        .map_err(io("look at the outputs in", &options.state_dir))?;
    let bundles: Arc<Path> = options.state_dir.join("bundles").into();
    crate::files::private_dir(&bundles).map_err(io("make the folder", &bundles))?;
    let transfers = options.state_dir.join("transfers");
    let transfers =
        Arc::new(Transfers::open(&transfers).map_err(io("use the folder", &transfers))?);
    let join_key = enrol::join_key(&options.state_dir)
        .map_err(io("use the join key in", &options.state_dir))?;
    let registry = Arc::new(Registry::new(now_ms()));
    let providers = Arc::new(Providers::new(&options.state_dir));
    let world = World::new(
        loaded.clusters,
        loaded.jobs,
        loaded.runs,
        join_key.clone(),
        seed()?,
        now_ms(),
    );
    let parts = Arc::new(Parts {
        store: store.clone(),
        spools: spools.clone(),
        registry: registry.clone(),
        providers: providers.clone(),
        agents: agents.clone(),
        ca_pem: ca.pem().to_owned(),
        join_key,
        tasks: tasks.clone(),
    });
    let engine = Engine::start(world, parts, stop.clone());
    let janitor = Janitor {
        engine: engine.clone(),
        store: store.clone(),
        spools: spools.clone(),
        limits: options.keep,
    };
    tasks.spawn(janitor.run(stop.clone()));
    let (limit, shells) = (Arc::new(RateLimit::default()), Shells::default());
    let agent_api = AgentApi {
        engine: engine.clone(),
        ca: ca.clone(),
        registry: registry.clone(),
        spools: spools.clone(),
        shells: shells.clone(),
        bundles: bundles.clone(),
        transfers: transfers.clone(),
        limit: limit.clone(),
        facts: Arc::new(tokio::sync::Semaphore::new(agent_api::FACTS)),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let app = agents_app(
        agent_api,
        Arc::new(Boot {
            engine: engine.clone(),
            agents: agents.clone(),
            limit,
        }),
    );
    tracing::info!(listen = %bound, advertise = %advertise.join(","), socket = %options.socket.display(), "serving");
    let info = info(&options, bound, advertise);
    let (tidied, until) = (transfers.clone(), stop.clone());
    let looked_at = engine.clone();
    tasks.spawn(async move { tidied.keep_tidy(looked_at, until).await });
    let operator_api = OperatorApi {
        engine,
        registry,
        store: store.clone(),
        spools,
        shells,
        providers,
        agents,
        bundles,
        transfers,
        info: Arc::new(info),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(serve_operators(socket, operator_api, stop.clone()));
    tasks.spawn(listener::serve(tcp, tls, app, tasks.clone(), stop.clone()));
    stop.cancelled().await;
    if !stop::drain(&tasks).await {
        tracing::warn!("some tasks did not end in time");
    }
    let _ = std::fs::remove_file(&options.socket); // one that is left is replaced at the next start
    if let Ok(store) = Arc::try_unwrap(store) {
        store.close();
    }
    tracing::info!("stopped");
    Ok(())
}

fn info(options: &ServeOptions, listen: String, advertise: Vec<String>) -> v1::InfoReply {
    v1::InfoReply {
        api_calls: 0, // counted when asked
        version: env!("CARGO_PKG_VERSION").to_owned(),
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
        clusters: Vec::new(),
    }
}

/// Where each session has an equal share of the processors (sched(7), autogroup), that of every process of a clone would
/// be as large as ours, and answers would wait for what they print. In the foreground the share is that of a shell.
fn ask_for_a_larger_share() {
    // Where it can't be had, nothing is lost but time.
    let _ = std::fs::write("/proc/self/autogroup", "-10");
}

/// One state folder, one master: the lock ends with the process, however it ends.
fn lock(state_dir: &Path) -> Result<std::fs::File, Error> {
    let path = state_dir.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Running(state_dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(io("lock", &path)(source)),
    }
}

async fn bind(address: &str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
        address: address.to_owned(),
        source,
    };
    // A master that was killed leaves connections in TIME_WAIT; tokio sets SO_REUSEADDR, so they don't matter.
    let addresses: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
    TcpListener::bind(&addresses[..]).await.map_err(failed)
}

/// With port 0, the port of the last start is taken again when it is free: agents that are out there dial it.
async fn bind_again(address: &str, state_dir: &Path) -> Result<TcpListener, Error> {
    let file = state_dir.join("port");
    let Some(host) = address.strip_suffix(":0") else {
        return bind(address).await;
    };
    let last = std::fs::read_to_string(&file).ok();
    let again = match last.as_deref().map(str::trim) {
        Some(port) => bind(&format!("{host}:{port}")).await.ok(),
        None => None,
    };
    if last.is_some() && again.is_none() {
        tracing::warn!(listen = %address, "the port of the last start is taken: agents that know it cannot find this master");
    }
    let listener = match again {
        Some(listener) => listener,
        None => bind(address).await?,
    };
    let port = listener
        .local_addr()
        .map_err(io("look at the port of", state_dir))?
        .port();
    crate::files::write_atomically(&file, port.to_string().as_bytes())
        .map_err(io("write", &file))?;
    Ok(listener)
}

/// A state that `serve` owns is never served by a master in the background: that one would listen elsewhere, and be in
/// the way when the service comes back. The commands look for this file.
fn mark_foreground(options: &ServeOptions) -> Result<(), Error> {
    let path = options.state_dir.join("foreground");
    if !options.background {
        return crate::files::write_atomically(&path, b"").map_err(io("write", &path));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Hosts that the server's certificate must name.
fn hosts(advertise: &[String], bound: &str) -> Result<Vec<String>, Error> {
    let host = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| host.to_owned())
    };
    let mut hosts = Vec::new();
    for address in advertise {
        hosts.push(host(address).ok_or_else(|| Error::Advertise(address.clone()))?);
    }
    hosts.extend(host(bound));
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

fn seed() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The socket, mode 0600: only its owner and root come in. One that a dead master left is replaced.
fn operators_socket(path: &Path) -> Result<UnixListener, Error> {
    if let Some(dir) = path.parent() {
        crate::files::private_dir(dir).map_err(io("make the folder", dir))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::Running(path.to_owned()));
    }
    let _ = std::fs::remove_file(path); // it need not be there
    let listener = UnixListener::bind(path).map_err(io("listen on", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(io("set the mode of", path))?;
    Ok(listener)
}

/// Everything behind the agents' port: three gRPC services and the boot routes.
fn agents_app(api: AgentApi, boot: Arc<Boot>) -> axum::Router {
    let enrolment = EnrolmentServer::new(api.clone())
        .max_decoding_message_size(aot_proto::limits::MAX_ENROL_BYTES);
    let link = AgentLinkServer::new(api)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Routes::new(enrolment)
        .add_service(link)
        .into_axum_router()
        .merge(boot_api::routes(boot))
}

async fn serve_operators(socket: UnixListener, api: OperatorApi, stop: CancellationToken) {
    let uid = rustix::process::geteuid().as_raw();
    let allowed = UnixListenerStream::new(socket).filter(move |stream| match stream {
        Ok(stream) => stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == uid),
        Err(_) => true,
    });
    let service = OperatorServer::new(api)
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    let result = server
        .serve_with_incoming_shutdown(allowed, async move { stop.cancelled().await })
        .await;
    if let Err(error) = result {
        tracing::error!(%error, "the operators' socket failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_names_every_advertised_host_once() {
        let advertise = [
            "10.0.0.1:7440",
            "master.example:443",
            "[::1]:7440",
            "10.0.0.1:9",
        ]
        .map(str::to_owned);
        let hosts = hosts(&advertise, "0.0.0.0:7440").expect("they are fine");
        assert_eq!(hosts, ["0.0.0.0", "10.0.0.1", "::1", "master.example"]);
        for bad in ["10.0.0.1", "10.0.0.1:x", ":7440"] {
            assert!(
                super::hosts(&[bad.to_owned()], "0.0.0.0:1").is_err(),
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn any_port_is_the_same_port_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let first = bind_again("127.0.0.1:0", dir.path()).await.expect("binds");
        let number = port(&first);
        drop(first);
        let again = bind_again("127.0.0.1:0", dir.path()).await.expect("binds");
        assert_eq!(port(&again), number);
        let other = bind_again("127.0.0.1:0", dir.path())
            .await
            .expect("binds elsewhere");
        assert_ne!(port(&other), number);
    }

    #[test]
    fn one_state_folder_has_one_master() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = lock(dir.path()).expect("is free");
        assert!(matches!(lock(dir.path()), Err(Error::Running(_))));
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }
}
