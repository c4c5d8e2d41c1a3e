//! An agent that lies: the real protocol, with a real certificate, and whatever a test wants it to say.
//!
//! ```text
//! let machine = rig.machine("a"); // launched and enrolled
//! machine.stop_agent(); // the honest one would take the session back
//! let mut liar = Liar::attach(&rig, &Identity::of(&rig, &machine));
//! liar.send(answer("run-01ARZ3NDEKTSV4RRFFQ69G5FAV", false, "a lie"));
//! let start = liar.start_run(); // what the master wants of it
//! ```
//!
//! It answers heartbeats and nothing else by itself. Its session ends when it is dropped. [`Liar::enrolment`] and
//! [`Liar::link`] give the bare clients, for calls outside of a session.

use std::sync::Arc;
use std::time::Duration;

use aot_proto::limits::PROTOCOL;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::enrolment_client::EnrolmentClient;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    AgentMessage, EndKind, Ended, Frame, Heartbeat, Hello, RunAnswer, SpoolData, StartRun, frame,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::machine::LocalMachine;
use crate::rig::Rig;

/// How long the master may take to answer.
pub const ANSWER: Duration = Duration::from_secs(120);

/// Messages that may wait to be sent.
const OUTBOX: usize = 64;

/// Messages of the master that may wait to be read.
const INBOX: usize = 4096;

/// A certificate and its key, and what goes with them.
#[derive(Clone)]
pub struct Identity {
    /// Key and chain, PEM; empty for a stranger.
    pub pem: String,
    /// The master's authority, PEM.
    pub ca: String,
    /// The join token of the machine's user-data.
    pub token: String,
    /// Its machine.
    pub machine: String,
}

impl Identity {
    /// What a local clone has, got by an honest enrolment.
    ///
    /// # Panics
    /// When it is down, or has not enrolled.
    #[track_caller]
    pub fn of(rig: &Rig, machine: &LocalMachine) -> Self {
        let toml = machine.read("/etc/aot/agent.toml").expect("its agent.toml");
        let token = toml.lines().find_map(|line| line.strip_prefix("token"));
        let token = token.and_then(|rest| rest.split('"').nth(1));
        Self {
            pem: machine
                .read("/var/lib/aot/identity.pem")
                .expect("it has enrolled"),
            token: token.unwrap_or_default().to_owned(),
            machine: machine.id.clone(),
            ..Self::stranger(rig)
        }
    }

    /// Nobody: knows the master's authority, and has no certificate.
    ///
    /// # Panics
    /// When the master has never run.
    #[track_caller]
    pub fn stranger(rig: &Rig) -> Self {
        Self {
            pem: String::new(),
            ca: std::fs::read_to_string(rig.state_dir().join("ca.pem")).expect("an authority"),
            token: String::new(),
            machine: String::new(),
        }
    }

    fn tls(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("an authority");
        roots.add(ca).expect("it is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("it knows 1.3")
            .with_root_certificates(roots);
        let mut config = if self.pem.is_empty() {
            config.with_no_client_auth()
        } else {
            let chain = CertificateDer::pem_slice_iter(self.pem.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("a chain");
            let key = PrivateKeyDer::from_pem_slice(self.pem.as_bytes()).expect("a key");
            config.with_client_auth_cert(chain, key).expect("they fit")
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

async fn dial(identity: &Identity, port: u16) -> Channel {
    let tls = Arc::new(identity.tls());
    let connector = service_fn(move |_| {
        let tls = TlsConnector::from(tls.clone());
        async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let host = ServerName::try_from("127.0.0.1").expect("an address");
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(host, stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://aot-master");
    endpoint.connect_with_connector_lazy(connector)
}

/// One lying agent and its session.
pub struct Liar {
    runtime: Runtime,
    channel: Channel,
    out: mpsc::Sender<AgentMessage>,
    inbox: mpsc::Receiver<Result<Down, tonic::Status>>,
}

impl Liar {
    /// Dials and opens nothing: for a stranger, and for calls outside of a session.
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn dial(rig: &Rig, identity: &Identity) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let channel = runtime.block_on(dial(identity, rig.port()));
        let (out, _) = mpsc::channel(1);
        let (_, inbox) = mpsc::channel(1);
        Self {
            runtime,
            channel,
            out,
            inbox,
        }
    }

    /// A session that begins with a usual hello, and is welcome.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn attach(rig: &Rig, identity: &Identity) -> Self {
        let mut liar = Self::attach_with(rig, identity, hello());
        liar.wait("a welcome", |body| {
            matches!(body, Down::Welcome(_)).then_some(())
        });
        liar
    }

    /// A session that begins with this hello. Nothing is waited for.
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn attach_with(rig: &Rig, identity: &Identity, hello: Hello) -> Self {
        let mut liar = Self::dial(rig, identity);
        let (out, messages) = mpsc::channel(OUTBOX);
        let (got, inbox) = mpsc::channel(INBOX);
        (liar.out, liar.inbox) = (out.clone(), inbox);
        liar.send(Up::Hello(hello));
        let mut client = AgentLinkClient::new(liar.channel.clone());
        liar.runtime.spawn(async move {
            let answer = client.attach(ReceiverStream::new(messages)).await;
            let mut stream = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    let _ = got.send(Err(status)).await; // the test has lost interest
                    return;
                }
            };
            loop {
                let next = stream.message().await;
                let said = match next {
                    Ok(Some(message)) => message.body.map(Ok),
                    Ok(None) => Some(Err(tonic::Status::ok("the stream ended"))),
                    Err(status) => Some(Err(status)),
                };
                if let Some(Ok(Down::Heartbeat(beat))) = &said {
                    let beat = Heartbeat {
                        seq: beat.seq,
                        echo: beat.seq,
                    };
                    let _ = out.try_send(message(Up::Heartbeat(beat))); // a full outbox is a sign of life too
                    continue;
                }
                let over = matches!(said, Some(Err(_)));
                if let Some(said) = said
                    && (got.send(said).await.is_err() || over)
                {
                    return;
                }
            }
        });
        liar
    }

    /// Says something; waits while the master does not read.
    pub fn send(&self, body: Up) {
        let _ = self.out.blocking_send(message(body)); // its session may be over, which `ended` tells
    }

    /// The first of the master's messages, from where the last call stopped reading, that `pick` takes.
    ///
    /// # Panics
    /// When none comes within [`ANSWER`], or the session ends.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Down) -> Option<T>) -> T {
        let inbox = &mut self.inbox;
        let found = async {
            loop {
                match inbox.recv().await {
                    Some(Ok(body)) => {
                        if let Some(found) = pick(&body) {
                            return Ok(found);
                        }
                    }
                    Some(Err(status)) => return Err(format!("the session ended: {status}")),
                    None => return Err("there is no session".to_owned()),
                }
            }
        };
        // A timeout is made where there is a runtime.
        let found = async { tokio::time::timeout(ANSWER, found).await };
        let found = self.runtime.block_on(found);
        match found {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => panic!("waited for {what}: {why}"),
            Err(_) => panic!("waited {} s in vain for {what}", ANSWER.as_secs()),
        }
    }

    /// The next run that it is asked for.
    ///
    /// # Panics
    /// As [`Liar::wait`].
    #[track_caller]
    pub fn start_run(&mut self) -> StartRun {
        self.wait("a run", |body| match body {
            Down::StartRun(start) => Some(start.clone()),
            _ => None,
        })
    }

    /// Waits until the master has ended the session; what it said is passed over.
    ///
    /// # Panics
    /// When it continues for longer than [`ANSWER`].
    #[track_caller]
    pub fn ended(&mut self) {
        let inbox = &mut self.inbox;
        let end = async { while let Some(Ok(_)) = inbox.recv().await {} };
        let limit = async { tokio::time::timeout(ANSWER, end).await };
        let limit = self.runtime.block_on(limit);
        assert!(limit.is_ok(), "the session goes on");
    }

    /// Waits until the master has taken in all that was said: messages of a session are read in order, and one that asks
    /// for an answer is answered in its turn.
    ///
    /// # Panics
    /// As [`Liar::wait`].
    #[track_caller]
    pub fn heard(&mut self) {
        self.send(Up::Renew(aot_proto::v1::RenewRequest::default())); // refused, which is an answer
        self.wait("an answer", |body| {
            matches!(body, Down::Renew(_)).then_some(())
        });
    }

    /// The calls that need a certificate.
    pub fn link(&self) -> AgentLinkClient<Channel> {
        AgentLinkClient::new(self.channel.clone())
    }

    /// The one that needs none.
    pub fn enrolment(&self) -> EnrolmentClient<Channel> {
        EnrolmentClient::new(self.channel.clone())
    }

    /// Waits for such a call.
    pub fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }
}

fn message(body: Up) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

/// What an honest agent says first.
pub fn hello() -> Hello {
    Hello {
        agent_version: "0.0.0".to_owned(),
        protocol: PROTOCOL,
        boot_id: "boot".to_owned(),
        architecture: "x86_64".to_owned(),
        ..Hello::default()
    }
}

/// An answer about a run.
pub fn answer(run: &str, accepted: bool, reason: &str) -> Up {
    Up::RunAnswer(RunAnswer {
        run_id: run.to_owned(),
        accepted,
        reason: reason.to_owned(),
    })
}

/// The whole spool of a run that printed this and ended well.
pub fn output(run: &str, text: &str, detail: &str) -> Up {
    let frames = [
        frame::Body::Stdout(text.to_owned().into()),
        frame::Body::Ended(Ended {
            kind: EndKind::Exited as i32,
            detail: detail.to_owned(),
            ..Ended::default()
        }),
    ];
    let mut data = Vec::new();
    for body in frames {
        let frame = Frame {
            unix_ms: 1,
            body: Some(body),
        };
        aot_proto::frame::encode(&frame, &mut data);
    }
    Up::Spool(SpoolData {
        run_id: run.to_owned(),
        offset: 0,
        data: data.into(),
        end: true,
    })
}
