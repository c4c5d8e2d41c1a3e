//! Two masters with one authority, each with clusters of its own by the view that both are given. Their records are not shared
//! here: what is shown is who answers.

use std::sync::Arc;

use aot_host::files::write_atomic;
use aot_proto::headers;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_store::blobs::BlobFolder;
use aot_store::fleet::{Announcement, FixedFleet, sample_view};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tonic::{Code, Request};

use super::*;
use crate::enrol::ca::Ca;
use crate::enrol::fleet_key::FleetKey;
use crate::enrol::masters::{self, MasterCertificate};
use crate::fleet::ClusterFinder;
use crate::run::Scripted;

/// A cluster of clones, which no test here launches.
const FILE: &str = "cluster: db\nprovider: local\ninstances: [{name: db1}]\n";

/// A running master of two.
struct Member {
    dir: tempfile::TempDir,
    fleet: Arc<FixedFleet>,
    peer: String,
    listen: String,
    stop: CancellationToken,
}

impl Member {
    /// With the other's authority, and a place for what is long.
    async fn start(id: &str, like: Option<&Member>, blobs: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("state");
        aot_host::files::private_dir(&state).expect("a folder");
        match like {
            None => drop(Ca::open(&state).expect("makes it")),
            Some(other) => {
                for name in crate::enrol::CA_FILES {
                    let bytes = std::fs::read(other.dir.path().join("state").join(name));
                    let bytes = bytes.expect("reads");
                    write_atomic(&state.join(name), &bytes, 0o600).expect("writes");
                }
            }
        }
        let key = dir.path().join("fleet.key");
        write_atomic(&key, &[7; 32], 0o600).expect("writes");
        let options = ServeOptions {
            fleet_key: Some(FleetSeal::File(Arc::new(
                FleetKey::read(&key).expect("reads"),
            ))),
            build: format!("build of {id}"),
            blobs: blobs.map(|dir| Arc::new(BlobFolder::new(dir)) as Arc<dyn BlobPlace>),
            providers: Arc::new(Providers::new(
                Arc::new(Scripted::with(&[], 0)),
                Box::new(|_, _| panic!("no region is asked for")),
            )),
            ..options(dir.path())
        };
        let bound = Opened::open(options).await.expect("opens").bind().await;
        let bound = bound.expect("binds");
        let peer = bound.peer.as_ref().expect("it has a key").advertise.clone();
        let listen = bound.listen.clone();
        let view = sample_view(id, &[("db", "b"), ("web", "a")]);
        let fleet = Arc::new(FixedFleet::new(view));
        let finder = ClusterFinder::new(Some(fleet.clone()));
        let ending = Stop::default();
        let stop = ending.token.clone();
        bound.run_among(ending, Some(finder)).await.expect("runs");
        let member = Self {
            dir,
            fleet,
            peer,
            listen,
            stop,
        };
        member.hears_of(id, &member.peer);
        member
    }

    fn hears_of(&self, id: &str, peer: &str) {
        self.fleet.change(|view| {
            let master = view.masters.get_mut(id).expect("is there");
            master.says = Announcement {
                peer: peer.to_owned(),
                ..Announcement::default()
            };
        });
    }

    async fn operator(&self) -> OperatorClient<Channel> {
        operator(&self.dir.path().join("operators.sock")).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn two() -> (Member, Member) {
    two_with(None).await
}

async fn two_with(blobs: Option<&Path>) -> (Member, Member) {
    let a = Member::start("a", None, blobs).await;
    let b = Member::start("b", Some(&a), blobs).await;
    a.hears_of("b", &b.peer);
    b.hears_of("a", &a.peer);
    (a, b)
}

/// The same cluster with a stage.
fn staged(dir: &str) -> String {
    let stage = format!("db1, bootstrap_sequence: [{{dir: {dir}}}]}}");
    FILE.replace("db1}", &stage)
}

/// A launch of it, with its bundle on that master's host.
fn launch(member: &Member) -> v1::LaunchRequest {
    let bundle = member.dir.path().join("bundle");
    std::fs::create_dir(&bundle).expect("a folder");
    std::fs::write(bundle.join("bootstrap.sh"), "#!/bin/sh\n").expect("writes");
    v1::LaunchRequest {
        path: member.dir.path().join("db.yml").display().to_string(),
        text: staged("bundle"),
        checked: true,
        detach: true,
        ..v1::LaunchRequest::default()
    }
}

fn request(text: &str) -> v1::PlanRequest {
    v1::PlanRequest {
        path: "/nonexistent/db.yml".to_owned(),
        text: text.to_owned(),
        without_things: true,
        ..v1::PlanRequest::default()
    }
}

#[tokio::test]
async fn a_file_is_planned_by_the_master_that_has_its_cluster() {
    let (a, b) = two().await;
    let web = FILE.replace("cluster: db", "cluster: web");
    for (door, text, by) in [
        (&a, FILE, "build of b"),
        (&b, FILE, "build of b"),
        (&b, &web, "build of a"),
    ] {
        let plan = door.operator().await.plan(request(text)).await;
        assert_eq!(plan.expect("is planned").into_inner().build, by);
    }
    // What is wrong with the files that it names is seen where they are.
    let plan = a
        .operator()
        .await
        .plan(request(&staged("./not-there")))
        .await;
    let plan = plan.expect("is planned").into_inner();
    assert_eq!(plan.build, "build of b");
    assert!(
        plan.problems
            .iter()
            .any(|it| it.file && it.message.contains("not-there")),
        "{:?}",
        plan.problems
    );
}

#[tokio::test]
async fn a_launch_elsewhere_that_cannot_be_handed_its_bundles_says_where_to_go() {
    let (a, _b) = two().await;
    let launch = launch(&a);
    let refused = a
        .operator()
        .await
        .launch(launch)
        .await
        .expect_err("is refused");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let text = refused.message();
    assert!(
        text.contains("the master b") && text.contains("run launch there"),
        "{text}"
    );
    assert!(text.contains("AOT_BLOBS"), "{text}");
}

#[tokio::test]
async fn a_launch_elsewhere_is_handed_over_with_its_bundles() {
    let blobs = tempfile::tempdir().expect("a folder");
    let (a, b) = two_with(Some(blobs.path())).await;
    let id = aot_proto::ids::JobId::from_parts(crate::run::now_ms(), 5).to_string();
    let mut request = Request::new(launch(&a));
    headers::set(request.metadata_mut(), headers::REQUEST, &id);
    let answer = a.operator().await.launch(request).await.expect("begins");
    assert_eq!(headers::get(answer.metadata(), headers::JOB), Some(&*id));
    let mut events = answer.into_inner();
    while let Some(event) = events.message().await.expect("continues") {
        assert_eq!(event.cluster, "db");
    }
    let brought = std::fs::read_dir(b.dir.path().join("state/bundles"));
    assert_eq!(brought.expect("reads").count(), 1);
    let jobs = b.operator().await.jobs(v1::JobsRequest::default()).await;
    let jobs = jobs.expect("is answered").into_inner().jobs;
    let own = crate::server::operator_name::own().await;
    assert_eq!(jobs[0].operator, format!("{own} at a"));
    let status = a
        .operator()
        .await
        .status(v1::StatusRequest::default())
        .await;
    let status = status.expect("is answered").into_inner();
    let shown: Vec<_> = status
        .instances
        .iter()
        .map(|it| (&*it.name, it.stages))
        .collect();
    assert_eq!(shown, [("db1", 1)]);
    // A target without a cluster: there are two, as the view has it.
    a.fleet
        .change(|view| drop(view.owners.remove(&"web".parse().expect("a name"))));
    let one = v1::StatusRequest {
        target: Some("db1".to_owned()),
        ..v1::StatusRequest::default()
    };
    let status = a.operator().await.status(one).await.expect("is answered");
    assert_eq!(status.into_inner().instances.len(), 1);
}

#[tokio::test]
async fn what_an_operator_says_to_have_been_read_is_not_believed() {
    let (_a, b) = two().await;
    let plan = v1::PlanRequest {
        prepared: Some(v1::Prepared {
            problems: vec![v1::Problem::default()],
            ..v1::Prepared::default()
        }),
        ..request(FILE)
    };
    let plan = b.operator().await.plan(plan).await.expect("is planned");
    let made_up = v1::Problem {
        file: true,
        ..v1::Problem::default()
    };
    assert!(!plan.into_inner().problems.contains(&made_up));
}

#[tokio::test]
async fn all_masters_answer_and_one_that_is_silent_is_named() {
    let (a, b) = two().await;
    let mut client = a.operator().await;
    let reply = client
        .masters(v1::MastersRequest {})
        .await
        .expect("is answered")
        .into_inner();
    let seen: Vec<_> = reply
        .masters
        .iter()
        .map(|it| (&*it.id, it.sessions, it.answers))
        .collect();
    assert_eq!(seen, [("a", Some(0), true), ("b", Some(0), false)]);
    let info = client
        .info(v1::InfoRequest::default())
        .await
        .expect("is answered")
        .into_inner();
    assert_eq!(info.clusters, ["db", "web"]);
    let mut absent = async || {
        let status = client.status(v1::StatusRequest::default()).await;
        let agents = client.agents(v1::AgentsRequest::default()).await;
        let absent = status.expect("is answered").into_inner().absent;
        assert_eq!(agents.expect("is answered").into_inner().absent, absent);
        absent
    };
    assert!(absent().await.is_empty());
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = silent.local_addr().expect("bound").to_string();
    a.hears_of("b", &address);
    let lines = absent().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("no connection within") && lines[0].ends_with("left out: db"),
        "{lines:?}"
    );
    // For its own clusters alone it asks nobody.
    let mut here = Request::new(v1::StatusRequest::default());
    headers::set(here.metadata_mut(), headers::HERE, "1");
    let reply = client.status(here).await.expect("is answered").into_inner();
    assert!(reply.absent.is_empty());
    drop(b);
}

#[tokio::test]
async fn all_masters_say_what_they_are_and_what_they_ask_of_a_provider() {
    let (a, b) = two().await;
    let mut client = a.operator().await;
    let all = v1::InfoRequest { all: true };
    let info = client.info(all).await.expect("is answered").into_inner();
    assert_eq!(info.master, "a");
    let [other] = &info.others[..] else {
        panic!("{info:?}");
    };
    assert_eq!((&*other.master, &*other.build), ("b", "build of b"));
    assert!(other.others.is_empty() && info.absent.is_empty());
    let calls = client.api_calls(v1::ApiCallsRequest { all: true }).await;
    let mut calls = calls.expect("is told").into_inner();
    for master in ["b", ""] {
        let first = calls.message().await.expect("comes").expect("a number");
        assert_eq!((&*first.master, &*first.error), (master, ""));
    }
    // Whoever does not ask for all, as an older command does, is told of this one alone.
    let own = client.api_calls(v1::ApiCallsRequest::default()).await;
    let first = own.expect("is told").into_inner().message().await;
    assert_eq!(first.expect("comes").expect("a number").master, "");

    b.stop.cancel();
    let told = tokio::time::timeout(LIMIT, calls.message()).await;
    let told = told.expect("in time").expect("comes").expect("a note");
    assert_eq!(told.master, "b");
    assert!(
        told.error.contains("the master b are not shown"),
        "{told:?}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    a.hears_of("b", &silent.local_addr().expect("bound").to_string());
    let info = client.info(all).await.expect("is answered").into_inner();
    assert!(info.others.is_empty());
    assert_eq!(info.absent.len(), 1, "{info:?}");
}

#[tokio::test]
async fn all_clusters_are_listed_where_one_has_to_be_named() {
    let (a, _b) = two().await;
    let exec = v1::ExecRequest {
        target: "*".to_owned(),
        ..v1::ExecRequest::default()
    };
    let refused = a.operator().await.exec(exec).await.expect_err("which?");
    assert_eq!(
        refused.message(),
        "more than one cluster: choose one with --cluster: db, web"
    );
}

#[tokio::test]
async fn a_load_balancer_is_answered_without_tls() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let a = Member::start("a", None, None).await;
    let mut stream = TcpStream::connect(&a.listen).await.expect("connects");
    let question = b"GET /v1/health HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n";
    stream.write_all(question).await.expect("writes");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("is answered");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}

/// A call of an agent, with this certificate.
async fn as_an_agent(member: &Member, shown: MasterCertificate) -> tonic::Status {
    let mut roots = RootCertStore::empty();
    let ca = Ca::open(&member.dir.path().join("state")).expect("opens");
    roots.add(ca.der().clone()).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![shown.certificate], shown.key)
        .expect("a key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = member.listen.clone();
    let connector = tower::service_fn(move |_| {
        let (config, address) = (Arc::new(config.clone()), address.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("127.0.0.1").expect("a name");
            let tls = TlsConnector::from(config).connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    let endpoint = Endpoint::from_static("http://master");
    let channel = endpoint.connect_with_connector(connector).await;
    let mut link = AgentLinkClient::new(channel.expect("connects"));
    let fetched = link.fetch(v1::FetchRequest::default()).await;
    fetched.expect_err("is refused")
}

#[tokio::test]
async fn a_masters_certificate_is_none_to_the_agents_services() {
    let a = Member::start("a", None, None).await;
    let ca = Ca::open(&a.dir.path().join("state")).expect("opens");
    let refused = as_an_agent(&a, masters::certify(&ca, "b").expect("signs")).await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test]
async fn a_master_alone_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let bound = Opened::open(options(dir.path()))
        .await
        .expect("opens")
        .bind()
        .await;
    let bound = bound.expect("binds");
    assert!(
        bound.peer.is_none(),
        "without a fleet there is no port for one"
    );
    let ending = Stop::default();
    let stop = ending.token.clone();
    bound.run(ending).await.expect("runs");
    let mut client = operator(&dir.path().join("operators.sock")).await;
    let reply = client
        .masters(v1::MastersRequest {})
        .await
        .expect("is answered")
        .into_inner();
    assert!(reply.alone);
    assert_eq!(reply.masters.len(), 1);
    stop.cancel();
}
