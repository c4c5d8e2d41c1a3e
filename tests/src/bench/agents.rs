//! Many simulated agents in one process: real TLS, the real protocol, no machine behind them. A role of a bench.

use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_proto::limits::{HEARTBEAT, PROTOCOL};
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    AgentMessage, BuiltinReply, ClusterFactsApplied, ClusterFactsPiece, EndKind, Ended,
    FactsReport, Frame, Heartbeat, Hello, MasterMessage, RunAnswer, SpoolData, frame,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::program::Program;
use super::tls;

/// Handshakes at once.
const DIALLING: usize = 32;

/// Simulated agents, all attached; they end when this is dropped.
pub struct Agents(Program);

impl Agents {
    /// Starts this many with the certificates `0.pem`, `1.pem`, ... of the folder, and waits until all are welcome.
    /// `generation` is the one of the cluster facts that they say they have.
    pub fn start(folder: &Path, address: &str, count: usize, generation: u64) -> Self {
        let (folder, count) = (folder.display().to_string(), count.to_string());
        let role = ["agents", &folder, address, &count, &generation.to_string()];
        let mut program = Program::start(&role);
        program.line();
        Self(program)
    }

    /// The process id of all of them.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// What an agent of this number reports: about as much as a real one does.
pub fn node_json(number: usize) -> String {
    let disks: Vec<String> = (0..6)
        .map(|n| format!(r#"{{"name":"/dev/vd{n}","mount":"/data/{n}","fs":"ext4","total_bytes":107374182400}}"#))
        .collect();
    format!(
        r#"{{"hostname":"n{number}","boot_id":"b","cpus":2,"cpu_model":"simulated","memory_bytes":8589934592,"kernel":"6.1.0-18-amd64","os":"debian 12","architecture":"x86_64","disks":[{}],"networks":[{{"name":"ens5","mac":"06:00:00:00:00:01","addresses":["10.0.{}.{}"]}}]}}"#,
        disks.join(","),
        number / 250,
        number % 250 + 1
    )
}

/// An address for each number, in 127.64.0.0/10 (all of 127.0.0.0/8 is this host).
pub(crate) fn own_address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("a small number");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 1)) + number)
}

/// The rest of the report.
pub fn report(number: usize) -> FactsReport {
    FactsReport {
        node_json: node_json(number),
        ssh_host_keys: vec![format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHost{number:040} root@n"
        )],
        root_public_key: format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIRoot{number:040} root@n"),
        ..FactsReport::default()
    }
}

pub(super) fn play(folder: &Path, address: &str, count: usize, generation: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (welcome, mut welcomed) = mpsc::channel(count.max(1));
    let tasks = TaskTracker::new();
    let with_news = std::env::var_os("AOT_BENCH_FACTS").is_some();
    runtime.block_on(async {
        let dialling = Arc::new(Semaphore::new(DIALLING));
        for number in 0..count {
            let agent = Agent {
                folder: folder.to_owned(),
                address: address.to_owned(),
                number,
                generation,
                dialling: dialling.clone(),
                welcome: welcome.clone(),
                news: (with_news && number + 1 == count).then(|| "ssh-ed25519 New".to_owned()),
            };
            tasks.spawn(agent.run());
        }
        for _ in 0..count {
            welcomed.recv().await.expect("this side has a sender too");
        }
    });
    println!("welcome");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.shutdown_background();
}

struct Agent {
    folder: PathBuf,
    address: String,
    number: usize,
    generation: u64,
    dialling: Arc<Semaphore>,
    welcome: mpsc::Sender<()>,
    /// A host key that the master has not heard of.
    news: Option<String>,
}

impl Agent {
    async fn run(self) {
        let number = self.number;
        if let Err(error) = self.attend().await {
            eprintln!("simulated agent {number}: {error}");
            std::process::exit(1); // what is measured would not be what is said
        }
    }

    async fn dial(&self) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        let _turn = self.dialling.acquire().await?;
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let host = ServerName::try_from("127.0.0.1")?;
        let connector = tls::connector(&self.folder, &self.number.to_string());
        let mut once = Some(connector.connect(host, stream).await?);
        let connector = service_fn(move |_| {
            let stream = once.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
        });
        let endpoint = Endpoint::from_static("http://aot-master").buffer_size(16);
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    async fn attend(self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let channel = self.dial().await?;
        let (outbound, rest) = mpsc::channel(4);
        let hello = Hello {
            agent_version: "simulated".to_owned(),
            protocol: PROTOCOL,
            boot_id: "b".to_owned(),
            cluster_facts_generation: self.generation,
            architecture: "x86_64".to_owned(),
            ..Hello::default()
        };
        outbound.send(up(Up::Hello(hello))).await?;
        let mut client = AgentLinkClient::new(channel);
        let mut inbound = client.attach(ReceiverStream::new(rest)).await?.into_inner();
        let first =
            tokio::time::Instant::now() + HEARTBEAT.mul_f64((self.number % 100) as f64 / 100.0);
        let mut beat = interval_at(first + Duration::from_millis(1), HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seq = 0;
        loop {
            let answers = tokio::select! {
                message = inbound.message() => match message? {
                    Some(message) => self.answer(message).await,
                    None => return Ok(()),
                },
                _ = beat.tick() => {
                    seq += 1;
                    vec![Up::Heartbeat(Heartbeat { seq, echo: 0 })]
                }
            };
            for answer in answers {
                outbound.send(up(answer)).await?;
            }
        }
    }

    async fn answer(&self, message: MasterMessage) -> Vec<Up> {
        match message.body {
            Some(Down::Welcome(_)) => {
                let _ = self.welcome.send(()).await; // it is counted once
                let mut facts = report(self.number);
                facts.ssh_host_keys.extend(self.news.clone());
                vec![Up::Facts(facts)]
            }
            Some(Down::Builtin(call)) => vec![Up::BuiltinReply(BuiltinReply {
                id: call.id,
                json: "true".to_owned(),
                error: String::new(),
            })],
            Some(Down::ClusterFacts(piece)) if is_last(&piece) => {
                vec![Up::ClusterFactsApplied(ClusterFactsApplied {
                    generation: piece.generation,
                    ..ClusterFactsApplied::default()
                })]
            }
            Some(Down::StartRun(start)) => ran(start.run_id),
            _ => Vec::new(),
        }
    }
}

pub(super) fn is_last(piece: &ClusterFactsPiece) -> bool {
    piece.offset + piece.data.len() as u64 == piece.total_bytes
}

/// What an agent says of a command that was over at once, without output.
pub(super) fn ran(run_id: String) -> Vec<Up> {
    let ended = Frame {
        unix_ms: 1,
        body: Some(frame::Body::Ended(Ended {
            kind: EndKind::Exited as i32,
            ..Ended::default()
        })),
    };
    let mut data = Vec::new();
    aot_proto::frame::encode(&ended, &mut data);
    let accepted = RunAnswer {
        run_id: run_id.clone(),
        accepted: true,
        reason: String::new(),
    };
    let spool = SpoolData {
        run_id,
        offset: 0,
        data: data.into(),
        end: true,
    };
    vec![Up::RunAnswer(accepted), Up::Spool(spool)]
}

pub(super) fn up(body: Up) -> AgentMessage {
    AgentMessage { body: Some(body) }
}
