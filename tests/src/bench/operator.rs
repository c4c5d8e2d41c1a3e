//! An operator's connection that stays open: what the master needs for an answer, without the start of a command.

use std::path::{Path, PathBuf};
use std::time::Instant;

use aot_proto::v1::job_event::Body;
use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::v1::{BuiltinName, ExecRequest, JobSummary, StatusRequest};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The connection, and the thread's own runtime for it.
pub struct Operator {
    runtime: Runtime,
    client: OperatorClient<Channel>,
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
        }
    }

    /// Seconds of a ping of these, all of which must answer.
    ///
    /// # Panics
    /// When one does not.
    pub fn ping(&mut self, target: &str) -> f64 {
        let started = Instant::now();
        let request = ExecRequest {
            target: target.to_owned(),
            builtin: BuiltinName::Ping.into(),
            ..ExecRequest::default()
        };
        let summary = self.exec(request, |_| {});
        assert_eq!(summary.exit_code, 0, "{summary:?}");
        started.elapsed().as_secs_f64()
    }

    /// How many instances have applied this generation of the cluster facts.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn applied(&mut self, generation: u64) -> usize {
        let asked = self.client.status(StatusRequest::default());
        let reply = self.runtime.block_on(asked).expect("an answer");
        let instances = reply.into_inner().instances;
        instances
            .iter()
            .filter(|i| i.generation == generation)
            .count()
    }

    /// Runs a job to its end and shows each of its events.
    ///
    /// # Panics
    /// When its stream breaks.
    pub fn exec(&mut self, request: ExecRequest, mut see: impl FnMut(&Body)) -> JobSummary {
        self.runtime.block_on(async {
            let mut events = self
                .client
                .exec(request)
                .await
                .expect("an answer")
                .into_inner();
            loop {
                let event = events.message().await.expect("a whole stream");
                match event.expect("a summary is last").body {
                    Some(Body::Summary(summary)) => return summary,
                    Some(body) => see(&body),
                    None => {}
                }
            }
        })
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
