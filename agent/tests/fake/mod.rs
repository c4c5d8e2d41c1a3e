//! A small master over real TLS, and a real agent process beside it. All state in a temporary folder.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aot_proto::frame;
use aot_proto::ids::RunId;
use aot_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{
    AgentMessage, BuiltinReply, Ended, EnrolReply, EnrolRequest, ExecSpec, FetchChunk,
    FetchRequest, Frame, MasterMessage, RenewReply, RunAnswer, ShellDown, ShellUp, SpoolAck,
    StartRun, Welcome,
};
use futures::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait of a test for anything.
const LIMIT: Duration = Duration::from_secs(40);
const MACHINE: &str = "local-1";
const NAME: &str = "spiffe://m/cluster/c/instance/web1/local-1";

/// What the master knows and how it behaves.
pub struct State {
    pub enrolments: Vec<Vec<u8>>,
    pub lose_enrol_replies: usize,
    pub short_certificates: usize,
    pub renewals: usize,
    pub sessions: usize,
    pub to_agent: Option<mpsc::Sender<Result<MasterMessage, Status>>>,
    pub said: Vec<Up>,
    pub spools: HashMap<String, Vec<u8>>,
    pub ends: HashMap<String, u64>,
    pub overlaps: u64,
    pub acks: bool,
    pub bundles: HashMap<String, Vec<u8>>,
    pub cut_fetches: usize,
    pub fetch_offsets: Vec<u64>,
    connections: Vec<AbortHandle>,
}

pub struct Master {
    pub state: Mutex<State>,
    changed: Notify,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    port: u16,
}

impl Master {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn note<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_waiters();
        value
    }

    /// Waits until `look` finds something.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                panic!(
                    "waited {LIMIT:?} for {what}; the agent said {:?}",
                    self.lock()
                        .said
                        .iter()
                        .filter(|up| !matches!(up, Up::Spool(_)))
                        .collect::<Vec<_>>()
                );
            }
        }
    }

    pub async fn tell(&self, body: Down) {
        let sender = self
            .until("a session", |state| {
                state.to_agent.clone().filter(|sender| !sender.is_closed())
            })
            .await;
        sender
            .send(Ok(MasterMessage { body: Some(body) }))
            .await
            .unwrap();
    }

    /// Ends every connection without a word.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.to_agent = None;
        state
            .connections
            .drain(..)
            .for_each(|connection| connection.abort());
    }

    /// Starts a run and waits for the answer.
    pub async fn start(&self, start: StartRun) -> RunAnswer {
        let (run_id, answered) = (start.run_id.clone(), self.answers(&start.run_id).len());
        self.tell(Down::StartRun(start)).await;
        self.until("an answer to StartRun", |state| {
            answers(state, &run_id).into_iter().nth(answered)
        })
        .await
    }

    fn answers(&self, run_id: &str) -> Vec<RunAnswer> {
        answers(&self.lock(), run_id)
    }

    /// The run's spool, once it has ended.
    pub async fn result(&self, run_id: &str) -> Result_ {
        let bytes = self
            .until(&format!("the end of {run_id}"), |state| {
                let end = state.ends.get(run_id)?;
                state
                    .spools
                    .get(run_id)
                    .filter(|spool| spool.len() as u64 == *end)
                    .cloned()
            })
            .await;
        let (frames, len) = frame::decode_all(&bytes).unwrap();
        assert_eq!(len, bytes.len(), "a torn frame was sent");
        Result_::of(frames)
    }

    pub async fn builtin(&self, id: u64, name: &str) -> BuiltinReply {
        self.ask(id, name, &[]).await
    }

    pub async fn ask(&self, id: u64, name: &str, args: &[&str]) -> BuiltinReply {
        self.tell(Down::Builtin(aot_proto::v1::BuiltinCall {
            id,
            name: name.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }))
        .await;
        self.until("a builtin's answer", |state| {
            state.said.iter().find_map(|up| match up {
                Up::BuiltinReply(reply) if reply.id == id => Some(reply.clone()),
                _ => None,
            })
        })
        .await
    }

    fn sign(&self, csr: &[u8], short: bool) -> String {
        let mut request = CertificateSigningRequestParams::from_der(
            &CertificateSigningRequestDer::from(csr.to_vec()),
        )
        .unwrap();
        let params = &mut request.params;
        params.subject_alt_names = vec![SanType::URI(NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // At 70 % of the short one's life the present is long past; it ends well after it.
        params.not_before = date_time_ymd(if short { 2000 } else { 2025 }, 1, 1);
        params.not_after = date_time_ymd(if short { 2032 } else { 2999 }, 1, 1);
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

fn answers(state: &State, run_id: &str) -> Vec<RunAnswer> {
    let answers = state.said.iter().filter_map(|up| match up {
        Up::RunAnswer(answer) if answer.run_id == run_id => Some(answer.clone()),
        _ => None,
    });
    answers.collect()
}

/// A run as its spool tells it.
#[derive(Debug, Default)]
pub struct Result_ {
    pub started: usize,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub truncated: usize,
    pub ended: Ended,
}

impl Result_ {
    fn of(frames: Vec<Frame>) -> Self {
        use aot_proto::v1::frame::Body;
        let mut result = Self::default();
        let last = frames.len() - 1;
        for (n, frame) in frames.into_iter().enumerate() {
            match frame.body.unwrap() {
                Body::Started(_) => result.started += 1,
                Body::Stdout(bytes) => result.stdout.extend_from_slice(&bytes),
                Body::Stderr(bytes) => result.stderr.extend_from_slice(&bytes),
                Body::Truncated(_) => result.truncated += 1,
                Body::Ended(ended) => {
                    assert_eq!(n, last, "frames after the end");
                    result.ended = ended;
                }
            }
        }
        result
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

type Down_ = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<FetchChunk, Status>> + Send>>;

#[derive(Clone)]
struct Api(Arc<Master>);

#[tonic::async_trait]
impl Enrolment for Api {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        assert_eq!(
            (request.token.as_str(), request.machine_id.as_str()),
            ("70ken", MACHINE)
        );
        let (lose, short) = self.0.note(|state| {
            state.enrolments.push(request.csr_der.clone());
            let lose = state.lose_enrol_replies > 0;
            state.lose_enrol_replies -= usize::from(lose);
            let short = state.short_certificates > 0;
            (lose, short)
        });
        if lose {
            return Err(Status::unavailable("lost"));
        }
        let certificate_pem = self.0.sign(&request.csr_der, short);
        Ok(Response::new(EnrolReply {
            certificate_pem,
            ca_pem: self.0.ca_pem.clone(),
            ..EnrolReply::default()
        }))
    }
}

#[tonic::async_trait]
impl AgentLink for Api {
    type ShellStream = ReceiverStream<Result<ShellDown, Status>>;

    async fn shell(
        &self,
        _: Request<Streaming<ShellUp>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        Err(Status::unimplemented("no terminal here"))
    }

    type AttachStream = Down_;
    type FetchStream = Chunks;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Down_>, Status> {
        let mut inbound = request.into_inner();
        let master = self.0.clone();
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(AgentMessage { body: Some(body) })) = inbound.message().await {
                if let Some(answer) = hear(&master, body, &sender) {
                    let _ = sender.send(Ok(MasterMessage { body: Some(answer) })).await;
                }
            }
            master.note(|state| {
                state
                    .to_agent
                    .take_if(|current| current.same_channel(&sender))
            });
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        let found = self.0.note(|state| {
            state.fetch_offsets.push(request.offset);
            let cut = state.cut_fetches > 0;
            state.cut_fetches -= usize::from(cut);
            state
                .bundles
                .get(&request.sha256)
                .map(|bytes| (bytes.clone(), cut))
        });
        let (bytes, cut) = found.ok_or_else(|| Status::not_found("no such bundle"))?;
        let rest = &bytes[request.offset as usize..];
        let rest = if cut { &rest[..rest.len() / 2] } else { rest };
        let total_bytes = bytes.len() as u64;
        let mut chunks: Vec<_> = rest
            .chunks(1000)
            .map(|data| {
                Ok(FetchChunk {
                    data: data.to_vec().into(),
                    total_bytes,
                })
            })
            .collect();
        if cut {
            chunks.push(Err(Status::unavailable("cut")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}

/// Notes what the agent said; what is to be answered at once is returned.
fn hear(
    master: &Arc<Master>,
    body: Up,
    sender: &mpsc::Sender<Result<MasterMessage, Status>>,
) -> Option<Down> {
    let answer = match &body {
        Up::Hello(hello) => master.note(|state| {
            state.sessions += 1;
            state.to_agent = Some(sender.clone());
            let acks = hello.runs.iter().filter_map(|run| {
                let bytes = state.spools.get(&run.run_id)?.len() as u64;
                Some(SpoolAck {
                    run_id: run.run_id.clone(),
                    bytes,
                })
            });
            let acks = if state.acks {
                acks.collect()
            } else {
                Vec::new()
            };
            Some(Down::Welcome(Welcome {
                session: state.sessions as u64,
                cluster: "c".into(),
                instance: "web1".into(),
                acks,
                ..Welcome::default()
            }))
        }),
        Up::Spool(data) => master.note(|state| {
            let spool = state.spools.entry(data.run_id.clone()).or_default();
            let have = spool.len() as u64;
            assert!(data.offset <= have, "a gap in the spool");
            let known = ((have - data.offset) as usize).min(data.data.len());
            assert_eq!(
                &spool[data.offset as usize..][..known],
                &data.data[..known],
                "what is sent again differs"
            );
            spool.extend_from_slice(&data.data[known..]);
            state.overlaps += known as u64;
            if data.end {
                state
                    .ends
                    .insert(data.run_id.clone(), data.offset + data.data.len() as u64);
            }
            let bytes = state.spools[&data.run_id].len() as u64;
            state.acks.then(|| {
                Down::SpoolAck(SpoolAck {
                    run_id: data.run_id.clone(),
                    bytes,
                })
            })
        }),
        Up::Renew(renew) => {
            let certificate_pem = master.sign(&renew.csr_der, false);
            master.lock().renewals += 1;
            Some(Down::Renew(RenewReply {
                certificate_pem,
                ..RenewReply::default()
            }))
        }
        _ => None,
    };
    master.note(|state| state.said.push(body));
    answer
}

/// A master, a folder for an agent, and the agent when it runs.
pub struct Rig {
    pub master: Arc<Master>,
    pub dir: TempDir,
    agent: Option<Child>,
    _server: JoinSet<()>,
}

impl Rig {
    /// A master that listens; no agent yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fake");
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let master = Arc::new(Master {
            state: Mutex::new(State {
                enrolments: vec![],
                lose_enrol_replies: 0,
                short_certificates: 0,
                renewals: 0,
                sessions: 0,
                to_agent: None,
                said: vec![],
                spools: HashMap::new(),
                ends: HashMap::new(),
                overlaps: 0,
                acks: true,
                bundles: HashMap::new(),
                cut_fetches: 0,
                fetch_offsets: vec![],
                connections: vec![],
            }),
            changed: Notify::new(),
            issuer: Issuer::new(params, key),
            ca_pem,
            port: listener.local_addr().unwrap().port(),
        });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, master.clone()));
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "root"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            master,
            dir,
            agent: None,
            _server: server,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the agent as a process.
    pub fn start_agent(&mut self) {
        let at = |name: &str| self.path(name).display().to_string();
        let config = format!(
            "master = [\"127.0.0.1:{}\"]\nca_pem = '''{}'''\ntoken = \"70ken\"\nmachine_id = \"{MACHINE}\"\nprovider = \"local\"\nstate_dir = {:?}\netc_dir = {:?}\nroot_home = {:?}\nboot_id_file = {:?}\nreboot = [\"touch\", {:?}]\n",
            self.master.port,
            self.master.ca_pem,
            at("state"),
            at("etc"),
            at("root"),
            at("boot_id"),
            at("rebooted")
        );
        let path = self.path("agent.toml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // The static build is tried by naming it here.
        let binary = std::env::var_os("AOT_AGENT_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_aot-agent").into());
        let agent = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(path)
            .env("AOT_LOG", "warn")
            .spawn();
        self.agent = Some(agent.unwrap());
    }

    pub fn agent_pid(&self) -> i32 {
        self.agent.as_ref().unwrap().id().cast_signed()
    }

    /// kill -9.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// SIGTERM; waits for the end.
    pub async fn stop_agent(&mut self) -> std::process::ExitStatus {
        let mut agent = self.agent.take().unwrap();
        signal(agent.id().cast_signed(), rustix::process::Signal::TERM);
        tokio::task::spawn_blocking(move || agent.wait().unwrap())
            .await
            .unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill_agent();
        for pid in shims(self.dir.path()) {
            // What a failed test left behind.
            aot_agent::runner::tree::signal_below(pid, rustix::process::Signal::KILL);
        }
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Shims that have a run in this folder in hand.
pub fn shims(dir: &Path) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut open = open.into_iter().flatten().flatten();
        line.ends_with(b"\0shim\0")
            && open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(dir)))
    })
    .collect()
}

pub fn run_id(n: u128) -> String {
    RunId::from_parts(1_700_000_000_000, n).to_string()
}

/// `bash -c script`.
pub fn exec(n: u128, script: &str) -> StartRun {
    StartRun {
        run_id: run_id(n),
        what: Some(What::Exec(ExecSpec {
            argv: ["bash", "-c", script].map(str::to_owned).to_vec(),
            ..ExecSpec::default()
        })),
        env: BTreeMap::from([("EXTRA".to_owned(), "yes".to_owned())])
            .into_iter()
            .collect(),
        ..StartRun::default()
    }
}

async fn serve(listener: TcpListener, master: Arc<Master>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["fake-master".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &master.issuer).unwrap();
    let provider = aot_agent::tls::provider();
    let roots = aot_agent::tls::roots(&master.ca_pem).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let routes = tonic::service::Routes::new(EnrolmentServer::new(Api(master.clone())))
        .add_service(AgentLinkServer::new(Api(master.clone())))
        .prepare();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        let task = tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let service = TowerToHyperService::new(routes);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
        master.lock().connections.push(task.abort_handle());
    }
}
