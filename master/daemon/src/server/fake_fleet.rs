//! For tests: masters `a` and `b` of one fleet, each with its agents' port and what it knows of the fleet, and machines that dial
//! them. What they serve says who answered, and whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aot_model::hash::JoinKey;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_store::fleet::{ClusterOwner, FixedFleet, FleetView, sample_view};
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::{Extension, Router};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::boot_pass::{BootPass, to_owner};
use super::limits::RateLimit;
use super::listener::{self, Peer};
use super::owner_tls;
use super::route::Guide;
use super::strangers::ConnectionLimits;
use crate::enrol::ca::Ca;
use crate::fleet::ClusterFinder;

/// How long masters wait where nobody has a cluster.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Large enough that it is under way for a while.
pub(super) const LONG: usize = 8 << 20;

/// One of them.
pub(super) struct FakePort {
    pub(super) address: SocketAddr,
    pub(super) fleet: Arc<FixedFleet>,
    /// Of boot requests that it passes on.
    pub(super) limit: Arc<RateLimit>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// Both.
pub(super) struct FakeFleet {
    _dir: TempDir,
    pub(super) ca: Arc<Ca>,
    masters: BTreeMap<&'static str, FakePort>,
}

pub(super) fn join_key() -> JoinKey {
    JoinKey::new(&[1; 32])
}

pub(super) fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

/// The name by which connections of this cluster are opened.
pub(super) fn sni(cluster: &str) -> String {
    Route::of(&name(cluster)).server_name()
}

impl FakeFleet {
    /// Of these clusters with their masters, each master with these limits.
    pub(super) async fn new(owners: &[(&str, &str)], limits: ConnectionLimits) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Arc::new(Ca::open(dir.path()).expect("makes it"));
        let mut masters = BTreeMap::new();
        for id in ["a", "b"] {
            let master = serve(id, sample_view(id, owners), limits, &ca).await;
            masters.insert(id, master);
        }
        let fleet = Self {
            _dir: dir,
            ca,
            masters,
        };
        let announced: Vec<_> = fleet
            .masters
            .iter()
            .map(|(id, it)| (*id, it.address))
            .collect();
        fleet.change(|view| {
            for (id, address) in &announced {
                let master = view.masters.get_mut(*id).expect("is there");
                master.says.agents = vec![address.to_string()];
            }
        });
        fleet
    }

    pub(super) fn master(&self, id: &str) -> &FakePort {
        &self.masters[id]
    }

    /// Both learn of this.
    pub(super) fn change(&self, change: impl Fn(&mut FleetView)) {
        for master in self.masters.values() {
            master.fleet.change(&change);
        }
    }

    /// A machine's connection to master `id`, from this address of this host.
    pub(super) async fn dial(
        &self,
        id: &str,
        from: [u8; 4],
        server_name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::from(from), 0))?;
        let stream = socket.connect(self.master(id).address).await?;
        let config = owner_tls::client(&self.ca).expect("is the authority's");
        let name = ServerName::try_from(server_name.to_owned()).expect("a name");
        TlsConnector::from(config).connect(name, stream).await
    }

    /// What a machine at 127.0.0.1 is answered by master `id`; none when the connection is closed.
    pub(super) async fn ask(&self, id: &str, server_name: &str, request: &str) -> Option<String> {
        let stream = self.dial(id, [127, 0, 0, 1], server_name).await.ok()?;
        asked(stream, request).await
    }
}

/// Says this on a connection, and reads what comes; none when it is closed.
pub(super) async fn asked(mut stream: TlsStream<TcpStream>, request: &str) -> Option<String> {
    let answer = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8(answer).ok()
    };
    let answer = tokio::time::timeout(LIMIT, answer).await;
    answer.expect("in time").filter(|answer| !answer.is_empty())
}

/// A request without a body.
pub(super) fn get_request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{headers}\r\n")
}

/// Makes `master` the owner of this cluster.
pub(super) fn give(view: &mut FleetView, cluster: &str, master: &str) {
    let owner = ClusterOwner {
        master: master.to_owned(),
        epoch: 2,
        ..ClusterOwner::default()
    };
    view.owners.insert(name(cluster), owner);
}

async fn serve(
    id: &'static str,
    view: FleetView,
    limits: ConnectionLimits,
    ca: &Arc<Ca>,
) -> FakePort {
    let fleet = Arc::new(FixedFleet::new(view));
    let guide = Guide::patient(
        ClusterFinder::new(Some(fleet.clone())),
        &join_key(),
        PATIENCE,
    );
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let limit = Arc::new(RateLimit::default());
    let pass = Arc::new(BootPass {
        guide: guide.clone(),
        ca: ca.clone(),
        limit: limit.clone(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    let who = move |Extension(peer): Extension<Peer>| async move {
        format!("{id} {} {}", peer.address.ip(), peer.is_passed_on)
    };
    let boot = move |Extension(peer): Extension<Peer>, headers: http::HeaderMap, body: Bytes| async move {
        let shown = headers.get("authorization").cloned();
        let shown = shown.map(|it| it.to_str().expect("is text").to_owned());
        let body = String::from_utf8_lossy(&body).into_owned();
        let said = format!("{id} {} {shown:?} {body}", peer.address.ip());
        (http::StatusCode::ACCEPTED, said)
    };
    let app = Router::new()
        .route("/who", get(who))
        .route("/v1/boot", post(boot))
        .route("/v1/agent/long", get(|| async { "x".repeat(LONG) }))
        .layer(from_fn_with_state(pass, to_owner));
    let port = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = port.local_addr().expect("is bound");
    let tls = listener::tls(ca, &["127.0.0.1".to_owned()]).expect("sets up");
    let serve = listener::serve(port, tls, app, limits, guide, tasks.clone(), stop.clone());
    tasks.spawn(serve);
    FakePort {
        address,
        fleet,
        limit,
        stop,
        tasks,
    }
}
