//! An operator's connection that stays open: what the master needs for an answer, without the start of a command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_proto::headers;
use aot_proto::v1::job_event::Body;
use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::v1::{
    ApplyRequest, BuiltinName, Event, ExecRequest, InstanceView, JobSummary, Phase, StatusRequest,
};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The connection, and the thread's own runtime for it.
pub struct Operator {
    runtime: Runtime,
    client: OperatorClient<Channel>,
    /// Which one the calls are for, where there are several.
    cluster: Option<String>,
}

impl Operator {
    /// Connects to a master's socket.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let path: PathBuf = socket.to_owned();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://master")
            .initial_stream_window_size(1 << 20) // as the commands have it
            .initial_connection_window_size(2 << 20)
            .max_frame_size(64 << 10);
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .expect("a master answers");
        Self {
            runtime,
            client: OperatorClient::new(channel).max_decoding_message_size(64 << 20),
            cluster: None,
        }
    }

    /// Its calls are for this cluster from now on.
    pub fn turn_to(&mut self, cluster: &str) {
        self.cluster = Some(cluster.to_owned());
    }

    /// Seconds of a ping of these, all of which must answer.
    ///
    /// # Panics
    /// When one does not.
    pub fn ping(&mut self, target: &str) -> f64 {
        let started = Instant::now();
        let summary = self.exec(ping(target), |_| {});
        assert_eq!(summary.exit_code, 0, "{summary:?}");
        started.elapsed().as_secs_f64()
    }

    /// Seconds of a ping of all instances of these clusters, asked for at once; all must answer.
    ///
    /// # Panics
    /// When one does not.
    pub fn ping_all(&mut self, clusters: &[&str]) -> f64 {
        let started = Instant::now();
        let asked = clusters.iter().map(|cluster| {
            let client = self.client.clone();
            followed(client, Some(*cluster), ping("*"), |_| {})
        });
        let summaries = self.runtime.block_on(futures::future::join_all(asked));
        for summary in summaries {
            assert_eq!(summary.exit_code, 0, "{summary:?}");
        }
        started.elapsed().as_secs_f64()
    }

    /// How many instances have applied this generation of the cluster facts, or one after it.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn applied(&mut self, generation: u64) -> usize {
        let asked = self.client.status(StatusRequest::default());
        let reply = self.runtime.block_on(asked).expect("an answer");
        let instances = reply.into_inner().instances;
        instances
            .iter()
            .filter(|i| i.generation >= generation)
            .count()
    }

    /// Runs a job to its end and shows each of its events.
    ///
    /// # Panics
    /// When its stream breaks.
    pub fn exec(&mut self, request: ExecRequest, see: impl FnMut(&Body)) -> JobSummary {
        let job = followed(self.client.clone(), self.cluster.as_deref(), request, see);
        self.runtime.block_on(job)
    }

    /// Runs stages again, and follows that to its end; what the last event says, `None` where it does not come in time.
    ///
    /// # Panics
    /// When the master goes away, or refuses it.
    pub fn apply(&mut self, request: ApplyRequest, within: Duration) -> Option<Event> {
        let asked = async {
            let answer = self.client.apply(request).await.expect("an answer");
            let mut events = answer.into_inner();
            loop {
                let event = events.message().await.expect("a whole stream");
                let event = event.expect("the last one says so");
                if event.last {
                    return event;
                }
            }
        };
        let timed = async { tokio::time::timeout(within, asked).await };
        self.runtime.block_on(timed).ok()
    }

    /// Which instances are not ready, by their phase: how many, and the first of them with what is said of it.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn lacking(&mut self) -> String {
        let asked = self.client.status(StatusRequest::default());
        let reply = self.runtime.block_on(asked).expect("an answer");
        let all = reply.into_inner().instances;
        let mut by_phase: BTreeMap<Phase, Vec<&InstanceView>> = BTreeMap::new();
        for instance in all.iter().filter(|it| it.phase() != Phase::Ready) {
            by_phase.entry(instance.phase()).or_default().push(instance);
        }
        let first = by_phase.iter().map(|(phase, instances)| {
            let InstanceView {
                name,
                connected,
                note,
                ..
            } = instances[0];
            let count = instances.len();
            format!("{count} {phase}, the first of them {name} (connected: {connected}): {note}")
        });
        let lacking: Vec<String> = first.collect();
        format!(
            "of {} instances are not ready: {}",
            all.len(),
            match lacking.is_empty() {
                true => "none".to_owned(),
                false => lacking.join("; "),
            }
        )
    }
}

fn ping(target: &str) -> ExecRequest {
    ExecRequest {
        target: target.to_owned(),
        builtin: BuiltinName::Ping.into(),
        ..ExecRequest::default()
    }
}

/// Asks for a job of this cluster, where it is named, and follows it to its end.
async fn followed(
    mut client: OperatorClient<Channel>,
    cluster: Option<&str>,
    request: ExecRequest,
    mut see: impl FnMut(&Body),
) -> JobSummary {
    let mut request = Request::new(ExecRequest {
        cluster: cluster.map(str::to_owned).or(request.cluster),
        ..request
    });
    if let Some(cluster) = cluster {
        headers::set(request.metadata_mut(), headers::CLUSTER, cluster);
    }
    let answer = client.exec(request).await.expect("an answer");
    let mut events = answer.into_inner();
    loop {
        let event = events.message().await.expect("a whole stream");
        match event.expect("a summary is last").body {
            Some(Body::Summary(summary)) => return summary,
            Some(body) => see(&body),
            None => {}
        }
    }
}

/// Pings all, in a session of its own, until standard input is closed; prints the seconds of each.
pub(super) fn play(socket: &Path) {
    const PAUSE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    rustix::process::setsid().expect("it leads no group yet");
    let mut operator = Operator::connect(socket);
    let stdin = std::io::stdin();
    loop {
        println!("{}", operator.ping("*"));
        let mut closed = [PollFd::new(&stdin, PollFlags::IN)];
        if poll(&mut closed, Some(&PAUSE)).expect("it can be waited for") > 0 {
            return;
        }
    }
}
