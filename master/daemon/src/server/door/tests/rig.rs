//! Masters for these tests: one at its operators' socket, one at the masters' port.

use std::path::Path;
use std::sync::Arc;

use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::v1::operator_server::OperatorServer;
use aot_store::fleet::{FixedFleet, sample_view};
use aot_store::sqlite::Sqlite;
use aot_store::{Backend, Store};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};

use super::fake::Fake;
use crate::enrol::ca::Ca;
use crate::fleet::ClusterFinder;
use crate::server::door::Door;
use crate::server::peer::tests::{authority, master};
use crate::server::peer::{self, PeerIdentity, Peers};
use crate::server::serve::operators;
use crate::server::ways::Ways;

async fn no_jobs(dir: &Path) -> Arc<dyn Store> {
    Sqlite.open(dir).await.expect("opens").store
}

/// A master on the masters' port.
pub(crate) struct Owner {
    pub(crate) port: u16,
    pub(super) fleet: Arc<FixedFleet>,
    pub(super) fake: Fake,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Owner {
    /// With this id, and clusters with their masters as it knows them.
    pub(crate) async fn start(ca: &Arc<Ca>, id: &str, owners: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let fleet = Arc::new(FixedFleet::new(sample_view(id, owners)));
        let ways = Ways {
            finder: ClusterFinder::new(Some(fleet.clone())),
            peers: None,
        };
        let fake = Fake::new(id);
        let service = OperatorServer::new(fake.clone());
        let door = Door::new(service, ways, no_jobs(dir.path()).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let identity = Arc::new(PeerIdentity::new(ca.clone(), id.to_owned()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let serve = peer::serve(listener, identity, door, tasks.clone(), stop.clone());
        tasks.spawn(serve);
        Self {
            port,
            fleet,
            fake,
            _stop: stop.drop_guard(),
            _dir: dir,
        }
    }
}

/// The master `a`, as its operators have it.
pub(super) struct AtTheDoor {
    pub(super) client: OperatorClient<Channel>,
    pub(super) fleet: Arc<FixedFleet>,
    pub(super) fake: Fake,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

/// Calls of this master on others.
pub(super) fn peers(ca: &Arc<Ca>, id: &str) -> Peers {
    let identity = Arc::new(PeerIdentity::new(ca.clone(), id.to_owned()));
    Peers::new(identity, TaskTracker::new(), CancellationToken::new())
}

/// `a` has web, `b` at this port has db.
pub(super) async fn door(ca: &Arc<Ca>, port: u16) -> AtTheDoor {
    let dir = tempfile::tempdir().expect("a folder");
    let mut view = sample_view("a", &[("web", "a"), ("db", "b")]);
    view.masters.insert("b".to_owned(), master("b", port));
    let fleet = Arc::new(FixedFleet::new(view));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let identity = Arc::new(PeerIdentity::new(ca.clone(), "a".to_owned()));
    let ways = Ways {
        finder: ClusterFinder::new(Some(fleet.clone())),
        peers: Some(Arc::new(Peers::new(identity, tasks.clone(), stop.clone()))),
    };
    let fake = Fake::new("a");
    let service = OperatorServer::new(fake.clone());
    let door = Door::new(service, ways, no_jobs(dir.path()).await);
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).expect("binds");
    let until = stop.clone();
    tasks.spawn(async move {
        let server = tonic::transport::Server::builder().add_service(door);
        server
            .serve_with_incoming_shutdown(operators::incoming(listener), until.cancelled_owned())
            .await
    });
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://master");
    let channel = endpoint.connect_with_connector(connector).await;
    AtTheDoor {
        client: OperatorClient::new(channel.expect("connects")),
        fleet,
        fake,
        _stop: stop.drop_guard(),
        _dir: dir,
    }
}

pub(super) async fn both() -> (AtTheDoor, Owner) {
    let ca = authority();
    let owner = Owner::start(&ca, "b", &[("web", "a"), ("db", "b")]).await;
    (door(&ca, owner.port).await, owner)
}

/// A port that leads to this one until the set is dropped.
pub(super) async fn led_to(port: u16) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let own = listener.local_addr().expect("bound").port();
    let mut way = JoinSet::new();
    way.spawn(async move {
        let mut copies = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("connects");
            copies.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (own, way)
}
