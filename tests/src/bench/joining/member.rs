//! One simulated agent that joins.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use aot_agent::inside::client_config;
use aot_proto::limits::{HEARTBEAT, PROTOCOL};
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::enrolment_client::EnrolmentClient;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    AgentMessage, ClusterFactsApplied, EnrolRequest, FactsReport, Heartbeat, Hello, MasterMessage,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Shared;
use super::counted::Counted;
use crate::bench::agents;

/// Between two tries to enrol; an answer may be that the machine is not known yet.
const AGAIN: Duration = Duration::from_secs(1);

/// Of the text in the facts that hardly compresses.
const TEXT_BYTES: usize = 3 << 10;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Certificate chain and key, PEM.
struct Identity {
    chain: String,
    key: String,
}

pub(super) struct Member {
    pub(super) number: usize,
    /// Id of its machine.
    pub(super) machine: String,
    pub(super) token: String,
    /// The master's authority.
    pub(super) roots: Arc<RootCertStore>,
    pub(super) address: String,
    pub(super) dialling: Arc<Semaphore>,
    pub(super) shared: Arc<Shared>,
}

impl Member {
    pub(super) async fn run(self) {
        let identity = loop {
            match self.enrol().await {
                Ok(identity) => break identity,
                Err(error) => eprintln!("simulated agent {}: {error}", self.machine),
            }
            sleep(AGAIN).await;
        };
        loop {
            let mut attached = false;
            let ended = self.attend(&identity, &mut attached).await;
            if attached {
                self.shared.note(|report| {
                    report.attached -= 1;
                    report.lost += 1;
                });
            }
            eprintln!(
                "simulated agent {}: its session ended: {ended:?}",
                self.machine
            );
            sleep(AGAIN).await;
        }
    }

    async fn dial(&self, identity: Option<&Identity>) -> Result<Channel, Failed> {
        let _turn = self.dialling.acquire().await?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((agents::own_address(self.number), 0).into())?;
        let stream = socket.connect(self.address.parse()?).await?;
        stream.set_nodelay(true)?;
        let stream = Counted {
            stream,
            received: self.shared.received.clone(),
        };
        let (host, _) = self.address.rsplit_once(':').ok_or("no port")?;
        let host = ServerName::try_from(host.to_owned())?;
        let tls = TlsConnector::from(Arc::new(self.tls(identity)?));
        let mut once = Some(tls.connect(host, stream).await?);
        let connector = service_fn(move |_| {
            let stream = once.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
        });
        let endpoint = Endpoint::from_static("http://aot-master").buffer_size(16);
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    fn tls(&self, identity: Option<&Identity>) -> Result<ClientConfig, Failed> {
        let Some(Identity { chain, key }) = identity else {
            return Ok(client_config(&self.roots, None)?);
        };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let identity = (&chain[..], key.secret_der());
        Ok(client_config(&self.roots, Some(identity))?)
    }

    async fn enrol(&self) -> Result<Identity, Failed> {
        let key = rcgen::KeyPair::generate()?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        let request = EnrolRequest {
            token: self.token.clone(),
            csr_der: csr.der().to_vec(),
            machine_id: self.machine.clone(),
            agent_version: "simulated".to_owned(),
            architecture: "x86_64".to_owned(),
            ..EnrolRequest::default()
        };
        let mut client = EnrolmentClient::new(self.dial(None).await?);
        let reply = client.enrol(request).await?.into_inner();
        Ok(Identity {
            chain: reply.certificate_pem,
            key: key.serialize_pem(),
        })
    }

    async fn attend(&self, identity: &Identity, attached: &mut bool) -> Result<(), Failed> {
        let channel = self.dial(Some(identity)).await?;
        let (outbound, rest) = mpsc::channel(16);
        let hello = Hello {
            agent_version: "simulated".to_owned(),
            protocol: PROTOCOL,
            boot_id: "b".to_owned(),
            architecture: "x86_64".to_owned(),
            ..Hello::default()
        };
        outbound.send(agents::up(Up::Hello(hello))).await?;
        let mut client = AgentLinkClient::new(channel);
        let mut inbound = client.attach(ReceiverStream::new(rest)).await?.into_inner();
        let first =
            tokio::time::Instant::now() + HEARTBEAT.mul_f64((self.number % 100 + 1) as f64 / 100.0);
        let mut beat = interval_at(first, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        loop {
            let answers: Vec<AgentMessage> = tokio::select! {
                message = inbound.message() => match message? {
                    Some(message) => self.answer(message, attached),
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    seq += 1;
                    vec![agents::up(Up::Heartbeat(Heartbeat { seq, echo: 0 }))]
                }
                () = self.shared.news.notified(), if self.number == 0 => {
                    vec![agents::up(Up::Facts(self.facts(seq + 1)))]
                }
            };
            for answer in answers {
                outbound.send(answer).await?;
            }
        }
    }

    fn answer(&self, message: MasterMessage, attached: &mut bool) -> Vec<AgentMessage> {
        let answers = match message.body {
            Some(Down::Welcome(_)) => {
                *attached = true;
                self.shared.note(|report| report.attached += 1);
                vec![Up::Facts(self.facts(0))]
            }
            Some(Down::ClusterFacts(piece)) if agents::is_last(&piece) => {
                self.shared.note(|report| {
                    *report.applied.entry(piece.generation).or_default() += 1;
                });
                vec![Up::ClusterFactsApplied(ClusterFactsApplied {
                    generation: piece.generation,
                    ..ClusterFactsApplied::default()
                })]
            }
            Some(Down::StartRun(start)) => agents::ran(start.run_id),
            _ => Vec::new(),
        };
        answers.into_iter().map(agents::up).collect()
    }

    /// About as much as real ones, and some text that hardly compresses.
    fn facts(&self, version: u64) -> FactsReport {
        let mut facts = agents::report(self.number);
        let mut text = String::with_capacity(TEXT_BYTES);
        for part in 0.. {
            if text.len() >= TEXT_BYTES {
                break;
            }
            let mut hasher = DefaultHasher::new();
            (self.number, version, part).hash(&mut hasher);
            let _ = write!(text, "{:016x}", hasher.finish()); // into a string, which can't fail
        }
        let rest = facts.node_json.split_off(1);
        facts.node_json = format!(r#"{{"text":"{text}",{rest}"#);
        facts
    }
}
