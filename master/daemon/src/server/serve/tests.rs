mod again;
mod blobs;
mod fleet;
mod parts;

use std::path::Path;
use std::time::Duration;

use aot_local::LocalProvider;
use aot_model::retention::RetentionLimits;
use aot_proto::v1;
use aot_proto::v1::operator_client::OperatorClient;
use aot_store::sqlite::Sqlite;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::*;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn options(dir: &Path) -> ServeOptions {
    std::fs::write(dir.join("aot-agent"), "an agent").expect("writes");
    let state_dir = dir.join("state");
    ServeOptions {
        providers: Arc::new(Providers::new(
            Arc::new(LocalProvider::new(state_dir.join("local"))),
            Box::new(|_, _| panic!("no region is asked for")),
        )),
        listen: "127.0.0.1:0".to_owned(),
        advertise: Vec::new(),
        peer_listen: "127.0.0.1:0".to_owned(),
        peer_advertise: None,
        store: Arc::new(Sqlite),
        blobs: None,
        socket: dir.join("operators.sock"),
        build: "1.0.0 test".to_owned(),
        agent_dir: dir.to_owned(),
        background: false,
        supervised: false,
        settings: (state_dir.join("settings.toml"), "a = 1\n".to_owned()),
        retention: RetentionLimits {
            age: Duration::from_secs(3600),
            output_bytes: 1 << 30,
        },
        keep_free: 0,
        certificates: Certificates::new(Vec::new()),
        fleet_key: None,
        state_dir,
    }
}

async fn operator(socket: &Path) -> OperatorClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://master");
    let channel = endpoint.connect_with_connector(connector).await;
    OperatorClient::new(channel.expect("connects"))
}

async fn info(socket: &Path) -> v1::InfoReply {
    let mut client = operator(socket).await;
    let reply = client.info(v1::InfoRequest::default()).await;
    reply.expect("is answered").into_inner()
}

#[tokio::test]
async fn a_master_opens_binds_runs_and_gives_all_of_it_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("operators.sock");
    let mut port = None;
    for _ in 0..2 {
        let opened = Opened::open(options(dir.path())).await.expect("opens");
        assert!(!socket.exists(), "nothing listens yet");
        let bound = opened.bind().await.expect("binds");
        let stop = Stop::default();
        let token = stop.token.clone();
        let running = bound.run(stop).await.expect("runs");
        let info = info(&socket).await;
        assert_eq!(info.advertise, std::slice::from_ref(&info.listen));
        TcpStream::connect(&info.listen).await.expect("listens");
        let settings = std::fs::read_to_string(dir.path().join("state/settings.toml"));
        assert_eq!(settings.expect("is recorded"), "a = 1\n");
        let last = port.replace(info.listen.clone());
        assert!(last.is_none_or(|last| last == info.listen), "another port");

        token.cancel();
        let ended = tokio::time::timeout(LIMIT, running.ended()).await;
        ended.expect("in time").expect("was asked to");
        assert!(!socket.exists(), "the socket goes with it");
        assert!(TcpStream::connect(&info.listen).await.is_err());
    }
}

#[tokio::test]
async fn a_state_that_a_running_master_has_is_refused_and_settings_of_a_failed_start_are_not_kept()
{
    let dir = tempfile::tempdir().expect("a folder");
    let opened = Opened::open(options(dir.path())).await.expect("opens");
    let bound = opened.bind().await.expect("binds");
    let second = Opened::open(options(dir.path())).await;
    let second = second.err().expect("is refused");
    assert!(matches!(second, Error::Running(_)));
    let own = format!("pid {}", std::process::id());
    assert!(second.to_string().contains(&own), "{second}");

    let elsewhere = tempfile::tempdir().expect("a folder");
    let taken = ServeOptions {
        listen: bound.listen.clone(),
        ..options(elsewhere.path())
    };
    let opened = Opened::open(taken).await.expect("opens");
    let refused = opened.bind().await.err();
    let refused = refused.expect("is refused");
    assert!(matches!(refused, Error::Listen { .. }));
    for part in ["pid ", "AOT_LISTEN", &bound.listen] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let state = elsewhere.path().join("state");
    assert!(!state.join("settings.toml").exists());
    assert!(
        !state.join("aot.sqlite").exists(),
        "nor is the store touched"
    );

    drop(bound);
    Opened::open(options(dir.path()))
        .await
        .expect("is free again");
}
