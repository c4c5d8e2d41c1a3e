//! One Attach stream from Hello to its end. Called by the service, once a connection. `protocol` decides, this moves.

pub mod protocol;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_proto::builtin::Builtin;
use aot_proto::limits::{MAX_MESSAGE_BYTES, PROTOCOL, SILENCE};
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{
    AgentMessage, ClusterFacts, ClusterFactsApplied, Hello, MasterMessage, SpoolData, Volumes,
    VolumesMounted, master_message,
};
use futures::{Stream, StreamExt};
use tokio::select;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{self, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Channel;

use crate::backoff::unit;
use crate::boot::boot_id;
use crate::config::{Config, Provider};
use crate::facts::{self, Sources};
use crate::hostname;
use crate::identity::enrol::now as unix_now;
use crate::identity::{self, Identity, Vault};
use crate::keys::{self, Places};
use crate::link::Link;
use crate::look::Looks;
use crate::runner::Runner;
use crate::service::Chain;
use crate::shell::Shells;
use crate::volumes;
use protocol::{Closed, Input, Output, Protocol};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a goodbye may take.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Messages between this loop and HTTP/2. When full, spools wait first: control is queued before them.
const OUTBOUND: usize = 1;
/// Answers of background work. When full, that work waits.
const NEWS: usize = 16;
/// While so many messages wait to be sent, none is read: a master that does not read is not served.
const OUTBOX: usize = 1024;

/// What a session needs of its agent.
pub struct Agent {
    /// Settings.
    pub config: Config,
    /// To the master.
    pub link: Link,
    /// Where the identity is kept.
    pub vault: Vault,
    /// The identity of the day, for whoever opens a connection.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    /// Every run.
    pub runner: Runner,
    /// Terminals that operators have open.
    pub shells: Shells,
    /// Tasks of the agent.
    pub tracker: TaskTracker,
    /// Whoever puts volumes in place has it: work of a session that is over may still go on when the next one begins.
    pub volumes: Arc<Mutex<()>>,
    /// Looks at files that are under way.
    pub looks: Looks,
    /// When the agent was started, ms since 1970.
    pub started_unix_ms: u64,
}

impl Agent {
    fn places(&self) -> Places {
        places(&self.config)
    }

    /// Opens a stream on `channel` and serves it to its end. The flag says whether the master ever answered Hello.
    pub async fn attach(
        &mut self,
        channel: Channel,
        identity: &Identity,
        stop: &CancellationToken,
    ) -> (Closed, bool) {
        self.runner.check();
        let runs = self.runner.states();
        let (outbound, rest) = mpsc::channel(OUTBOUND);
        let hello = Hello {
            agent_version: crate::VERSION.to_owned(),
            protocol: PROTOCOL,
            boot_id: boot_id(self.config.boot_id_file.as_deref()),
            agent_started_unix_ms: self.started_unix_ms,
            runs: runs.clone(),
            cluster_facts_generation: keys::kept(&self.config.state_dir)
                .map_or(0, |facts| facts.generation),
            architecture: std::env::consts::ARCH.to_owned(),
        };
        let first = AgentMessage {
            body: Some(Up::Hello(hello)),
        };
        let messages =
            futures::stream::once(std::future::ready(first)).chain(ReceiverStream::new(rest));
        let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = select! {
            answer = timeout(SILENCE, client.attach(messages)) => answer,
            () = stop.cancelled() => return (Closed::Stopping, false),
        };
        let inbound = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return (Closed::Broken(status.message().to_owned()), false),
            Err(_) => return (Closed::Silent, false),
        };
        let now = Instant::now();
        let protocol = Protocol::new(runs, renewal(identity, now), now);
        let (report, news) = mpsc::channel(NEWS);
        let session = Session {
            agent: self,
            protocol,
            inbound,
            outbound,
            news,
            report,
            new_key: None,
        };
        session.run(stop).await
    }
}

/// Where cluster facts go.
pub fn places(config: &Config) -> Places {
    Places {
        state_dir: config.state_dir.clone(),
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
    }
}

/// When the certificate is to be renewed, on the clock for waiting.
fn renewal(identity: &Identity, now: Instant) -> Instant {
    now + identity.renew_at(unit()).saturating_sub(unix_now())
}

struct Session<'a, S> {
    agent: &'a mut Agent,
    protocol: Protocol,
    inbound: S,
    outbound: mpsc::Sender<AgentMessage>,
    news: mpsc::Receiver<Input>,
    report: mpsc::Sender<Input>,
    /// Of a renewal that is under way.
    new_key: Option<rcgen::KeyPair>,
}

impl<S: Stream<Item = Result<MasterMessage, Status>> + Unpin> Session<'_, S> {
    async fn run(mut self, stop: &CancellationToken) -> (Closed, bool) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outbox: VecDeque<Up> = VecDeque::new();
        let mut closing: Option<(Closed, Instant)> = None;
        loop {
            let open = closing.is_none();
            if let Some((why, deadline)) = &closing
                && (outbox.is_empty() || Instant::now() >= *deadline)
            {
                let (why, deadline) = (why.clone(), *deadline);
                return self.farewell(why, deadline).await;
            }
            let sends = !outbox.is_empty() || (open && self.protocol.next_piece().is_some());
            // An arm only picks an input. Every arm is cancel safe.
            let inputs = select! {
                () = stop.cancelled(), if open => vec![Input::Stop],
                permit = self.outbound.reserve(), if sends => match permit {
                    Ok(permit) => {
                        // Control goes before spools.
                        let body = outbox.pop_front().or_else(|| next_spool(&mut self.protocol, &mut self.agent.runner));
                        if body.is_some() {
                            permit.send(AgentMessage { body });
                        }
                        continue;
                    }
                    Err(_) => return self.broken("the stream was closed"),
                },
                message = self.inbound.next(), if outbox.len() < OUTBOX => match message {
                    Some(Ok(message)) => vec![Input::Master(message)],
                    _ if !open => return (closing.map_or(Closed::Stopping, |(why, _)| why), self.protocol.is_welcome()),
                    Some(Err(status)) => return self.broken(status.message()),
                    None => return self.broken("the master ended the stream"),
                },
                grown = self.agent.runner.changed() => grown.into_iter().map(|grown| Input::Grown(grown.run, grown.bytes)).collect(),
                Some(news) = self.news.recv() => vec![news],
                _ = tick.tick() => {
                    let grown = self.agent.runner.check();
                    let fetched = self.agent.runner.fetched().into_iter().map(Input::Fetched);
                    grown.into_iter().map(|grown| Input::Grown(grown.run, grown.bytes)).chain(fetched).chain([Input::Tick]).collect()
                }
            };
            let mut inputs: VecDeque<Input> = inputs.into();
            while let Some(input) = inputs.pop_front() {
                if let Input::Master(message) = &input {
                    self.realign(message);
                }
                for output in self.protocol.step(input, Instant::now()) {
                    match output {
                        Output::Send(body) => outbox.push_back(body),
                        Output::Close(why) => {
                            closing.get_or_insert((why, Instant::now() + CLOSE_GRACE));
                        }
                        other => inputs.extend(self.perform(other)),
                    }
                }
            }
        }
    }

    /// Puts the ends of runs behind what the master has of them, where a power cut left less than that here.
    fn realign(&mut self, message: &MasterMessage) {
        let Some(master_message::Body::Welcome(welcome)) = &message.body else {
            return;
        };
        for ack in &welcome.acks {
            let Ok(run) = ack.run_id.parse() else {
                continue;
            };
            if let Some(bytes) = self.agent.runner.realign(run, ack.bytes) {
                self.protocol.realigned(&ack.run_id, bytes);
            }
        }
    }

    /// Ends our half of the stream and waits for the master to end its own: only then what we said is surely sent.
    async fn farewell(self, why: Closed, deadline: Instant) -> (Closed, bool) {
        let Self {
            outbound,
            mut inbound,
            protocol,
            ..
        } = self;
        drop(outbound);
        let ended = async { while let Some(Ok(_)) = inbound.next().await {} };
        // A master that does not end it has had time to read.
        let _ = time::timeout_at(deadline.into(), ended).await;
        (why, protocol.is_welcome())
    }

    fn broken(&self, why: &str) -> (Closed, bool) {
        (Closed::Broken(why.to_owned()), self.protocol.is_welcome())
    }

    /// Does what is neither sending nor closing; what takes long goes to the background and comes back as news.
    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send(_) | Output::Close(_) => None,
            Output::NameHost(name) => {
                self.name_host(&name);
                None
            }
            Output::CollectFacts(main_user) => {
                self.collect_facts(main_user);
                None
            }
            Output::Apply(cluster, facts) => {
                self.apply(cluster, *facts);
                None
            }
            Output::Mount(volumes) => {
                self.mount(volumes);
                None
            }
            Output::Start(start) => {
                let result = self.agent.runner.start(&start);
                Some(Input::Started(start.run_id, result))
            }
            Output::Cancel(run, grace_ms) => {
                self.agent.runner.cancel(run, grace_ms);
                None
            }
            Output::Forget(run) => {
                self.agent.runner.forget(run);
                None
            }
            Output::Look(id, what) => {
                self.look(id, what);
                None
            }
            Output::OpenShell(open) => {
                self.agent.shells.open(*open);
                None
            }
            Output::MakeCsr => Some(Input::Csr(self.make_csr())),
            Output::Install(pem) => self.install(&pem),
        }
    }

    /// A few small writes, before the facts that tell of the name are collected.
    fn name_host(&self, name: &str) {
        let config = &self.agent.config;
        if config.provider != Provider::Ec2 {
            return;
        }
        match hostname::ensure(&config.etc_dir, name) {
            Ok(true) => tracing::info!(hostname = name, "named"),
            Ok(false) => {}
            Err(error) => tracing::warn!(hostname = name, error = %Chain(&error), "not named"),
        }
    }

    fn collect_facts(&self, main_user: String) {
        let config = &self.agent.config;
        let imds = (config.provider == Provider::Ec2).then(|| config.imds.clone());
        let sources = Sources {
            etc_dir: config.etc_dir.clone(),
            root_home: config.root_home.clone(),
            boot_id: boot_id(config.boot_id_file.as_deref()),
            main_user,
        };
        let report = self.report.clone();
        self.agent.tracker.spawn(async move {
            let cloud = match imds {
                None => None,
                Some(base) => facts::cloud(&base)
                    .await
                    .map_err(|error| tracing::warn!(error = %Chain(&error), "no facts from IMDS"))
                    .ok(),
            };
            if let Ok(facts) =
                tokio::task::spawn_blocking(move || facts::collect(&sources, cloud)).await
            {
                // The session may be over: the next one collects again.
                let _ = report.send(Input::FactsCollected(Box::new(facts))).await;
            }
        });
    }

    fn apply(&self, cluster: String, facts: ClusterFacts) {
        let (places, report) = (self.agent.places(), self.report.clone());
        self.agent.tracker.spawn(async move {
            let (generation, sha256) = (facts.generation, facts.sha256.clone());
            let result =
                tokio::task::spawn_blocking(move || keys::apply(&places, &cluster, &facts)).await;
            let error = match result {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => Chain(&error).to_string(),
                Err(_) => "putting them in place broke off".to_owned(),
            };
            tracing::info!(generation, error, "cluster facts");
            let _ = report
                .send(Input::Applied(ClusterFactsApplied {
                    generation,
                    sha256,
                    error,
                }))
                .await;
        });
    }

    fn mount(&self, volumes: Volumes) {
        let config = &self.agent.config;
        let places = volumes::Places::new(&config.state_dir, &config.etc_dir);
        let (turn, report) = (self.agent.volumes.clone(), self.report.clone());
        self.agent.tracker.spawn(async move {
            let turn = turn.lock_owned().await;
            if report.is_closed() {
                // The next session's master says again what it wants.
                return;
            }
            let id = volumes.id;
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                volumes::mount_all(&volumes::system::Real, &places, &volumes.volumes)
            });
            let error = match work.await {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error,
                Err(_) => "putting volumes in place broke off".to_owned(),
            };
            let _ = report
                .send(Input::Mounted(VolumesMounted { id, error }))
                .await;
        });
    }

    /// A look at a file may take as long as its file system likes.
    fn look(&self, id: u64, what: Builtin) {
        let (looks, report) = (self.agent.looks.clone(), self.report.clone());
        let etc = self.agent.config.etc_dir.clone();
        self.agent.tracker.spawn(async move {
            let reply = looks.answer(id, what, etc).await;
            // The session may be over: whoever asked is told so by the master.
            let _ = report.send(Input::Looked(reply)).await;
        });
    }

    /// A new key for every renewal; it is kept in memory until its certificate is there.
    fn make_csr(&mut self) -> Option<Vec<u8>> {
        let machine = self
            .agent
            .identity
            .borrow()
            .as_ref()?
            .name
            .machine
            .to_string();
        let made = identity::new_key().and_then(|key| Ok((identity::csr(&key, &machine)?, key)));
        match made {
            Ok((csr, key)) => {
                self.new_key = Some(key);
                Some(csr)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot ask for a new certificate");
                None
            }
        }
    }

    fn install(&mut self, pem: &str) -> Option<Input> {
        let key = self.new_key.take()?;
        let old = self.agent.identity.borrow().clone()?;
        let renewed = old.renewed(key, pem, self.agent.link.roots(), unix_now());
        match renewed.and_then(|new| self.agent.vault.store(&new).map(|()| new)) {
            Ok(new) => {
                tracing::info!(
                    expires_unix = new.not_after.as_secs(),
                    "certificate renewed"
                );
                let renew_at = renewal(&new, Instant::now());
                self.agent.identity.send_replace(Some(Arc::new(new)));
                Some(Input::Installed(renew_at))
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the renewed certificate is no good; the old one stays");
                None
            }
        }
    }
}

/// Reads the next piece of a spool that may be sent.
fn next_spool(protocol: &mut Protocol, runner: &mut Runner) -> Option<Up> {
    let piece = protocol.next_piece()?;
    match runner.read(piece.run, piece.offset, piece.most) {
        Ok(chunk) => {
            protocol.sent(piece, chunk.data.len());
            let data = SpoolData {
                run_id: piece.run.to_string(),
                offset: piece.offset,
                data: chunk.data,
                end: chunk.end,
            };
            (!data.data.is_empty()).then_some(Up::Spool(data))
        }
        Err(error) => {
            tracing::error!(run = %piece.run, %error, "cannot read a spool");
            protocol.skip(piece.run);
            None
        }
    }
}
